"""GaLore's optimizer: AdamW of galore-torch."""

from __future__ import annotations

from typing import Any

from galore_torch import GaLoreAdamW
from galore_torch.galore_projector import GaLoreProjector

from benchmark.strategies.rules.projecting import Projecting


class GaLore(Projecting, GaLoreAdamW):
    """It does not warn that transformers has deprecated the AdamW that the package has a copy of."""

    projector = GaLoreProjector

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, no_deprecation_warning=True, **options)
