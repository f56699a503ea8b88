"""Entities against seqeval's scores, and against regular expressions over random tags."""

import json
import random
import re
from pathlib import Path

import pytest

from tasks import metrics

TYPES = ["PER", "ORG", "LOC"]
TAGS = ["O"] + [f"{mark}-{kind}" for kind in TYPES for mark in "BI"]


@pytest.mark.parametrize("case", range(40))
def test_scores_equal_seqeval_s(case):
    """seqeval 1.2.2 (an sdist of 2020, so no dependency), in its default mode, with zero_division=0."""
    golden = json.loads((Path(__file__).parent / "golden" / "entity_f1.json").read_text())[case]
    predictions, references = (
        [text.split() for text in golden[side]] for side in ("predictions", "references")
    )
    assert metrics.compute("entity_f1", predictions, references) == pytest.approx(golden["scores"])


def chunks(sentences):
    found = set()
    for number, tags in enumerate(sentences):
        for kind in TYPES:
            marks = "".join(tag[0] if tag.endswith(kind) else "O" for tag in tags)
            found |= {(number, kind, *m.span()) for m in re.finditer("[BI]I*", marks)}
    return found


def test_scores_equal_those_of_regular_expressions():
    rng = random.Random(0)
    for _ in range(100):
        references = [rng.choices(TAGS, k=rng.randrange(1, 12)) for _ in range(20)]
        keep = rng.choice([0, 0.5, 0.9, 1])
        predictions = [
            [tag if rng.random() < keep else rng.choice(TAGS) for tag in tags]
            for tags in references
        ]
        found, right = chunks(predictions), chunks(references)
        scores = metrics.compute("entity_f1", predictions, references)
        assert scores["precision"] == pytest.approx(len(found & right) / len(found))
        assert scores["recall"] == pytest.approx(len(found & right) / len(right))
        assert scores["f1"] == pytest.approx(2 * len(found & right) / (len(found) + len(right)))


def test_without_entities_nothing_is_right():
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert metrics.compute("entity_f1", [["O"]], [["O"]]) == nothing
    assert metrics.compute("entity_f1", [["B-PER"]], [["O"]]) == nothing
    assert metrics.compute("entity_f1", [["O"]], [["B-PER"]]) == nothing


def test_a_tag_of_another_scheme_is_refused():
    with pytest.raises(ValueError, match="entity_f1: tag 'E-PER' is not B-, I- or O"):
        metrics.compute("entity_f1", [["E-PER"]], [["O"]])
