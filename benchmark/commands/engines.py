"""The options of `hift-bench run` for where runs are made."""

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.commands.options import key_values
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.matrices.engines.places import Engine

JOBS = 64
"""Jobs of a cluster at once, queued ones included, unless the user says otherwise."""


class Name(enum.StrEnum):
    """The engines."""

    workers = "workers"
    slurm = "slurm"


def chosen(name: Name, at_once: int | None, warm: bool, slurm: Sequence[str] | None) -> "Engine":
    """The engine `name` for so many runs `at_once`. slurm: the NAME=VALUE texts of --slurm.

    Raises UserError for settings that it does not have, and where it does not work.
    """
    settings = key_values("--slurm", "slurm_partition=gpu", slurm)
    if name == Name.slurm:
        from benchmark.matrices.engines import slurm as jobs

        return jobs.engine(at_once or JOBS, settings)
    if settings:
        raise UserError("--slurm: these settings are for --engine slurm")
    from benchmark.matrices.engines import workers

    return workers.engine(at_once or 1, warm)
