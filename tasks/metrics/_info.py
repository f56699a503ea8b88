"""The MetricInfo of a metric: its description and the types of predictions and references."""

import datasets
import evaluate


def info(description: str | None, predictions: object, references: object) -> evaluate.MetricInfo:
    """`predictions` and `references`: a feature of `datasets`, or the name of a type such as int64."""
    kinds = {"predictions": predictions, "references": references}
    features = {
        side: datasets.Value(kind) if isinstance(kind, str) else kind
        for side, kind in kinds.items()
    }
    return evaluate.MetricInfo(
        description=description, citation="", features=datasets.Features(features)
    )
