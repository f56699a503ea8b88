"""The model as it is: zero-shot, or in-context with the run's `demonstrations` before each prompt."""

from benchmark.strategies.base import TuningStrategy


class Untrained(TuningStrategy):
    """Nothing trains: a run is its evaluation."""

    trains = False
