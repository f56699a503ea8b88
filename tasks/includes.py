"""A task YAML may stand on another: `include:` names that task, whose keys it takes over. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.names import nearest


@dataclass(frozen=True)
class Layer:
    """One YAML of a chain: its file, and what it holds without `include`."""

    path: Path
    content: Mapping[str, Any]


def layers(folder: Path, name: str, names: Sequence[str]) -> list[Layer]:
    """The YAML of the task `name` below `folder`, the one that it includes, and so on.

    Raises ValueError naming the file and key for an include that is none of the `names`, or that comes back
    to a YAML of the chain, and for a file that holds no mapping.
    """
    found: list[Layer] = []
    path = folder / f"{name}.yaml"
    while True:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path}: {content!r} is no mapping of keys to values")
        included = content.pop("include", None)
        found.append(Layer(path, content))
        if included is None:
            return found
        if included not in names:
            raise ValueError(f'{path}: include: no task "{included}"{nearest(included, names)}')
        following = folder / f"{included}.yaml"
        if any(following == layer.path for layer in found):
            raise ValueError(f'{path}: include: no end, as "{included}" comes again')
        path = following


def merged(chain: Sequence[Layer]) -> dict[str, Any]:
    """What the layers say together: the first that holds a key wins, and nested mappings are merged."""
    whole: dict[str, Any] = {}
    for layer in reversed(chain):
        whole = _over(layer.content, whole)
    return whole


def source(chain: Sequence[Layer], keys: Sequence[str | int]) -> Path:
    """The file whose value of a nested key `merged` takes; that of the first layer where none holds it."""
    for layer in chain:
        value: Any = layer.content
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                break
            value = value[key]
        else:
            return layer.path
    return chain[0].path


def _over(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = _over(value, below)
        found[key] = value
    return found
