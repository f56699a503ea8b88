"""Simulated peak memory: real strategies and the real optimizer, a whole step on tensors without storage.

Every group of a sweep counts, in the state it has once the whole sweep has been through it; the worst is the
answer. Of groups that differ in depth alone only the lowest is run: what stands above it keeps all that it
keeps for the others, and more; with checkpointing the highest too: frozen blocks keep their inputs then.
On "cuda" the peak is what torch.cuda.max_memory_allocated would say, save what `kernels` names and where
scaled_dot_product_attention picks a kernel that keeps other tensors than the CPU's flash attention does; on
"cpu" it is what LiveBytes counts.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.engine import Group
from benchmark.errors import UserError
from benchmark.measure.optimizer_state import active_group, state_bytes, state_tensors
from benchmark.memory import kernels
from benchmark.memory.setting import Setting
from benchmark.memory.timeline import Timeline
from benchmark.memory.training import Training

KINDS = (
    "parameters",
    "gradients",
    "optimizer_state",
    "master",
    "activations",
    "temporaries",
    "inputs",
)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Bytes on the device at the worst moment of a group's step; `total` is their sum.

    activations: what the forward pass keeps for the backward. inputs: the batch and the model's buffers.
    moment: forward, backward, step, or switch, when one group's state leaves the device and the next one's
    arrives. standing: parameters, masters, gradients and state as the optimizer begins (the paper's #PGS);
    host: state and masters that wait in host memory.
    """

    parameters: int
    gradients: int
    optimizer_state: int
    master: int
    activations: int
    temporaries: int
    inputs: int
    standing: int
    host: int
    moment: str
    group: int
    groups: int
    units: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.kinds.values())

    @property
    def kinds(self) -> dict[str, int]:
        """kind -> bytes, of KINDS."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @property
    def largest(self) -> str:
        """The kind that takes most."""
        return max(KINDS, key=lambda kind: self.kinds[kind])


_found: dict[tuple[str, str], Peak] = {}


def peak(setting: Setting, *, device: str = "cuda") -> Peak:
    """The worst group's peak; found once per setting and process.

    Raises UserError for a device other than cuda or cpu and for what cannot be trained so.
    """
    key = setting.hash, device
    if key not in _found:
        _found[key] = max(sweep(setting, device=device), key=lambda found: found.total)
    return _found[key]


def sweep(setting: Setting, *, device: str = "cuda", every: bool = False) -> list[Peak]:
    """The peak of each group that may be the worst (`every`: of each group), and of the switch."""
    if device not in ("cuda", "cpu"):
        raise UserError(f"device must be cuda or cpu: {device!r}")
    # a strategy's master weights come from the meta device, and are fake from their first use on
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    training = Training(setting, fake=fake)
    with fake, _AnyNumber(), contextlib.ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(kernels.as_on_cuda())
            kernels.use_foreach(training.optimizer)
        try:
            return _Sweep(training, device, every).peaks()
        except RuntimeError as error:  # an operation that fake tensors have no stand-in for
            reason = str(error).splitlines()[0]
            raise UserError(
                f"model {setting.model}: its step is beyond simulation: {reason}"
            ) from error


class _Sweep:
    """Follows the optimizer's own schedule until each group to run has been counted with its state."""

    def __init__(self, training: Training, device: str, every: bool) -> None:
        self.training, self.optimizer, self.device = training, training.optimizer, device
        model = training.model
        groups = getattr(self.optimizer, "groups", None)
        if groups is None:
            names = tuple(n for n, p in model.named_parameters() if p.requires_grad)
            groups = (Group(0, (), names, 0),)
        self.groups: tuple[Group, ...] = groups
        alike: dict[Any, list[int]] = {}
        for group in groups:
            alike.setdefault(_signature(model, group), []).append(group.index)
        self.ran = {i: same[0] for same in alike.values() for i in same}
        self.run = set(self.ran) if every else {same[i] for same in alike.values() for i in (0, -1)}
        if not every and not training.setting.checkpointing:
            self.run = set(self.ran.values())
        self._plan = getattr(self.optimizer, "plan", None)
        self.named = dict(model.named_parameters())

    def peaks(self) -> list[Peak]:
        """First the groups to run step, so that their state exists; then all the others get theirs, as it
        takes nothing but their gradients; then the groups to run are counted."""
        moved: dict[int, set[int]] = {}
        for index in self._until(self.run):
            if index in self.run and index not in moved:
                moved[index] = self._real_step(index)
            else:
                self.training.update()
        for index in self._until({group.index for group in self.groups}):
            self._gradients_alone(index, moved[self.ran[index]])
            self.training.update()
        found: dict[int, Peak] = {}
        dwell = self._plan.schedule.dwell if self._plan else 1
        for index in self._until(self.run, times=min(dwell, 2)):  # idle="drop": no state at first
            if index in self.run:
                now = self._counted(index)
                found[index] = max(now, found.get(index, now), key=lambda peak: peak.total)
            else:
                self.training.update()
        return [*found.values(), *self._switches(found)]

    def _until(self, wanted: set[int], times: int = 1) -> Iterator[int]:
        """The active group, step by step, until every wanted one has been seen so many times."""
        left = Counter(dict.fromkeys(wanted, times))
        while +left:
            index = active_group(self.optimizer)
            left[index] -= 1
            yield index

    def _real_step(self, index: int) -> set[int]:
        """A whole step; returns the places in the group of the parameters that got a gradient."""
        self.training.backward(self.training.forward())
        names = self.groups[index].parameters
        moved = {i for i, name in enumerate(names) if self.named[name].grad is not None}
        self.training.update()
        return moved

    def _gradients_alone(self, index: int, places: set[int]) -> None:
        for place, name in enumerate(self.groups[index].parameters):
            if place in places:
                self.named[name].grad = torch.empty_like(self.named[name])

    def _counted(self, index: int) -> Peak:
        training, model = self.training, self.training.model
        held = self._held()
        timeline = Timeline(
            {
                "parameters": model.parameters(),
                "inputs": [*training.batch.values(), *model.buffers()],
            },
            state_tensors(self.optimizer),
            held,
            granularity=kernels.GRANULARITY if self.device == "cuda" else 1,
        )
        standing: list[int] = []

        def ready(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups:
                for target in group["params"]:
                    if target.grad is not None:
                        timeline.mark(target.grad, "gradients")
            now = timeline.split()
            standing.append(sum(now.get(kind, 0) for kind in KINDS[:4]))

        with timeline:
            timeline.phase("forward")
            loss = training.forward()
            timeline.mark_alive("activations")
            timeline.phase("backward")
            training.backward(loss)
            for parameter in model.parameters():
                if parameter.grad is not None:
                    timeline.mark(parameter.grad, "gradients")
            timeline.phase("step")
            hook = register_optimizer_step_pre_hook(ready)
            try:
                training.update()
            finally:
                hook.remove()
        moment, kinds = timeline.worst()
        return self._peak(index, moment, kinds, standing[-1])

    def _held(self) -> dict[str, int]:
        """State and masters on the device now; with precision mixed the idle masters too."""
        now = state_bytes(self.optimizer)
        held = {"optimizer_state": now["device"]["optimizer_state"]}
        held["master"] = now["device"]["master"]
        if self.training.setting.idle_masters_on_device:
            held["master"] += now["host"].get("master", 0)
        return held

    def _peak(self, index: int, moment: str, kinds: Mapping[str, int], standing: int) -> Peak:
        host = dict(state_bytes(self.optimizer)["host"])
        if self.training.setting.idle_masters_on_device:
            host.pop("master", None)
        return Peak(
            **{kind: kinds.get(kind, 0) for kind in KINDS},
            standing=standing,
            host=sum(host.values()),
            moment=moment,
            group=index,
            groups=len(self.groups),
            units=self.groups[index].units,
        )

    def _switches(self, found: Mapping[int, Peak]) -> Iterator[Peak]:
        """On a CUDA device the state that leaves is there until the one that arrives is there too."""
        host = sum(state_bytes(self.optimizer)["host"].values())
        if self.device == "cpu" or self._plan is None or not host:
            return
        schedule = self._plan.schedule
        turns = [self.ran[schedule.group_at(step)] for step in range(schedule.sweep_steps + 1)]
        for old, new in {pair for pair in pairwise(turns) if len(self.groups) > 1}:
            a, b = found[old], found[new]
            masters = (
                a.master if self.training.setting.idle_masters_on_device else a.master + b.master
            )
            kinds = {
                "parameters": a.parameters,
                "inputs": a.inputs,
                "optimizer_state": a.optimizer_state + b.optimizer_state,
                "master": masters,
            }
            yield self._peak(old, "switch", kinds, a.standing)


class _AnyNumber(TorchDispatchMode):
    """Where code reads a number out of a tensor that has none (Adafactor's norms), it reads 1."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return 1.0 if args[0].dtype.is_floating_point else 1


def _signature(model: nn.Module, group: Group) -> Any:
    """What a group's step allocates, but for its depth: parameters' shapes and modules' settings."""
    modules = dict(model.named_modules())
    named = dict(model.named_parameters())
    shapes = tuple((tuple(named[n].shape), named[n].dtype) for n in group.parameters)
    units = tuple(_settings(modules[unit]) if unit in modules else unit for unit in group.units)
    return shapes, units


def _settings(module: nn.Module) -> Any:
    plain = (int, float, str, bool, type(None))
    return tuple(
        (
            name,
            type(part).__name__,
            tuple(
                (k, v)
                for k, v in vars(part).items()
                if isinstance(v, plain) and k not in ("layer_idx", "layer_id")
            ),
        )
        for name, part in module.named_modules()
    )
