"""Simulated peaks that are known already: a file each in the cache, under a key of all that they depend on.

A key covers the setting, the model's config, every line of this package and the version of every installed
package, so a peak is never read back after something has changed.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import benchmark
from benchmark.cache import cache_folder
from benchmark.files import write_text
from benchmark.memory.setting import Setting
from benchmark.models import registry, shapes

if TYPE_CHECKING:
    from benchmark.memory.simulate import Peak


def peak(setting: Setting, device: str, simulate: Callable[[], "Peak"]) -> "Peak":
    """The cached peak of the setting on the device; `simulate()` if there is none, which is then cached.

    A model from the Hub is not cached, because its config may change under the same name.
    """
    from benchmark.memory.simulate import Peak

    config = Path(setting.model) / "config.json"
    if setting.model in shapes.SHAPES or registry.is_twin(setting.model):
        shape = ""  # a line of this package
    elif config.is_file():
        shape = config.read_text(encoding="utf-8")
    else:
        return simulate()
    key = [dataclasses.asdict(setting), device, shape, _software()]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_folder("peaks") / f"{name}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Peak(**stored | {"units": tuple(stored["units"])})
    except (OSError, ValueError, TypeError, KeyError):  # not there, or written by something else
        found = simulate()
        write_text(path, json.dumps(dataclasses.asdict(found)))
        return found


@functools.cache
def _software() -> str:
    """A digest of this package's source and of the names and versions of all installed packages."""
    digest = hashlib.sha256()
    for path in sorted(Path(benchmark.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    installed = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    digest.update("\n".join(sorted(installed)).encode())
    return digest.hexdigest()
