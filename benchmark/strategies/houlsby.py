"""Houlsby adapters: a bottleneck network after attention and one after the feed-forward layer of a block."""

from benchmark.strategies.base import Card
from benchmark.strategies.shared.bottleneck import Bottleneck


class Houlsby(Bottleneck):
    """`size` as in the paper's experiments on GLUE. The norms, which the paper trains too, are frozen."""

    card = Card(
        paper="arXiv 1902.00751",
        reference="figure 2 of the paper; the package adapters 1.3 refuses transformers 5 (~=4.57.6)",
        checked="against a BERT written out with the adapters in its blocks",
    )
