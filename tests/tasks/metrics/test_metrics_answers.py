"""Scores of answers, against other implementations, official ones where they can be had."""

import json
import math
import random
import re
from pathlib import Path

import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.text import squad as torchmetrics_squad

from tasks import metrics

WORDS = [
    *("the", "a", "An", "Eagles", "eagles,", "eagles.", "49ers", "7", "7.0", "1,200", "$5", "-3"),
    *("three-yard", "St.", "O'Brien", "é", "İstanbul", "naïve", "10%", "the-a", "(an)", "...", "—"),
    *("日本", "", " ", "\t"),
]


def texts(rng, longest=5):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(longest + 1)))


def near(rng, text):
    """The text itself, or with a word changed, or in capitals, or another one."""
    words = text.split(" ")
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    return rng.choice([text, " ".join(words), text.upper() + ".", texts(rng)])


@pytest.mark.parametrize("name", ["squad", "record"])
def test_squad_and_record_equal_torchmetrics(name):
    """But for answers of nothing but articles and punctuation, where SQuAD 2 departs from SQuAD 1.1."""
    rng = random.Random(0)
    score = metrics._load(name)._compute  # one by one: evaluate's own 3 ms are not tested
    for _ in range(150):
        answers = [[texts(rng) + " word" for _ in range(rng.randrange(1, 4))] for _ in range(10)]
        predictions = [near(rng, rng.choice(options)) for options in answers]
        expected = torchmetrics_squad(
            [{"prediction_text": p, "id": str(i)} for i, p in enumerate(predictions)],
            [
                {"answers": {"text": options, "answer_start": [0] * len(options)}, "id": str(i)}
                for i, options in enumerate(answers)
            ],
        )
        got = score(predictions, answers)
        assert got["exact_match"] == pytest.approx(expected["exact_match"].item() / 100, abs=1e-6)
        assert got["f1"] == pytest.approx(expected["f1"].item() / 100, abs=1e-6)
    assert metrics.compute(name, predictions, answers) == got


def test_squad_where_nothing_is_left():
    # as in the official 1.1 script: equal, but no token in common
    assert metrics.compute("squad", ["A"], [["the", "a"]]) == {"exact_match": 1.0, "f1": 0.0}
    assert metrics.compute("squad", ["A"], [["a", "b"]]) == {"exact_match": 1.0, "f1": 0.0}
    assert metrics.compute("squad", [""], [["b"]]) == {"exact_match": 0.0, "f1": 0.0}


def test_squad_without_an_answer():
    assert metrics.compute("squad", ["", "the."], [[], []]) == {"exact_match": 1.0, "f1": 1.0}
    assert metrics.compute("squad", ["Paris"], [[]]) == {"exact_match": 0.0, "f1": 0.0}
    with pytest.raises(ValueError, match="record: example 1 has no right entity"):
        metrics.compute("record", ["Paris", "Rome"], [["Paris"], []])


def test_drop_equals_the_official_script():
    golden = json.loads((Path(__file__).parent / "golden/drop.json").read_text(encoding="utf-8"))
    score = metrics._load("drop")._compute  # one by one; evaluate's own 3 ms are not what is tested
    for case in golden["cases"]:
        got = score([case["prediction"]], [case["references"]])
        assert got["exact_match"] == case["exact_match"], case
        assert got["f1"] == pytest.approx(case["f1"], abs=1e-12), case
    together = metrics.compute(
        "drop",
        [case["prediction"] for case in golden["cases"]],
        [case["references"] for case in golden["cases"]],
    )
    for key, mean in together.items():
        assert mean == pytest.approx(
            sum(case[key] for case in golden["cases"]) / len(golden["cases"])
        )


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        (["7.0"], ["7"], 1.0, 1.0),  # numbers compare as numbers
        (["1,200"], ["1200"], 1.0, 1.0),
        (["8 yards"], ["7 yards"], 0.0, 0.0),  # a wrong number is worth nothing
        (["July 4, 1776"], ["4 July 1776"], 0.0, 1.0),  # a date's words in another order
        (["Bears", "the Eagles"], ["Eagles", "Bears"], 1.0, 1.0),
        (["Eagles"], ["Eagles", "Bears"], 0.0, 0.5),
        ([], ["Eagles"], 0.0, 0.0),
    ],
)
def test_drop_by_hand(prediction, answer, exact, f1):
    got = metrics.compute("drop", [prediction], [[answer]])
    assert got == {"exact_match": exact, "f1": f1}


def test_multirc_equals_scikit_learn_and_a_count_by_question():
    rng = random.Random(0)
    score = metrics._load("multirc")._compute  # one by one: evaluate's own 3 ms are not tested
    for _ in range(100):
        rows = [
            (f"q{rng.randrange(8)}", rng.randrange(2), rng.randrange(2))
            for _ in range(rng.randrange(1, 30))
        ]
        predictions = [prediction for _, prediction, _ in rows]
        labels = [label for _, _, label in rows]
        references = [{"question": question, "label": label} for question, _, label in rows]
        wrong = {question for question, prediction, label in rows if prediction != label}
        asked = {question for question, _, _ in rows}
        assert score(predictions, references) == {
            "f1_a": pytest.approx(sklearn.metrics.f1_score(labels, predictions, zero_division=0)),
            "exact_match": pytest.approx(1 - len(wrong) / len(asked)),
        }
    assert metrics.compute("multirc", predictions, references) == score(predictions, references)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", 18),
        ("5 * 4 = 20, minus 2 is 18.\n#### 18", 18),
        ("so #### 18\n\nQuestion: 7 and 8\n#### 99", 18),
        ("####18 dollars", 18),
        ("#### $1,234.50", 1234.5),
        ("#### 1234.5", 1234.5),
        ("#### -3", -3),
        ("#### \u22123", -3),
        ("#### 0.5", 0.5),
        ("#### .5", 0.5),
        ("#### it is -$7", -7),
        ("#### 12.", 12),
        ("#### 18.00", 18),
        ("The answer is 1,000,000 apples.", 1000000),
        ("He has 5-3=2 left", 2),
        ("from 7-5", 5),
        ("(4)-1", 1),
        ("It costs $-5", -5),
        ("2, 3 and 4", 4),
        ("25%", 25),
        ("no number", None),
        ("", None),
    ],
)
def test_gsm8k_final_number(text, number):
    for guess in {-3, 0.5, 2, 4, 5, 18, 25, 99, 12, 1000000, 1234.5, number} - {None}:
        got = metrics.compute("gsm8k", [text], [f"#### {guess}"])
        assert got["accuracy_flexible"] == float(guess == number), guess


