"""No training: the model is scored zero-shot, or in context with `demonstrations` before each prompt."""

from benchmark.strategies.base import TuningStrategy


class Untrained(TuningStrategy):
    """Nothing trains; a run is an evaluation only."""

    trains = False
