"""Units of bytes, and amounts of memory parsed from text and formatted as text."""

import re

from benchmark.errors import UserError

MIB, GIB, EIB = 2**20, 2**30, 2**60

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


def parse_bytes(text: str) -> int:
    """Bytes of an amount such as "24GiB", "24GB" (10^9), "80G" (2^30) or "24000000000".

    Raises UserError for any other text, and for more than 1 EiB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        named = f"budget {text[:40]!r}"
        raise UserError(f"{named} is not an amount of memory, such as 24GiB, 24GB or 80G")
    size = float(match[1]) * _UNITS[match[2]]
    if size > EIB:
        raise UserError(f"budget {text[:40]!r} is more than 1 EiB, which no machine has")
    return int(size)


def readable(size: int) -> str:
    """`size` bytes as text, in GiB, or in MiB below one GiB: "12.34 GiB", "1.5 MiB", "0.00977 MiB"."""
    if size >= GIB:
        return f"{size / GIB:.2f} GiB"
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / MIB:.3g} MiB"
