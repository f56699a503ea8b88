"""Class labels: their indices, and the arguments of a model with a head for them. Imports no torch."""

from collections.abc import Sequence
from typing import Any


def index(value: Any, labels: Sequence[str]) -> int:
    """The index in `labels` of a value of the data: one of the texts, or such an index.

    Where all labels are numbers, such as "1" to "5", a number is one of the texts. Raises ValueError for any
    other value.
    """
    if isinstance(value, int) and all(label.lstrip("-").isdecimal() for label in labels):
        value = str(int(value))
    if isinstance(value, str) and value in labels:
        return list(labels).index(value)
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no index of {', '.join(labels)}")
    if not 0 <= value < len(labels):
        raise ValueError(f"{value!r} is outside {', '.join(labels)}")
    return int(value)  # some sources have booleans


def arguments(labels: Sequence[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a classification head; label i of `labels` has index i."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
