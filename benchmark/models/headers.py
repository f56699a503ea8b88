"""The headers of safetensors files: which tensors a checkpoint holds. No weights are read, and no torch."""

import json
import struct
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    """The entry of each tensor in the file, by its name.

    Raises ValueError unless the file is as long as its header says.
    """
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        size = path.stat().st_size
        if not 0 < length <= size - 8:
            raise ValueError(f"{path.name} is cut short or no safetensors file")
        header = json.loads(file.read(length))
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    ends = [entry["data_offsets"][1] for entry in entries.values()]
    if 8 + length + max(ends, default=0) != size:
        raise ValueError(f"{path.name} is cut short or longer than its header says")
    return entries
