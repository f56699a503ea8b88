"""E2E's five scores, against sacrebleu, nltk, pycocoevalcap and the official script's numbers."""

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import sacrebleu
from nltk.translate.nist_score import corpus_nist

from tasks import metrics
from tasks.metrics import _java, e2e
from tasks.metrics._ngrams import Segments, bleu_sums_and_nist, cider
from tasks.metrics._ngrams import bleu as bleu_of_sums

needs_java = pytest.mark.skipif(bool(_java.missing()), reason=str(_java.missing()))
ORACLE = Path(__file__).parents[3] / "../shared/oracles/e2e_metrics.json"

WORDS = [
    *("the", "Eagle", "is", "a", "pub", ",", "near", "Café", "Sicilia", ".", "It", "serves", "5"),
    *("-", "10", "£", "food", "in", "cheap", "family"),
]


def corpus(seed, most_references=5, shortest=1):
    rng = random.Random(seed)

    def text(words=WORDS):
        return [rng.choice(words) for _ in range(rng.randrange(shortest, 15))]

    predictions, references = [], []
    for _ in range(rng.randrange(2, 12)):
        few = rng.sample(WORDS, 8)
        references.append([text(few) for _ in range(rng.randrange(1, most_references + 1))])
        near = list(rng.choice(references[-1]))
        near[rng.randrange(len(near))] = rng.choice(WORDS)
        predictions.append(rng.choice([near, near[::-1], text(few), text()]))
    return predictions, references


def bleu(predictions, references):
    return bleu_of_sums(bleu_sums_and_nist(Segments(predictions, references))[0].sum(axis=0))


def nist(predictions, references):
    return bleu_sums_and_nist(Segments(predictions, references))[1]


@pytest.mark.parametrize("seed", range(40))
def test_bleu_equals_sacrebleu(seed):
    predictions, references = corpus(seed, shortest=4)
    most = max(map(len, references))
    # sacrebleu wants the references column by column
    columns = [
        [" ".join(texts[i]) if i < len(texts) else None for texts in references]
        for i in range(most)
    ]
    expected = sacrebleu.BLEU(tokenize="none", smooth_method="none").corpus_score(
        [" ".join(text) for text in predictions], columns
    )
    if expected.score:  # 0 there is the official script's floor of 1e-15 hits here
        assert bleu(predictions, references) == pytest.approx(expected.score / 100, abs=1e-9)
    else:
        assert bleu(predictions, references) < 1e-3


@pytest.mark.parametrize("seed", range(40))
def test_nist_equals_nltk_with_one_reference(seed):
    predictions, references = corpus(seed, most_references=1, shortest=5)
    expected = corpus_nist(references, predictions, n=5)
    assert nist(predictions, references) == pytest.approx(expected, abs=1e-9)


def nist_in_loops(predictions, references):
    """Doddington's definition as the official script extends it to several references."""

    def grams(text, n):
        return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))

    everywhere = Counter()
    for texts in references:
        for text in texts:
            everywhere[()] += len(text)
            for n in range(1, 6):
                everywhere += grams(text, n)
    total = 0.0
    for n in range(1, 6):
        informed = offered = 0.0
        for prediction, texts in zip(predictions, references, strict=True):
            allowed = Counter()
            for text in texts:
                allowed |= grams(text, n)
            for gram, count in (grams(prediction, n) & allowed).items():
                informed += count * math.log2(everywhere[gram[:-1]] / everywhere[gram])
            offered += len(prediction) - n + 1
        total += informed / offered if offered > 0 else 0.0
    length = sum(map(len, predictions))
    wanted = sum(sum(map(len, texts)) / len(texts) for texts in references)
    beta = math.log(0.5) / math.log(1.5) ** 2
    return total * math.exp(beta * math.log(min(length / wanted, 1)) ** 2)


