"""The folders in results/ and reports/ that the suite itself uses. No matrix may have one of these names."""

import enum

UNFINISHED = ".unfinished"
"""The suffix of a folder in _scratch/<matrix>/ with the state of a run that has no record yet. The rest of
its name is `RunSpec.stem`."""


class Folder(enum.StrEnum):
    """Folders beside those of the matrices. In results/: measured peaks (memory), timings (speed), simulated
    peaks, golden values (regression), and logs and unfinished runs (scratch). In reports/: the tables
    (paper) and what fits (fit)."""

    memory = "memory"
    speed = "speed"
    simulated = "simulated"
    regression = "regression"
    scratch = "_scratch"
    paper = "paper"
    fit = "fit"