def official(text):
    """openai/grade-school-math's `extract_answer`, its pattern `#### (\\-?[0-9\\.\\,]+)` read out by hand."""
    for start in range(len(text)):
        if text.startswith("#### ", start):
            first = start + 5
            digits = end = first + text.startswith("-", first)
            while end < len(text) and text[end] in "0123456789.,":
                end += 1
            if end > digits:
                return text[first:end].replace(",", "")
    return "[invalid]"


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("5 * 4 = 20\n#### 18", "18", True),
        ("#### 1,000", "1000", True),
        ("#### 1000", "1,000", True),
        ("#### 1,000.", "1000", False),  # the period belongs to the string
        ("####5", "5", False),
        ("####  5", "5", False),
        ("#### $5", "5", False),
        ("#### 5 dollars", "5", True),
        ("#### -3", "-3", True),
        ("#### \u22123", "-3", False),  # a minus sign that is no hyphen
        ("#### 3", "-3", False),
        ("#### --3", "-3", False),
        ("#### 5.0", "5", False),
        ("#### 05", "5", False),
        ("#### x\n#### 5", "5", True),  # the first mark that a number follows
        ("#### 4\n#### 5", "5", False),
        ("##### 5", "5", True),
        ("#### \u0665", "5", False),  # another alphabet's digit
        ("The answer is 5", "5", False),
        ("", "5", False),
    ],
)
def test_gsm8k_accuracy_is_the_official_script_s(text, answer, right):
    assert (official(text) == official(f"#### {answer}")) is right, "the rule written out"
    got = metrics.compute("gsm8k", [text], [f"so\n#### {answer}"])
    assert got["accuracy"] == float(right)


def test_gsm8k_accuracy_equals_the_official_rule_on_random_texts():
    rng = random.Random(0)
    pieces = ["#### ", "####", *"# -$0.,\n", "so ", "5", "18"]
    compute = metrics._load("gsm8k")._compute  # one by one: evaluate's own 3 ms are not tested
    right = 0
    for _ in range(5000):
        text = "#### ".join("".join(rng.choices(pieces, k=rng.randrange(4))) for _ in range(2))
        reference = f"so\n#### {rng.choice(['5', '18', '-5', '1,800'])}"
        expected = float(official(text) == official(reference))
        assert compute([text], [reference])["accuracy"] == expected, (text, reference)
        right += expected
    assert right > 100, "some texts are right"


def test_gsm8k_equals_other_people_s_patterns_on_plain_numbers():
    """The patterns that lm-evaluation-harness scores GSM8K by, strict and flexible."""
    rng = random.Random(0)
    strict_pattern = re.compile(r"#### (\-?[0-9\.\,]+)")
    flexible_pattern = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")

    def plain(text):
        return text.replace(",", "").replace("$", "").removesuffix(".")

    rows = []
    for _ in range(2000):
        said, gold = (
            rng.choice([f"{n}", f"{n:,}", f"-{n}"])
            for n in rng.choices((18, 5, 1200, 1234567), k=2)
        )
        form = rng.choice(["It is {}.\n#### {}", "It is {}, so {} dollars", "{} + 1 = ${}"])
        rows.append((form.format(rng.randrange(9), said), f"reason\n#### {gold}"))
    strict = flexible = 0
    for text, reference in rows:
        gold = plain(strict_pattern.search(reference)[1])
        found = strict_pattern.search(text)
        strict += bool(found) and plain(found[1]) == gold
        flexible += plain("".join(flexible_pattern.findall(text)[-1])) == gold
    got = metrics.compute("gsm8k", *map(list, zip(*rows, strict=True)))
    assert got == {"accuracy": strict / len(rows), "accuracy_flexible": flexible / len(rows)}
    assert 0 < strict < flexible < len(rows)


@pytest.mark.parametrize("reference", ["none", "5", "####5", "#### ."])
def test_gsm8k_with_a_reference_without_a_marked_number(reference):
    with pytest.raises(ValueError, match='the reference of example 1 has no "#### number"'):
        metrics.compute("gsm8k", ["1", "2"], ["#### 1", reference])


def test_perplexity_equals_cross_entropy_over_all_tokens():
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(n, 50, generator=generator, dtype=torch.double) for n in (1, 7, 30)]
    targets = [torch.randint(0, 50, (len(rows),), generator=generator) for rows in logits]
    losses = [
        torch.nn.functional.cross_entropy(*pair, reduction="sum").item()
        for pair in zip(logits, targets, strict=True)
    ]
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(targets)).exp()
    got = metrics.compute("perplexity", losses, [len(rows) for rows in targets])
    assert got["perplexity"] == pytest.approx(expected.item(), rel=1e-12)
    with pytest.raises(ValueError, match="there are 0 tokens"):
        metrics.compute("perplexity", [0.0], [0])
    with pytest.raises(ValueError, match="perplexity is inf"):
        metrics.compute("perplexity", [math.inf], [1])
