"""Canary: whether every tensor that the optimizer claims to train has moved by the end of the training.

Of a tensor that is sharded each rank watches its own part.
"""

from collections.abc import Iterable

import torch

from benchmark.engine.sharded import local

NEGLIGIBLE = 1e-6
"""A gradient whose norm is a smaller share of the largest is rounding. The key biases of BERT have such
gradients, because the softmax is blind to them."""
EPSILON = torch.finfo(torch.float32).eps
"""A step whose norm is a larger share of the parameter's moves at least one number of it in fp32."""


class Unmoved(RuntimeError):
    """A tensor has the value it had before training, although the optimizer claims to have trained it."""


class Canary:
    """Fingerprints of the parameters of `model`, and which of them the optimizer claims to train."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._before = {n: (p, _fingerprint(p)) for n, p in model.named_parameters()}
        self._claimed: set[int] = set()

    @torch.no_grad()
    def claim(
        self,
        parameters: Iterable[torch.nn.Parameter],
        norms: Iterable[torch.Tensor] = (),
        rate: float | None = None,
    ) -> None:
        """Count these as trained by the coming step, but for those whose gradient is zero or rounding.

        norms: of their gradients, one for each parameter, if the gradients are already freed. rate: if the
        step is that times the gradient, steps that may be lost in the rounding of the parameter do not count.
        """
        parameters = list(parameters)
        norm_of = dict(zip(map(id, parameters), norms, strict=False))
        new = [p for p in parameters if id(p) not in self._claimed]
        norm_of |= {id(p): _norm(p.grad) for p in new if p.grad is not None}
        measured = [p for p in new if id(p) in norm_of]
        self._claimed |= {id(p) for p in new if id(p) not in norm_of}
        if measured:
            found = torch.stack([norm_of[id(p)].cpu() for p in measured])
            finite = found[found.isfinite()]  # fp16 skips the steps whose gradients overflow
            real = found.isfinite() & (
                found > NEGLIGIBLE * finite.max() if len(finite) else found < 0
            )
            if rate is not None:
                real &= rate * found > EPSILON * torch.stack([_norm(p).cpu() for p in measured])
            self._claimed |= {
                id(p) for p, is_real in zip(measured, real.tolist(), strict=True) if is_real
            }

    @property
    def claimed(self) -> list[str]:
        """Names of the parameters that the optimizer has claimed to train so far."""
        return [name for name, (p, _) in self._before.items() if id(p) in self._claimed]

    @claimed.setter
    def claimed(self, names: Iterable[str]) -> None:
        self._claimed = {id(self._before[name][0]) for name in names}

    def excuse(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Claim no longer what the method has set back on purpose, as AdaLoRA its pruned singular values."""
        self._claimed -= set(map(id, parameters))

    def unmoved(self) -> list[str]:
        """Names of the claimed parameters that are what they were."""
        return [
            name
            for name, (parameter, before) in self._before.items()
            if id(parameter) in self._claimed and _fingerprint(parameter) == before
        ]

    def check(self) -> None:
        """Raises Unmoved for claimed fp32 parameters that have not moved.

        In 16 bits a small update is lost in rounding; `unmoved` still names such tensors.
        """
        names = [n for n in self.unmoved() if self._before[n][0].dtype == torch.float32]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise Unmoved(f"{names[0]}{more} had gradients in training and never moved")


def _fingerprint(parameter: torch.nn.Parameter) -> tuple[int, float]:
    """Two numbers of which one changes with any value: an xor alone would not see pairs of equal changes, and
    an fp32 norm not that of the last bit of a few numbers."""
    value = local(parameter).detach()
    if not value.numel():  # another rank has all of a single row
        return 0, 0.0
    norm = torch.linalg.vector_norm(value, dtype=torch.float64)
    return int(torch.hash_tensor(value).view(torch.int64)), float(norm)


def _norm(value: torch.Tensor) -> torch.Tensor:
    wide = torch.promote_types(value.dtype, torch.float32)
    return torch.linalg.vector_norm(local(value), dtype=wide).float()
