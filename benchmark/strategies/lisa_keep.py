"""LISA as its authors' implementation does it: no optimizer state is ever dropped (arXiv 2403.17919)."""

from benchmark.strategies.base import Card, TuningStrategy
from benchmark.strategies.lisa import Lisa


class LisaKeep(Lisa):
    """The state of every block that was drawn once stays on the device, so in the end that of all blocks."""

    card = Card(
        paper="arXiv 2403.17919",
        reference="LMFlow, pipeline/utils/lisa_trainer.py, and its issues 726, 729 and 768",
        checked="a written-out loop with one optimizer over all parameters; the state grows to FPFT's",
    )

    precisions = TuningStrategy.precisions
    master_precisions = ()
    idle = "keep"
