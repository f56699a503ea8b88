"""Master weights: fp32 copies that the wrapped optimizer updates while the model computes in
bf16/fp16.

all: every parameter has a master, and those of idle parameters are in the idle store: in host memory for the
paper's Mixed^Hi, on the device for its "mixed".
active: masters are created from the low-precision weights when a group becomes active, and dropped afterwards
(BAdam). `lower` creates all masters before the model moves to its device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import nn

from benchmark import rows
from benchmark.engine.pinned import pinned_like
from benchmark.engine.sharded import is_sharded, local, of_part, shard_like
from benchmark.errors import UserError

MASTERS = ("none", "active", "all")


class Masters:
    """fp32 masters of the active group, by the name of their weights."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.active: dict[str, torch.Tensor] = {}

    def open(
        self,
        name: str,
        weight: torch.Tensor,
        saved: torch.Tensor | None,
        device: torch.device,
    ) -> torch.Tensor:
        """The master of weights that become active: the saved one, or a copy of them on `device`."""
        if saved is None:
            saved = weight.detach().to(device, torch.float32, copy=True)
        self.active[name] = saved
        return saved

    def close(self, name: str) -> torch.Tensor | None:
        """The master to store when its weights become idle; None if it is dropped."""
        master = self.active.pop(name)
        return master if self.kind == "all" else None

    def take_gradients(
        self, gradients: Iterable[tuple[str, torch.Tensor]], scale: torch.Tensor | None
    ) -> None:
        """Move each gradient to its master, in fp32 and divided by the loss scale.

        Who gives the low-precision gradient keeps it no longer than it is asked for, so both exist for only
        one tensor at a time.
        """
        inverse = None if scale is None else scale.double().reciprocal().float()
        for name, low in gradients:
            master = self.active[name]
            gradient = low.to(master.device, torch.float32)
            if inverse is not None:
                local(gradient).mul_(inverse)
            master.grad = gradient

    def publish(self, weight: Callable[[str], torch.Tensor]) -> None:
        """Copy the updated masters into the weights, rounded, and free the masters' gradients."""
        updated = [n for n, master in self.active.items() if master.grad is not None]
        if not updated:
            return
        with torch.no_grad():
            torch._foreach_copy_(
                [local(weight(n)) for n in updated], [local(self.active[n]) for n in updated]
            )
        for name in updated:
            self.active[name].grad = None


def lower(model: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Cast the model's fp32 weights to `dtype` in place; return the fp32 masters of those that train.

    Called on the host, it keeps fp32 weights off the device:

        master = lower(model, torch.bfloat16)
        optimizer = HiFT(model.to("cuda"), master=master)

    The masters are keyed by parameter name and hold the weights before rounding, in host memory; if the
    model is there, they are its former fp32 weights. Raises UserError for a dtype other than
    bfloat16 and float16, and for a model that is sharded already.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if any(map(is_sharded, parameters.values())):
        raise UserError("lower: the weights are shards already: lower the model before fully_shard")
    check_master("all", dtype, parameters)
    return make_masters(model, parameters, "all", dtype, host=True)


def make_masters(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    master: str | dict[str, torch.Tensor],
    dtype: torch.dtype | None,
    *,
    host: bool,
    names: Iterable[str] = (),
    device_of: Callable[[torch.Tensor], torch.device] = lambda parameter: parameter.device,
) -> dict[str, torch.Tensor]:
    """Cast the model's fp32 weights to `dtype` in place (None: they are in low precision already).
    Returns the initial masters, by name.

    master: "all" makes one for each of `parameters`; a dict is from `lower`. It is emptied one master at a
    time, so that the host never has two copies of all. host: put masters in host memory, pinned for CUDA;
    otherwise on the device of their parameter, which `device_of` says. names: of the weights that train, if
    these are rows of `parameters`.
    """
    parts: dict[str, list[str]] = {}
    for part in names or parameters:
        parts.setdefault(rows.whole(part), []).append(part)
    masters = {}
    for name, parameter in model.named_parameters():
        if name in parts and (isinstance(master, dict) or master == "all"):
            weight = master.pop(name) if isinstance(master, dict) else parameter.detach()
            if is_sharded(parameter):
                whole = not is_sharded(weight)
                weight = (shard_like(weight, parameter) if whole else weight).to(torch.float32)
            place = partial(_waiting, device=device_of(parameter), host=host)
            for part in parts[name]:
                masters[part] = of_part(place, rows.of(weight, part))
        if dtype is not None and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(dtype)
    return masters


def _waiting(weight: torch.Tensor, device: torch.device, host: bool) -> torch.Tensor:
    """`weight` in fp32, in the memory for idle masters of parameters on `device`."""
    if not host:
        return weight.to(device, torch.float32)
    if device.type == "cuda":
        return pinned_like(weight, torch.float32).copy_(weight)
    return weight.to(torch.float32)


def check_master(
    master: str | Mapping[str, torch.Tensor],
    dtype: torch.dtype | None,
    parameters: Mapping[str, nn.Parameter],
) -> None:
    """Raise UserError for an unknown kind, for masters of weights that are not low-precision, and for
    given masters that are not those of `parameters`."""
    kind = master if isinstance(master, str) else "all"
    if kind not in MASTERS:
        raise UserError(f'unknown master "{kind}" (valid: {", ".join(MASTERS)})')
    if kind == "none":
        if dtype is not None:
            raise UserError('low_dtype needs master weights: pass master="all" or "active"')
        return
    low = (torch.bfloat16, torch.float16)
    if dtype is not None and dtype not in low:
        raise UserError(f"low_dtype must be torch.bfloat16 or torch.float16: {dtype}")
    if dtype is None and any(p.dtype not in low for p in parameters.values()):
        raise UserError(
            f'master="{kind}" needs low-precision weights: pass low_dtype=torch.bfloat16'
        )
    if isinstance(master, str):
        return
    for name, parameter in parameters.items():
        if name not in master:
            raise UserError(f'master: no weight of "{name}" among what lower() returned')
        if master[name].shape != parameter.shape:
            raise UserError(
                f'master: "{name}" has shape {list(master[name].shape)}; the parameter has '
                f"{list(parameter.shape)}"
            )
