"""Projected: the base class of the methods that keep the optimizer state of matrices in a low-rank space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from benchmark.errors import UserError, nearest
from benchmark.strategies.base import Options, TuningStrategy
from benchmark.strategies.shared.matrices import block_matrices

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.models.layers import Layers

Rate = Annotated[float, Field(ge=0, lt=1)]


class ProjectedOptions(Options):
    """rank: dimensions of the space. update_proj_gap: steps between two choices of it. scale: of the update
    of projected matrices. proj_type: the side of a matrix that is projected; std is the shorter one, full
    both. targets: names of the modules whose weights are projected; by default every linear layer of the
    blocks. betas and eps: Adam's.
    """

    rank: Annotated[int, Field(ge=1)]
    update_proj_gap: Annotated[int, Field(ge=1)] = 200
    scale: Annotated[float, Field(gt=0)]
    proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    targets: tuple[str, ...] | None = None
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6


class Projected(TuningStrategy):
    """All parameters train: the targets with a projected AdamW, all others with AdamW.

    Embeddings and the head are no targets by default, as in the authors' scripts.
    """

    package: ClassVar[str]
    """The package on PyPI that has the optimizer."""
    optimizers = ()
    refuses: ClassVar[Mapping[str, str]] = {"sharded": "gradients are projected whole"}

    def check(self) -> None:
        self.rule()

    def check_layers(self, layers: Layers) -> None:
        for target in self.options.targets or ():
            if layers.lack(target):
                raise UserError(
                    f"strategy {self.name}: targets: the model has no layer that is named {target}"
                    f"{nearest(target, layers.names)}"
                )

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Raises UserError for targets that the model does not have, and a rank that they do not have."""
        self.matrices(model)
        return model

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        settings, options = self.settings, self.options
        matrices = self.matrices(model)
        targets = {"params": matrices, "weight_decay": settings.weight_decay, **self.projection()}
        rule = self.rule()(
            [*self.decay_groups(model, without=matrices), targets],
            lr=settings.lr,
            betas=options.betas,
            eps=options.eps,
        )
        return rule, self.scheduler(rule, total_steps)

    def projection(self) -> dict[str, Any]:
        """The options of the projection, as the package has them in the group of projected matrices."""
        fields = ("rank", "update_proj_gap", "scale", "proj_type")
        return {field: getattr(self.options, field) for field in fields}

    def rule(self) -> Any:
        """The class of the optimizer. Raises UserError without the package."""
        try:
            return self.imported()
        except ImportError as error:
            raise UserError(
                f"strategy {self.name} needs the packages {self.package} and bitsandbytes, which it "
                f"imports: pip install 'hift-benchmark[peers]' ({error})"
            ) from None

    def imported(self) -> Any:
        """The class of the optimizer."""
        raise NotImplementedError

    def matrices(self, model: torch.nn.Module) -> list[torch.nn.Parameter]:
        """The weights of the targets."""
        weights = self._targets(model)
        for name, weight in weights.items():
            if weight.ndim != 2:
                raise UserError(
                    f"strategy {self.name}: targets: {name} has {weight.ndim} dimension, and only "
                    "matrices are projected: leave it out"
                )
            if self.options.rank > min(weight.shape):
                raise UserError(
                    f"strategy {self.name}: rank: {self.options.rank} is more than the "
                    f"{min(weight.shape)} of {name} ({' x '.join(map(str, weight.shape))})"
                )
        return list(weights.values())

    def _targets(self, model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
        wanted = self.options.targets
        if wanted is None:
            return block_matrices(model)
        paths = [name for name, module in model.named_modules() if hasattr(module, "weight")]
        own = {path.rpartition(".")[2] for path in paths}
        for target in wanted:
            if target not in own | set(paths):
                raise UserError(
                    f"strategy {self.name}: targets: no module of {type(model).__name__} with a "
                    f"weight is named {target}{nearest(target, own)}"
                )
        names = [path for path in paths if path in wanted or path.rpartition(".")[2] in wanted]
        return {f"{name}.weight": model.get_parameter(f"{name}.weight") for name in names}
