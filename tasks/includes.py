"""`include:` in a task YAML: the task takes over the keys of another task. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.names import nearest


@dataclass(frozen=True)
class Layer:
    """One YAML in a chain of includes: its file, and its content without the key `include`."""

    path: Path
    content: Mapping[str, Any]


def layers(path: Path, folder: Path, names: Sequence[str]) -> list[Layer]:
    """The YAML at `path`, the one in `folder` that it includes, and so on.

    `names`: all names that can be included. Raises ValueError that names the file for an include that is
    unknown or circular, and for a file that is not a YAML mapping; OSError for one that cannot be read.
    """
    chain: list[Layer] = []
    while True:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path}: {content!r} is no mapping of keys to values")
        included = content.pop("include", None)
        chain.append(Layer(path, content))
        if included is None:
            return chain
        if included not in names:
            raise ValueError(f'{path}: include: no task "{included}"{nearest(included, names)}')
        following = folder / f"{included}.yaml"
        if any(following == layer.path for layer in chain):
            raise ValueError(f'{path}: include: circular, as "{included}" is already in the chain')
        path = following


def merged(chain: Sequence[Layer]) -> dict[str, Any]:
    """The merged content of the layers. Earlier layers override later ones; nested mappings are merged."""
    whole: dict[str, Any] = {}
    for layer in reversed(chain):
        whole = _over(layer.content, whole)
    return whole


def source(chain: Sequence[Layer], keys: Sequence[str | int]) -> Path:
    """The file from which `merged` takes the value of a nested key; the first file if none has the key."""
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
    """`lower` with the values of `upper` in place of its own, also inside nested mappings."""
    merged_content = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = _over(value, below)
        merged_content[key] = value
    return merged_content
