"""Simulated peak memory: a whole step of the real strategy and optimizer on fake tensors without storage.

The answer is the peak of the worst group. Each group is counted when every group of the sweep has its
optimizer state. Groups that differ only in depth are counted once, at the lowest: the lower the active group,
the more blocks above it keep activations for the backward pass. With checkpointing the highest is counted
too, since frozen blocks then keep their inputs. Of groups that are drawn, one sweep of draws is counted.

On "cuda" the peak stands for torch.cuda.max_memory_allocated. `kernels` names what is not simulated; a CUDA
kernel of scaled_dot_product_attention may also keep other tensors than the CPU's flash attention. On "cpu"
the peak is what LiveBytes counts.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmark import rows
from benchmark.engine import Group
from benchmark.engine.update import coming_update
from benchmark.errors import UserError
from benchmark.measure.optimizer_state import active_group, state_bytes, state_tensors
from benchmark.measure.weights import device_weights, host_weights
from benchmark.memory import kernels, known
from benchmark.memory.alike import signature, visit_few
from benchmark.memory.draws import counted_turns
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
GRADIENTS = "gradients"
"""The backward pass from the first gradient of the group on: blocks above it are done with."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Bytes on the device at the worst moment of a group's step; `total` is their sum.

    activations: tensors that the forward pass keeps for the backward pass. inputs: the batch and the model's
    buffers. moment: forward, backward or step; the switch of groups takes no more than the larger of two
    states, so it is never the worst. standing: parameters, masters, gradients and state when the optimizer
    begins its step, the paper's #PGS. host: state and masters in host memory, and the inputs of blocks that
    wait there for the backward pass. moments: the bytes by kind at
    the worst of each moment, the backward pass from its first gradient on apart.
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
    moments: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.kinds.values())

    @property
    def kinds(self) -> dict[str, int]:
        """Bytes of each of KINDS."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @property
    def largest(self) -> str:
        """The kind with the most bytes."""
        return max(KINDS, key=lambda kind: self.kinds[kind])


def peak(setting: Setting, *, device: str = "cuda") -> Peak:
    """The peak of the worst group, simulated once (see `known`).

    Raises UserError for a device other than cuda or cpu, and for a setting that cannot be trained.
    """
    return known.peak(
        setting,
        device,
        lambda: max(sweep(setting, device=device), key=lambda peak: peak.total),
    )


def sweep(setting: Setting, *, device: str = "cuda", every: bool = False) -> list[Peak]:
    """The peaks of the groups that may be the worst (`every`: of all groups)."""
    if device not in ("cuda", "cpu"):
        raise UserError(f"device must be cuda or cpu: {device!r}")
    # the strategy makes master weights on the meta device; they become fake tensors at their first use
    fake = _Fake(allow_non_fake_inputs=True)
    training = Training(setting, fake=fake)
    with fake, contextlib.ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(kernels.as_on_cuda())
            kernels.use_foreach(training.optimizer)
        try:
            return _Sweep(training, device, every).peaks()
        except RuntimeError as error:  # an operation without an implementation for fake tensors
            reason = str(error).splitlines()[0]
            raise UserError(
                f"model {setting.model}: its step is beyond simulation: {reason}"
            ) from error


class _Sweep:
    """Steps through the optimizer's own schedule until each group to count has been counted with its state.

    `counted` are the groups to count, `like` maps every group to the one that is counted for it.
    """

    def __init__(self, training: Training, device: str, every: bool) -> None:
        self.training, self.device = training, device
        self.optimizer: Any = training.optimizer
        model = training.model
        groups = getattr(self.optimizer, "groups", None)
        if groups is None:
            names = tuple(n for n, p in model.named_parameters() if p.requires_grad)
            groups = (Group(0, (), names, 0),)
        self.groups: tuple[Group, ...] = groups
        alike: dict[Any, list[int]] = {}
        for group in groups:
            alike.setdefault(signature(model, group), []).append(group.index)
        self.like = {i: same[0] for same in alike.values() for i in same}
        if every:
            self.counted = set(self.like)
        elif training.setting.checkpointing or host_weights(model):
            self.counted = {same[i] for same in alike.values() for i in (0, -1)}
        else:
            self.counted = set(self.like.values())
        self._plan: Any = getattr(self.optimizer, "plan", None)
        self.named = dict(model.named_parameters())

    def peaks(self) -> list[Peak]:
        """The peaks of the groups to count."""
        if self._plan is not None and self._plan.schedule.drawn:
            return counted_turns(self.training, self._count)
        return self._without_turns() if self._plan is None else self._in_turns()

    def _without_turns(self) -> list[Peak]:
        """The larger peak of the first two steps. The first one may compute what the optimizer keeps, such as
        GaLore's projections."""
        first, later = self._count(self.groups[0]), self._count(self.groups[0])
        worst = max(later, first, key=lambda peak: peak.total)
        return [replace(worst, standing=later.standing)]

    def _in_turns(self) -> list[Peak]:
        """1. The groups to count step once, which makes their state. 2. All other groups get theirs, in the
        same sweep if they can: for that, gradients without a forward and backward pass are enough. 3. The
        groups to count step again, counted."""
        visit_few(self.optimizer, 1)
        with_gradient: dict[int, set[int]] = {}
        made: set[int] = set()
        for index in self._until(self.counted):
            if index in self.counted and index not in made:
                with_gradient[index] = self._real_step(index)
            else:
                if self.like[index] in with_gradient and index not in made:
                    self._gradients_alone(index, with_gradient[self.like[index]])
                    made.add(index)
                self.training.update()
            made |= with_gradient.keys()
        dwell = self._plan.schedule.dwell
        for index in self._until({group.index for group in self.groups} - made):
            if index not in made or self.optimizer.position.step % dwell == 0:
                self._gradients_alone(index, with_gradient[self.like[index]])
            made.add(index)
            self.training.update()
        visit_few(self.optimizer, 3)
        peaks: dict[int, list[Peak]] = {index: [] for index in self.counted}
        times = min(dwell, 2)  # with idle="drop" a turn begins without state
        for index in self._until(self.counted, times):
            if len(peaks.get(index, range(times))) < times:
                peaks[index].append(self._count(self.groups[index]))
            else:
                self.training.update()
        worst = {i: max(found, key=lambda each: each.total) for i, found in peaks.items()}
        return list(worst.values())

    def _until(self, wanted: set[int], times: int = 1) -> Iterator[int]:
        """The index of the active group, step by step, until each of `wanted` was active `times` times."""
        left = Counter(dict.fromkeys(wanted, times))
        while +left:
            index = active_group(self.optimizer)
            left[index] -= 1
            yield index

    def _real_step(self, index: int) -> set[int]:
        """A whole step. Returns the places in the group of the parameters that got a gradient."""
        self.training.backward(self.training.forward())
        names = self.groups[index].parameters
        updated = {id(p) for p in coming_update(self.training.model, self.optimizer).parameters}
        places = {i for i, n in enumerate(names) if id(self.named[rows.whole(n)]) in updated}
        self.training.update()
        return places

    def _gradients_alone(self, index: int, places: set[int]) -> None:
        names = self.groups[index].parameters
        for name in dict.fromkeys(rows.whole(names[place]) for place in sorted(places)):
            parameter = self.named[name]
            parameter.grad = torch.empty_like(parameter)
            for hook in list((parameter._post_accumulate_grad_hooks or {}).values()):
                hook(parameter)  # of an optimizer that updates inside the backward pass

    def _count(self, group: Group) -> Peak:
        training, model = self.training, self.training.model
        held = self._held()
        timeline = Timeline(
            {
                "inputs": [*training.batch.values(), *model.buffers()],
                "parameters": device_weights(model),
            },
            [*state_tensors(self.optimizer), *host_weights(model)],
            held,
            granularity=kernels.GRANULARITY if self.device == "cuda" else 1,
        )
        standing: list[int] = []
        gradients: list[bool] = []

        def ready(optimizer: torch.optim.Optimizer) -> None:
            for gradient in _gradients(optimizer):
                timeline.mark(gradient, "gradients")
            now = timeline.split()
            standing.append(sum(now.get(kind, 0) for kind in KINDS[:4]))

        def made(gradient: torch.Tensor) -> None:
            if not gradients:
                timeline.phase(GRADIENTS)
            gradients.append(True)
            timeline.mark(gradient, "gradients")

        with timeline:
            timeline.phase("forward")
            loss = training.forward()
            timeline.mark_alive("activations")
            waiting = timeline.host
            timeline.phase("backward")
            with _each_gradient(model, made):
                training.backward(loss)
            timeline.phase("step")
            with _before_update(ready):
                training.update()
        for tensor in state_tensors(self.optimizer):
            timeline.mark(tensor, "optimizer_state")
        moment, kinds = timeline.worst()
        moment = "backward" if moment == GRADIENTS else moment
        peak = self._peak(group, moment, kinds, standing[-1])
        return replace(peak, host=peak.host + waiting, moments=timeline.phases())

    def _held(self) -> dict[str, int]:
        """Bytes of state and masters on the device now."""
        device = state_bytes(self.optimizer)["device"]
        return {kind: device[kind] for kind in ("optimizer_state", "master")}

    def _peak(self, group: Group, moment: str, kinds: Mapping[str, int], standing: int) -> Peak:
        sizes: dict[str, Any] = {kind: kinds.get(kind, 0) for kind in KINDS}
        return Peak(
            **sizes,
            standing=standing,
            host=sum(state_bytes(self.optimizer)["host"].values()),
            moment=moment,
            group=group.index,
            groups=len(self.groups),
            units=group.units,
        )


