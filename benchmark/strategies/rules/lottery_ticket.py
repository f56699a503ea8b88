"""Lottery-ticket sparse fine-tuning: train everything, select the entries that moved most, and train those
alone from where they began."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmark.engine.update import Update
from benchmark.strategies.rules.closure import run_closure

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


class LotteryTicket(torch.optim.Optimizer):
    """Two phases, each with a new wrapped optimizer (arXiv 2110.07560, section 3).

    The values of the selected entries are a vector for each tensor, which the wrapped optimizer trains, so
    its state and weight decay are of these entries alone. The gradients of all other entries become 0 before
    they are clipped. The weights of the beginning are kept in host memory.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        make: Make,
        *,
        sparse: Sequence[torch.nn.Parameter],
        share: float,
        full_steps: int,
    ) -> None:
        """groups: all that trains, as in torch. make: builds the wrapped optimizer. sparse: the tensors of
        which a `share` of the entries is selected, after `full_steps`; all others train whole in both
        phases."""
        self._groups, self._make = [dict(group) for group in groups], make
        self._share, self._left = share, full_steps
        self._sparse = list(sparse)
        self._parameters = [p for group in self._groups for p in group["params"]]
        self._start = {p: p.detach().to("cpu", copy=True) for p in self._parameters}
        self._entries: dict[torch.Tensor, torch.Tensor] | None = None  # indices, once selected
        self._values: dict[torch.Tensor, torch.Tensor] = {}
        self.wrapped = make(self._groups)
        # the public groups have the model's tensors, whose gradients a loop clips and unscales
        super().__init__(self._groups, self.wrapped.defaults)
        self.state = self.wrapped.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = run_closure(closure)
        for mine, wrapped in zip(self.param_groups, self.wrapped.param_groups, strict=True):
            wrapped.update({key: value for key, value in mine.items() if key != "params"})
        if self._entries is None:
            self.wrapped.step()
            self._left -= 1
            if self._left == 0:
                self._select()
            return result
        for parameter, values in self._values.items():
            if parameter.grad is not None:
                values.grad = parameter.grad.view(-1)[self._entries[parameter]]
        self.wrapped.step()
        for parameter, values in self._values.items():
            parameter.view(-1)[self._entries[parameter]] = values
            values.grad = None
        return result

    def _select(self) -> None:
        """Select the entries that moved most, go back to the weights of the beginning, and train those."""
        moved = [(p.detach().cpu() - self._start[p]).abs().flatten().float() for p in self._sparse]
        count = max(1, int(self._share * sum(map(len, moved))))
        chosen = torch.cat(moved).topk(count).indices.sort().values
        self._entries, offset = {}, 0
        for parameter, each in zip(self._sparse, moved, strict=True):
            inside = chosen[(chosen >= offset) & (chosen < offset + len(each))] - offset
            self._entries[parameter] = inside.to(parameter.device)
            offset += len(each)
        for parameter in self._parameters:
            parameter.copy_(self._start[parameter])
            parameter.grad = None
        for parameter in self._sparse:
            entries = self._entries[parameter]
            parameter.requires_grad_(len(entries) > 0)
            if len(entries):
                self._values[parameter] = parameter.view(-1)[entries].clone()
                parameter.register_post_accumulate_grad_hook(self._mask)
        for group in self.param_groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        self.wrapped = self._make(
            [
                {**group, "params": [self._values.get(p, p) for p in group["params"]]}
                for group in self.param_groups
            ]
        )
        self.state = self.wrapped.state

    @torch.no_grad()
    def _mask(self, parameter: torch.Tensor) -> None:
        """Set the gradient of all entries that are not selected to 0."""
        assert self._entries is not None and parameter.grad is not None
        flat, entries = parameter.grad.view(-1), self._entries[parameter]
        kept = flat[entries]
        flat.zero_()
        flat[entries] = kept

    def coming_update(self) -> Update:
        """Of the first phase no tensor, since its updates are undone; of the second, the selected entries."""
        having = [p for p in self._parameters if p.grad is not None]
        bytes_ = sum(p.grad.nbytes for p in having if p.grad is not None)
        if self._entries is None:
            return Update([], sum(p.numel() for p in having), bytes_)
        numel = sum(len(self._values[p]) if p in self._values else p.numel() for p in having)
        return Update(having, numel, bytes_)

    def difference(self) -> dict[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """parameter -> (indices of its selected entries, by how much each has moved), on the host.

        Such differences add up: those of a language and of a task compose to a model of both.
        """
        found = {}
        for parameter, entries in (self._entries or {}).items():
            moved = parameter.detach().cpu().view(-1) - self._start[parameter].view(-1)
            found[parameter] = (entries.cpu(), moved[entries.cpu()])
        return found

    def device_tensors(self) -> list[torch.Tensor]:
        """Optimizer state, and the values and indices of selected entries."""
        state = [v for each in self.state.values() for v in each.values()]
        tensors = [value for value in state if isinstance(value, torch.Tensor)]
        return [*tensors, *self._values.values(), *(self._entries or {}).values()]

    def state_bytes(self) -> dict[str, dict[str, int]]:
        """Bytes of `device_tensors`, and of the weights of the beginning in host memory."""
        device = sum(tensor.nbytes for tensor in self.device_tensors())
        host = sum(tensor.nbytes for tensor in self._start.values())
        return {
            "device": {"optimizer_state": device, "master": 0},
            "host": {"optimizer_state": host},
        }
