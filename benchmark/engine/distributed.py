"""Data parallel: the gradients of the active group are averaged over ranks; nothing else is communicated.

DistributedDataParallel (DDP) fixes the parameters that it reduces when it wraps the model. If requires_grad
changes afterwards, gradients are silently not reduced. So with several ranks a block-wise optimizer of
several groups refuses to step until

    sync = synchronise(optimizer, model)      # on every rank, same weights everywhere

has been called. From then on the gradients of the active group are averaged in each backward pass, while it
runs (`sums.py`), and are there when it ends: before clipping, before GradScaler looks for overflows, before
step(). Averaging is linear, so averaging in every micro-batch is correct. `with sync.no_sync():` around all
but the last micro-batch saves communication, and so does DDP's own no_sync(). Each rank sends the bytes of
the group's gradients, and one byte per tensor, which says whether any rank has a gradient for it. As with a
DDP, training goes on after a backward pass that failed only if it failed at the same place on all ranks.

The model may still be wrapped in DDP, as Lightning, HF Trainer and Accelerate do. DDP's reducer is then kept
out of the backward pass, as in its no_sync(). DDP still allocates gradient buckets for the parameters that
were trainable when it wrapped the model. Lightning wraps before there is an optimizer, so these are as large
as the model; a strategy whose configure_ddp() does nothing avoids them.

FSDP2 needs none of this; see `sharded.py`.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmark import rows
from benchmark.engine.contract import Blockwise
from benchmark.engine.hooks import on_gradient
from benchmark.engine.sharded import is_sharded
from benchmark.engine.stream import stream_of
from benchmark.engine.sums import Sums
from benchmark.errors import UserError

UNSYNCHRONISED = (
    "the groups of this optimizer take turns, so DistributedDataParallel, which fixes what it reduces "
    "when it wraps, would leave gradients unsynchronised silently; call "
    "benchmark.engine.distributed.synchronise(optimizer, model) on every rank"
)


class Reducer(enum.Enum):
    """The value of a DDP's `require_backward_grad_sync` while this module averages in its place."""

    REPLACED = "replaced"

    def __bool__(self) -> bool:
        """False, so that the DDP does not reduce. It is not the False that DDP's own no_sync() sets."""
        return False


def synchronise(
    optimizer: Blockwise,
    model: nn.Module,
    *,
    process_group: dist.ProcessGroup | None = None,
    bucket: int = 1 << 20,
) -> Synchroniser:
    """Average the active group's gradients over `process_group` (None: all ranks) in every backward.

    bucket: the most bytes of neighbouring gradients that are copied to be sent together; a larger gradient is
    sent alone. With two ranks the averages do not depend on it; with more, the last bit may, where the
    backend adds up the ranks in another order.

    Call it on every rank, before or after a DDP wraps the model. With a process group of one rank, that rank
    trains on its own. Raises UserError, on all ranks, if weights, groups or position differ between ranks, if
    FSDP shards the model, or if there is no process group.
    """
    if not _initialised():
        raise UserError("synchronise: call torch.distributed.init_process_group first")
    if any(is_sharded(p) for p in optimizer.parameters.values()):
        raise UserError("synchronise: fully_shard reduces the gradients of this model itself")
    inner: Any = model.module if _is_ddp(model) else model
    if {id(p) for p in optimizer.parameters.values()} - {id(p) for p in inner.parameters()}:
        raise UserError("synchronise: the optimizer schedules parameters of another model")
    if stream_of(inner).on_host():
        raise UserError(
            'synchronise: weights="stream" works in one process; use weights="resident"'
        )
    if any(rows.is_part(name) for group in optimizer.groups for name in group.parameters):
        raise UserError('synchronise: partition="rows:N" works in one process; use "modules"')
    if optimizer.synchroniser is not None:
        optimizer.synchroniser.remove()
    _check_alike(optimizer, inner, process_group)
    synchroniser = Synchroniser(optimizer, inner, process_group, bucket)
    optimizer.synchroniser = synchroniser
    return synchroniser


