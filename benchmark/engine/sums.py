"""Sums over ranks of the gradients of one backward pass, which run while the pass goes on.

Gradients are whole from the top of the model down. The sum of a bucket of neighbours begins as soon as its
gradients are whole and the sums of all buckets above it have begun. So all ranks begin the same sums in the
same order, whichever gradients a rank lacks.

A bucket of one gradient is summed in place. In one of several, such as the biases and norms of a block, they
are copied into one tensor and back, since each sum takes some time however small it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmark.errors import UserError

Bucket = Sequence[nn.Parameter]


class Sums:
    """The gradients of `parameters`, which are in the order of the model, averaged over `process_group`.

    most: the bytes of gradients that are copied together. nbytes: of what this rank has given to be summed.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        process_group: dist.ProcessGroup | None,
        most: int,
    ) -> None:
        self._parameters, self._process_group = parameters, process_group
        self._ranks = dist.get_world_size(process_group)
        self._buckets = _buckets(reversed(parameters), most)
        self._place = {id(p): i for i, bucket in enumerate(self._buckets) for p in bucket}
        self._missing = [set(map(id, bucket)) for bucket in self._buckets]
        self._running: list[tuple[Any, torch.Tensor, list[torch.Tensor]]] = []
        self.nbytes = 0

    def whole(self, parameter: torch.Tensor) -> None:
        """Take note that the parameter's gradient is whole. Raises UserError if its sum has begun already."""
        place = self._place.get(id(parameter))
        if place is None:
            return
        if place < len(self._running):
            raise UserError(
                "synchronise: a backward pass added to a gradient whose sum over ranks had begun, as "
                "reentrant checkpointing does if blocks share a weight; pass use_reentrant=False to it"
            )
        self._missing[place].discard(id(parameter))
        while len(self._running) < len(self._buckets) and not self._missing[len(self._running)]:
            self._begin()

    def finish(self) -> None:
        """Begin the other sums and wait for all. A gradient that this rank lacks counts as zero; one that all
        ranks lack stays away."""
        without = [p for p in self._parameters if p.grad is None]
        has = torch.tensor([p.grad is not None for p in self._parameters], dtype=torch.uint8)
        has = has.to(self._parameters[0].device)
        for parameter in without:  # another rank may have one, and a sum needs all ranks
            parameter.grad = torch.zeros_like(parameter)
        while len(self._running) < len(self._buckets):
            self._begin()
        work = dist.all_reduce(has, dist.ReduceOp.MAX, group=self._process_group, async_op=True)
        self.nbytes += has.nbytes
        self.wait()
        work.wait()
        if without:
            for parameter, used in zip(self._parameters, has.tolist(), strict=True):
                if not used:
                    parameter.grad = None

    def wait(self) -> None:
        """Wait until the sums that have begun are in the gradients."""
        for work, total, gradients in self._running:
            work.wait()
            if len(gradients) > 1:
                parts = total.split([gradient.numel() for gradient in gradients])
                pairs = zip(parts, gradients, strict=True)
                torch._foreach_copy_(gradients, [part.view_as(g) for part, g in pairs])

    def _begin(self) -> None:
        """Begin the sum of the next bucket."""
        bucket = self._buckets[len(self._running)]
        gradients = [p.grad for p in bucket if p.grad is not None]
        torch._foreach_div_(gradients, self._ranks)  # before the sum, which could overflow in fp16
        total = gradients[0]
        if len(gradients) > 1:
            total = torch.cat([gradient.reshape(-1) for gradient in gradients])
        work = dist.all_reduce(total, group=self._process_group, async_op=True)
        self.nbytes += total.nbytes
        self._running.append((work, total, gradients))


def _buckets(parameters: Iterable[nn.Parameter], most: int) -> list[Bucket]:
    """Neighbours of one dtype and device together, up to `most` bytes."""
    buckets: list[list[nn.Parameter]] = []
    for parameter in parameters:
        last = buckets[-1] if buckets else []
        alike = all((p.dtype, p.device) == (parameter.dtype, parameter.device) for p in last)
        if last and alike and sum(p.nbytes for p in last) + parameter.nbytes <= most:
            last.append(parameter)
        else:
            buckets.append([parameter])
    return list(buckets)
