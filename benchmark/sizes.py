"""Units of bytes, and amounts of memory as people write and read them."""

import re

from benchmark.errors import UserError

MIB, GIB = 2**20, 2**30

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


def parse_bytes(text: str) -> int:
    """ "24GiB", "24GB" (10^9), "80G" (2^30) or plain bytes. Raises UserError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if found is None or found[2] not in _UNITS or float(found[1]) == 0:
        raise UserError(f"budget {text!r} is no amount of memory, such as 24GiB, 24GB or 80G")
    return int(float(found[1]) * _UNITS[found[2]])


def readable(size: int) -> str:
    """`size` bytes in GiB, or in MiB below one GiB with three digits: "12.34 GiB", "0.00977 MiB"."""
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.3g} MiB"
