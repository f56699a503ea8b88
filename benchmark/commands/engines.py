"""The options of `hift-bench run` for where runs are made."""

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.commands.options import key_values
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.matrices.engines.places import Engine
    from benchmark.matrices.room import Limits

JOBS = 64
"""Jobs of SLURM at once, queued ones included, unless the user says otherwise."""


class Name(enum.StrEnum):
    """The engines."""

    workers = "workers"
    slurm = "slurm"
    ray = "ray"


def chosen(
    name: Name,
    at_once: int | None,
    warm: bool,
    slurm: Sequence[str] | None,
    ray: Sequence[str] | None,
) -> "tuple[Engine, Limits | None]":
    """The engine `name` for so many runs `at_once`, and what decides which runs it can hold.

    slurm, ray: the NAME=VALUE texts of --slurm and --ray. Raises UserError for settings that the engine does
    not have, and where it does not work.
    """
    of_slurm = key_values("--slurm", "slurm_partition=gpu", slurm)
    of_ray = key_values("--ray", "num_gpus=1", ray)
    for option, settings, its in (("slurm", of_slurm, Name.slurm), ("ray", of_ray, Name.ray)):
        if settings and name != its:
            raise UserError(f"--{option}: these settings are for --engine {its}")
    if name == Name.slurm:
        from benchmark.matrices.engines import slurm as jobs

        return jobs.engine(at_once or JOBS, of_slurm), None
    from benchmark.matrices import forecast

    if name == Name.ray:
        from benchmark.matrices.engines import ray as tasks

        return tasks.engine(at_once, of_ray, forecast.placing)
    from benchmark.matrices.engines import workers
    from benchmark.matrices.room import Room

    several = (at_once or 1) > 1
    return workers.engine(at_once or 1, warm), Room(forecast.placing) if several else None