@contextlib.contextmanager
def _each_gradient(model: nn.Module, see: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Context in which `see` is called with every gradient once it is whole, before an optimizer uses it up
    inside the backward pass; or by the piece, where it is used up as it is made."""

    def look(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:  # else it was used up as it was made
            see(parameter.grad)

    handles = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            hooks: Any = parameter._post_accumulate_grad_hooks or {}
            later = dict(hooks)
            hooks.clear()
            handles.append(parameter.register_post_accumulate_grad_hook(look))
            hooks.update(later)

    def before(optimizer: torch.optim.Optimizer) -> None:
        for gradient in _gradients(optimizer):
            see(gradient)

    with _before_update(before):
        yield
    for handle in handles:
        handle.remove()


@contextlib.contextmanager
def _before_update(see: Callable[[torch.optim.Optimizer], Any]) -> Iterator[None]:
    """Context in which `see` is called with every optimizer that begins its step."""

    def call(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        see(optimizer)

    hook = register_optimizer_step_pre_hook(call)
    try:
        yield
    finally:
        hook.remove()


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    targets = [target for group in optimizer.param_groups for target in group["params"]]
    return [target.grad for target in targets if target.grad is not None]


class _Fake(FakeTensorMode):
    """Answers 1 where code reads a number from a fake tensor, which has none (Adafactor's norms)."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return 1.0 if args[0].dtype.is_floating_point else 1
