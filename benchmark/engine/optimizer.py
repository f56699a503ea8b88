"""The block-wise optimizer: a torch.optim.Optimizer whose parameters change with the step.

One step updates one group. Every other parameter has requires_grad False, so gradients exist only for the
active group. The group switches at the end of `step()`. Between two steps the trainable parameters do not
change, so accumulation, clipping, closures and skipped steps work as with any optimizer; what does not with
an update inside the backward pass is in `in_backward.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmark import rows
from benchmark.engine import by_rows, distributed, ownership, partitions, saved, sharded
from benchmark.engine.activations import ActivePath, check_checkpointing
from benchmark.engine.after_backward import AfterBackward
from benchmark.engine.contract import Averaging, Updates
from benchmark.engine.delayed_lr import DelayedLR
from benchmark.engine.draws import Draw
from benchmark.engine.groups import Group
from benchmark.engine.in_backward import InBackward, check_update
from benchmark.engine.offload import check_idle, make_store
from benchmark.engine.plan import make_plan
from benchmark.engine.precision import Masters, check_master, make_masters
from benchmark.engine.residents import Residents
from benchmark.engine.schedule import Position
from benchmark.engine.stream import make_weights
from benchmark.engine.trainables import Trainables
from benchmark.engine.turns import Turns
from benchmark.engine.units import Unit, check_units, find_units
from benchmark.engine.update import Update
from benchmark.engine.visitors import Pieces, Visitors
from benchmark.engine.wrapped import (
    Roster,
    build,
    check_names,
    check_options,
    elementwise,
    find_optimizer,
    hyper_groups,
    tables,
)
from benchmark.errors import UserError


class BlockwiseOptimizer(torch.optim.Optimizer):
    """Wrap any torch optimizer so that each step updates one group of layer units.

    Six settings: partition (units are layers, or with modules or rows:N parts of them, see `partitions.py`;
    group_size, always_active, frozen), order (order, seed, queue, smoothing), dwell, idle state (idle),
    master weights (master: none | active | all, or the dict from `lower`: all, created before the model moved
    to its device), where the weights of the blocks are (weights: resident on the device, or stream, from host
    memory; see `stream.py`), and update.
    HiFT, BAdam, LISA and full fine-tuning are combinations of them (`presets.py`).

    idle: the state of parameters that become idle stays on the device (keep), moves to host memory (cpu) or
    is dropped (drop). reset drops the state of every parameter at the end of each turn, even if it is active
    again in the next one; only what is always active keeps its state. idle_master: masters of parameters that
    become idle stay on the device (keep) or move to host memory (cpu); None is keep with idle="keep", else
    cpu.

    update: all of the group in `step` (step), or each parameter inside the backward pass, as soon as its
    gradient is whole (in_backward). In the latter its state and masters come from host memory in pieces of at
    most `piece` bytes where the wrapped optimizer is elementwise, as AdamW, and whole where it is not, as
    Adafactor. A loop must then call backward once a step, without a GradScaler, on one rank; clipping by norm
    finds no gradients.

    With rows:N a matrix may train some of its rows at a time. Then its gradient is as large as the matrix
    while the backward pass makes it, which is numel · itemsize bytes for the largest such matrix; afterwards
    `.grad` has the rows of the active ranges alone, so it has fewer than the parameter. The optimizer must be
    elementwise, and there must be one rank.

    Parameters with requires_grad False never train (such as the base of a PEFT-wrapped model), nor do those
    of layers or units named in `frozen`. `optimizer` is a class or a name; `options` (lr, weight_decay, ...)
    go to that class. `param_groups` is as in torch, with tensors or parameter names; its options hold for
    every group. Raises UserError before any weight changes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: str | type[torch.optim.Optimizer] = "adamw",
        *,
        units: Sequence[Unit] | None = None,
        group_size: int | str = 1,
        always_active: Iterable[str] = (),
        frozen: Iterable[str] = (),
        order: str | Sequence[int] | Draw = "bottom2up",
        seed: int = 0,
        queue: str = "paper",
        smoothing: float = 0.8,
        dwell: int = 1,
        idle: str = "keep",
        idle_master: str | None = None,
        master: str | dict[str, torch.Tensor] = "none",
        low_dtype: torch.dtype | None = None,
        checkpointing: str | None = None,
        weights: str = "resident",
        partition: str = "units",
        update: str = "step",
        piece: int = 8 << 20,
        param_groups: Iterable[dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        kind = master if isinstance(master, str) else "all"
        check_idle(idle, idle_master, kind)
        check_update(update, piece)
        check_checkpointing(checkpointing)
        cls, implied = find_optimizer(optimizer)
        options = implied | options
        ownership.check_free(model)
        units = find_units(model, trainable_only=True) if units is None else tuple(units)
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        check_units(units, trainable)
        units, always = partitions.chosen(model, units, partition, frozen, always_active)
        self.units = units
        self.plan = make_plan(
            units,
            group_size=group_size,
            order=order,
            seed=seed,
            dwell=dwell,
            queue=queue,
            always_active=always,
            smoothing=smoothing,
        )
        self._turns = Turns(self.plan)
        names = [name for unit in units for name in unit.parameters]
        used = set(map(rows.whole, names))
        self.parameters: Mapping[str, nn.Parameter] = {
            name: parameter for name, parameter in trainable.items() if name in used
        }
        hyper = hyper_groups(param_groups, self.parameters)
        check_options(cls, hyper, self.parameters, options)
        check_names(cls, names)
        distributed.check_model(model, groups=len(self.groups))
        sharded.check(
            self.parameters,
            names,
            master=kind,
            low_dtype=low_dtype,
            update=update,
            follows_gradients=self.plan.schedule.follows_gradients,
        )
        check_master(master, low_dtype, self.parameters)

        sharded.settle(model)
        self.weights = make_weights(model, weights)
        self._path = ActivePath(model, checkpointing) if checkpointing else None
        on_device = bool(options.get("fused") or options.get("capturable"))
        store = make_store(idle, idle_master, device_scalars=on_device, tables=tables(cls))
        where: Any = {"host": store.on_host("master"), "device_of": self.weights.device_of}
        waiting = make_masters(model, self.parameters, master, low_dtype, names=names, **where)
        self.weights.hold()
        ownership.claim(self, trainable.values())
        for parameter in trainable.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        store.replace({name: {"master": tensor} for name, tensor in waiting.items()})
        masters = Masters(kind) if kind != "none" else None
        drop = idle in ("drop", "reset")
        trained = Trainables(self.parameters, names)
        residents = (trained, store, masters, drop, self.weights)
        if update == "step":
            self._residents = Residents(*residents)
        else:
            pieces = Pieces(cls, hyper, options, piece) if elementwise(cls) else None
            self._residents = Visitors(*residents, pieces, by_rows.layers(model))
        self._idle, self._step = idle, 0
        self.synchroniser: Averaging | None = None  # set by distributed.synchronise
        self._hyper, self._roster = hyper, Roster(hyper)
        self._wrap(cls, options)

    def _wrap(self, cls: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
        """Build the wrapped optimizer over the first group, and share its param_groups and state."""

        def build_over(names: Sequence[str]) -> torch.optim.Optimizer:
            split = self._roster.split(names, self._residents.target)
            return build(cls, self._hyper, split, options)

        self._residents.swap((), self.active.parameters)
        self.wrapped = build_over(self.active.parameters)
        self._residents.bind(self.wrapped.state, lambda names: build_over(names).state)
        self._fixed = False
        super().__init__(self.wrapped.param_groups, self.wrapped.defaults)
        self._fixed = True
        self.param_groups, self.state = self.wrapped.param_groups, self.wrapped.state
        parts = (self._roster, self._turns)
        if isinstance(self._residents, Visitors):
            self._updates: Updates = InBackward(self.wrapped, self._residents, *parts)
        else:
            self._updates = AfterBackward(self.wrapped, self._residents, *parts)
        self._step_supports_amp_scaling = self._updates.takes_scaled
        self._show(self.active)

    # --- reading ----------------------------------------------------------------------------------

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, bottom to top."""
        return self.plan.groups

    @property
    def active(self) -> Group:
        """The group whose gradients the next backward produces."""
        return self._turns.active

    @property
    def position(self) -> Position:
        """The position of the run: steps done, sweep, turn within the sweep."""
        return self.plan.schedule.position(self._step)

    @property
    def keeps_idle_state(self) -> bool:
        """Whether parameters that become idle keep their optimizer state, on the device or the host."""
        return self._idle in ("keep", "cpu")

    @property
    def trainable_numel(self) -> int:
        """Parameters that the next step updates."""
        return self.active.numel

    def delayed_lr(
        self,
        shape: str = "linear",
        *,
        total_steps: int,
        warmup_steps: int = 0,
        mode: str = "paper",
    ) -> DelayedLR:
        """A torch LR scheduler whose rate is constant within a sweep (`schedule.Rate`)."""
        rate = self.plan.rate(shape, total_steps=total_steps, warmup_steps=warmup_steps, mode=mode)
        return DelayedLR(self, rate)

    def state_bytes(self) -> dict[str, dict[str, int]]:
        """Bytes alive now: {"device" | "host": {"gradients", "optimizer_state", "master"}}.

        "host" is the state of idle groups with idle="cpu", and under "weights" what is streamed. Without an
        accelerator that is the same memory.
        """
        return self._residents.nbytes()

    def device_tensors(self) -> list[torch.Tensor]:
        """Optimizer state and master weights of the active group, for code that counts storages."""
        return self._residents.tensors()

    # --- stepping ---------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the active group, then make the next one active. Returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        distributed.check_step(self)
        if not self._updates.step(self):
            return loss
        self._step += 1
        if self._step % self.plan.schedule.dwell == 0:
            old = self.active
            self._turns.end()
            self._switch(old, self._turns.begin(self._step))
        return loss

    def coming_update(self) -> Update:
        """What the next step changes, asked after the backward pass."""
        return self._updates.coming_update()

    def _switch(self, old: Group, new: Group) -> None:
        """End the turn of group `old`; touches only the parameters of the two groups."""
        stay = self.plan.always
        if self._idle != "reset":
            stay = frozenset(old.parameters) & frozenset(new.parameters)
        leaving = [name for name in old.parameters if name not in stay]
        arriving = [name for name in new.parameters if name not in stay]
        if leaving or arriving:
            self._residents.swap(leaving, arriving)
            self._show(new)

    def _show(self, group: Group) -> None:
        """Put the group's weights into the public param_groups."""
        parameter = self._residents.trained.parameter
        self._roster.show(self.param_groups, group.parameters, parameter)
        if self._path is not None:
            self._path.follow(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises UserError: the groups are fixed when the optimizer is built."""
        if self._fixed:
            raise UserError(
                "the groups of a block-wise optimizer are fixed when it is built; pass param_groups=... "
                "for options by parameter, or build a new one"
            )
        super().add_param_group(param_group)

    def release(self) -> None:
        """Release the model: all parameters are trainable and on the device, no block recomputes, and it has
        no owner."""
        if self.synchroniser is not None:
            self.synchroniser.remove()
        self._updates.remove()
        if self._path is not None:
            self._path.remove()
            self._path = None
        self.weights.release()
        ownership.release(self)

    # --- checkpoint -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume, by parameter name. The tensors are not copies, as in torch."""
        turns = self._turns.state()
        packed = saved.pack(self._definition(), self._step, self._residents.entries())
        return packed if turns is None else {**packed, "turns": turns}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a `state_dict()` of any device or idle mode.

        Raises UserError, with nothing changed, for another model, shape, dtype, plan or optimizer.
        """
        on_host = self._residents.store.on_host
        step, entries = saved.unpack(
            self._definition(), state_dict, self.parameters, on_host=on_host
        )
        self._step = step
        self._turns.load(step, state_dict.get("turns"))
        self._residents.replace(entries, self.active.parameters)
        for group, options in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in options.items() if k != "params"})
        self._show(self.active)

    def _definition(self) -> saved.Definition:
        """The definition that a saved state must agree with."""
        masters = self._residents.masters
        return saved.Definition(
            optimizer=type(self.wrapped).__name__,
            plan=self.plan,
            param_groups=[
                {**{k: v for k, v in group.items() if k != "params"}, "params": list(hyper.names)}
                for group, hyper in zip(self.param_groups, self._hyper, strict=True)
            ],
            layout=self._residents.layout(),
            masters="none" if masters is None else masters.kind,
        )
