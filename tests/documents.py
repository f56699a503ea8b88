"""The documents that tests try: their code blocks, and the environment that their commands run in."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BIN = Path(sys.executable).parent


def blocks(document: str, language: str, heading: str | None = None) -> list[str]:
    """The code blocks of a document at the root, or of its one section with this third-level heading."""
    text = (ROOT / document).read_text(encoding="utf-8")
    if heading:
        _, _, section = text.partition(f"\n### {heading}")
        text = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def surroundings() -> dict[str, str]:
    """The variables of a reader who has activated the virtual environment and set nothing else."""
    others = ("MLFLOW_TRACKING_URI", "HIFT_DATA_ROOT", "MAKEFLAGS", "MAKELEVEL")
    kept = {key: value for key, value in os.environ.items() if key not in others}
    return kept | {"PATH": f"{_BIN}{os.pathsep}{kept['PATH']}", "HF_HUB_OFFLINE": "1"}