@pytest.mark.parametrize("seed", range(40))
def test_nist_equals_loops_with_several_references(seed):
    predictions, references = corpus(seed)
    expected = nist_in_loops(predictions, references)
    assert nist(predictions, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_cider_and_rouge_equal_pycocoevalcap(seed):
    cider_module = pytest.importorskip("pycocoevalcap.cider.cider")
    rouge_module = pytest.importorskip("pycocoevalcap.rouge.rouge")
    predictions, references = corpus(seed)
    if seed % 4 == 0:
        predictions[0] = []
    gold = {i: [" ".join(text) for text in texts] for i, texts in enumerate(references)}
    ours = {i: [" ".join(text)] for i, text in enumerate(predictions)}
    expected, _ = cider_module.Cider().compute_score(gold, ours)
    assert cider(Segments(predictions, references)) == pytest.approx(expected, abs=1e-9)
    _, each = rouge_module.Rouge().compute_score(gold, ours)
    got = list(map(e2e._rouge_l, predictions, references))
    assert got == pytest.approx(list(each), abs=1e-12)


@needs_java
def test_tokens_stay_with_their_texts():
    texts = ["It's £20-25.", "", "a ||| b", "Zürich café (日本) 😀", "!", "x"]
    tokens = _java.tokenize(texts)
    assert tokens[:3] == [["it", "'s", "#", "20-25"], [], ["a", "|", "|", "|", "b"]]
    assert tokens[3][:2] == ["zürich", "café"]  # whatever the machine's encoding
    assert tokens[4:] == [[], ["x"]]


@pytest.mark.slow  # METEOR alone takes its time to start
@needs_java
def test_meteor_equals_pycocoevalcap_and_the_official_script_and_survives_odd_texts():
    """One METEOR of pycocoevalcap's has the official script's score of its rows, and ours of all texts."""
    meteor_module = pytest.importorskip("pycocoevalcap.meteor.meteor")
    official = json.loads(ORACLE.read_text(encoding="utf-8")) if ORACLE.is_file() else {"rows": []}
    words, others = corpus(1)
    odd = ["", "a ||| b", "line\nbreak\u2028s\r!", "😀", "plain words"]
    predictions, references = map(list, _sides(official))
    first = len(predictions)
    predictions += [*map(" ".join, words), *odd]
    references += [[" ".join(text) for text in texts] for texts in others]
    references += [[text, "other words"] for text in odd]
    assert metrics.unavailable("e2e") == {}
    scores = metrics.compute("e2e", predictions, references)
    assert set(scores) == {"BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"}

    lines = [*predictions, *(text for texts in references for text in texts)]
    tokens = iter(_java.tokenize([" ".join(line.split()) for line in lines]))
    ours = {i: [" ".join(next(tokens))] for i, _ in enumerate(predictions)}
    gold = {i: [" ".join(next(tokens)) for _ in texts] for i, texts in enumerate(references)}
    theirs = meteor_module.Meteor()
    expected, _ = theirs.compute_score(gold, ours)
    assert scores["METEOR"] == pytest.approx(expected, abs=1e-12)
    if first:
        found, _ = theirs.compute_score(*({i: d[i] for i in range(first)} for d in (gold, ours)))
        assert round(found, 4) == official["scores"]["METEOR"]


@pytest.fixture(scope="module")
def oracle():
    if not ORACLE.is_file():
        pytest.skip("no file of the official script's scores here")
    return json.loads(ORACLE.read_text(encoding="utf-8"))


def _sides(oracle):
    rows = oracle["rows"]
    return [row["prediction"] for row in rows], [row["references"] for row in rows]


def test_without_java_what_is_missing_is_said_by_name(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert set(metrics.unavailable("e2e")) == {"METEOR", "ROUGE_L", "CIDEr"}
    with pytest.warns(UserWarning, match="without METEOR, ROUGE_L, CIDEr: .*(Java|pycocoevalcap)"):
        got = metrics.compute("e2e", ["a b c d e", "f g"], [["a b c d e"], ["h", "f g"]])
    assert set(got) == {"BLEU", "NIST"}


def test_bleu_and_nist_equal_the_official_script(oracle):
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning):
        patch.setenv("PATH", "")  # the two that need no Java, without waiting for it
        got = metrics.compute("e2e", *_sides(oracle))
    for key, value in got.items():
        assert round(value, 4) == oracle["scores"][key]


@needs_java
def test_all_but_meteor_equal_the_official_script(oracle, monkeypatch):
    monkeypatch.setattr(e2e, "meteor", lambda *_: None)  # which takes its time: the slow test
    got = e2e.E2E()._compute(*_sides(oracle))
    assert got.keys() == oracle["scores"].keys()
    for key in got.keys() - {"METEOR"}:
        assert round(got[key], 4) == oracle["scores"][key], key


def test_an_example_without_reference_is_named():
    with pytest.raises(ValueError, match="e2e: example 1 has no reference"):
        metrics.compute("e2e", ["a", "b"], [["a"], []])
