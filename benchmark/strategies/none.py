"""No training: the model is scored zero-shot, or in context with `demonstrations` before each prompt."""

from benchmark.strategies.base import Card, TuningStrategy


class Untrained(TuningStrategy):
    """Nothing trains; a run is an evaluation only."""

    card = Card(
        paper="arXiv 2005.14165",
        reference="in-context demonstrations as in MeZO's large_models/run.py",
        checked="predictions equal those of the model as loaded",
    )

    trains = False