class Synchroniser:
    """Averages the gradients of an optimizer's active group. Use `synchronise` to build it.

    pending: whether there are gradients that have not been averaged. sent: the bytes that this rank has sent
    so far.
    """

    def __init__(
        self,
        optimizer: Blockwise,
        model: nn.Module,
        process_group: dist.ProcessGroup | None,
        bucket: int,
    ) -> None:
        self._optimizer, self._model = weakref.ref(optimizer), weakref.ref(model)
        self._process_group, self._bucket = process_group, bucket
        self._ranks = dist.get_world_size(process_group)
        self._enabled = True
        self._sums: Sums | None = None  # of the backward pass that runs
        self.pending, self.sent = False, 0
        self._ddp: Any = None  # a weak reference to a DDP around the model
        self._ddp_syncs = True  # False in that DDP's no_sync()
        self._hooks = [model.register_forward_pre_hook(self._before_forward)]
        self._hooks += [on_gradient(p, self._whole) for p in optimizer.parameters.values()]

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes in this context only accumulate. The first one after it averages the sum."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    def remove(self) -> None:
        """Stop averaging. A DDP around the model reduces again."""
        for hook in self._hooks:
            hook.remove()
        ddp = self._ddp and self._ddp()
        if ddp is not None and ddp.require_backward_grad_sync is Reducer.REPLACED:
            ddp.require_backward_grad_sync = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Synchroniser:
        return self  # the hooks of a copied model do nothing

    def _whole(self, parameter: torch.Tensor) -> None:
        """A hook of each gradient. The first one of a backward pass queues the end of the averaging for the
        end of the pass."""
        self.pending = self._ranks > 1
        optimizer = self._optimizer()
        if optimizer is None or not (self.pending and self._enabled and self._ddp_syncs):
            return
        if self._sums is None:
            active = set(optimizer.active.parameters)
            parameters = [p for name, p in optimizer.parameters.items() if name in active]
            self._sums = Sums(parameters, self._process_group, self._bucket)
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(self._finish)
        with torch.no_grad():
            self._sums.whole(parameter)

    @torch.no_grad()
    def _finish(self) -> None:
        """Wait until the gradients of the backward pass that ends are averaged."""
        if self._sums is not None:
            self._sums.finish()
            self.sent += self._sums.nbytes
        self._sums, self.pending = None, False

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        """In a DDP's forward pass, keep its reducer out of the backward pass, but respect its no_sync().

        DDP reads its flag, which no_sync() sets too, after the wrapped forward pass. If the optimizer no
        longer exists, the DDP reduces again.
        """
        if self._model() is not module or not torch.is_grad_enabled():
            return
        if self._sums is not None:  # of a backward pass that raised
            self._sums.wait()
            self._sums = None
        ddp: Any = nn.parallel.DistributedDataParallel._get_active_ddp_module()
        flag = True if ddp is None else ddp.require_backward_grad_sync
        self._ddp_syncs = flag is Reducer.REPLACED or bool(flag)
        if ddp is not None and self._ddp_syncs:
            self._ddp = weakref.ref(ddp)
            orphaned = self._optimizer() is None
            ddp.require_backward_grad_sync = True if orphaned else Reducer.REPLACED


def check_step(optimizer: Blockwise) -> None:
    """Raise UserError if the gradients of a step have not been averaged over the ranks."""
    if optimizer.synchroniser is not None:
        if optimizer.synchroniser.pending:
            raise UserError(
                "gradients were not averaged over ranks: the last backward of a step must not be in "
                "no_sync(), and must end without an error"
            )
        return
    a_parameter = next(iter(optimizer.parameters.values()))
    ranks = dist.get_world_size() if _initialised() else 1
    if ranks > 1 and len(optimizer.groups) > 1 and not is_sharded(a_parameter):
        raise UserError(f"{ranks} ranks: {UNSYNCHRONISED}")


def check_model(model: nn.Module, *, groups: int) -> None:
    """Raise UserError for a model wrapped in DDP, unless there is only one group."""
    if _is_ddp(model) and groups > 1:
        raise UserError(
            f"the model is wrapped in DDP: build the optimizer on model.module; {UNSYNCHRONISED}"
        )


def check_alone(what: str) -> None:
    """Raise UserError if this is one of several ranks: `what` works in one process alone."""
    if _initialised() and dist.get_world_size() > 1:
        raise UserError(f"{what}, so it works with one rank, not {dist.get_world_size()}")


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_ddp(model: nn.Module) -> bool:
    return isinstance(model, nn.parallel.DistributedDataParallel)


def _check_alike(
    optimizer: Blockwise, model: nn.Module, process_group: dist.ProcessGroup | None
) -> None:
    """Raise UserError that names the first difference between a rank and the first rank of the group."""
    mine = {
        "its schedule": optimizer.plan.schedule,
        "its groups": [group.parameters for group in optimizer.groups],
        "its position": optimizer.position,
    }
    tensors = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    mine |= {f'"{name}"': fingerprint for name, fingerprint in _fingerprints(tensors).items()}
    ranks: list[Any] = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(ranks, mine, group=process_group)
    for rank, theirs in enumerate(ranks):
        for key in {**ranks[0], **theirs}:
            if theirs.get(key) != ranks[0].get(key):
                raise UserError(
                    f"synchronise: rank {rank} differs from rank 0 in {key}; seed the ranks alike or "
                    "load the same checkpoint on each"
                )


def _fingerprints(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    """name -> (shape, dtype, exact sum of the bit patterns)."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [
        t.detach().contiguous().view(kinds[t.element_size()]).sum(dtype=torch.int64)
        for t in tensors.values()
    ]
    return {
        name: (tuple(t.shape), str(t.dtype), int(total))
        for (name, t), total in zip(tensors.items(), sums, strict=True)
    }
