"""Reading twins that classify: does the text say so? Two pieces of news, facts changed or not told."""

import random
from collections.abc import Callable
from dataclasses import replace

from datasets import ClassLabel, Features, Value

from benchmark.twin.generators import Row, Tables, classed, indexed
from benchmark.twin.generators.news import (
    BASES,
    OPPOSITES,
    SYNONYMS,
    WAYS,
    Event,
    changed_event,
    draw_event,
    draw_story,
    question,
    wording,
)

ENTAILMENT = ClassLabel(names=["entailment", "not_entailment"])
YES = (0.377, 0.623)
"""The shares of BoolQ's answers, no and yes."""
RTE_SIZES = {"train": 2490, "validation": 277, "test": 300}  # official but for the test's 3000


def rte(rng: random.Random) -> Tables:
    """GLUE RTE: columns, label names, sizes and shares of the official set; the test labels are hidden."""
    features = Features(
        sentence1=Value("string"),
        sentence2=Value("string"),
        label=ENTAILMENT,
        idx=Value("int32"),
    )
    return Tables(features, _rte(rng, "sentence1", "sentence2"))


def super_rte(rng: random.Random) -> Tables:
    """SuperGLUE RTE: the rows of GLUE's kind under SuperGLUE's column names and order."""
    features = Features(
        premise=Value("string"),
        hypothesis=Value("string"),
        idx=Value("int32"),
        label=ENTAILMENT,
    )
    return Tables(features, _rte(rng, "premise", "hypothesis"))


def qnli(rng: random.Random) -> Tables:
    """GLUE QNLI: does the sentence hold the answer? Columns, label names and shares of the official
    set; the test labels are hidden."""
    features = Features(
        question=Value("string"),
        sentence=Value("string"),
        label=ENTAILMENT,
        idx=Value("int32"),
    )
    sizes = {"train": 2000, "validation": 300, "test": 300}
    rows = classed(rng, sizes, dict.fromkeys(sizes, (0.5, 0.5)), _asked)
    return Tables(features, indexed(rows, "test"))


def super_boolq(rng: random.Random) -> Tables:
    """SuperGLUE BoolQ: columns, label names and shares of the official set; the test labels are hidden.
    A passage begins with its article's title."""
    features = Features(
        question=Value("string"),
        passage=Value("string"),
        idx=Value("int32"),
        label=ClassLabel(names=["False", "True"]),
    )
    sizes = {"train": 2000, "validation": 300, "test": 300}
    rows = classed(rng, sizes, dict.fromkeys(sizes, YES), _titled)
    return Tables(features, indexed(rows, "test"))


def boolq(rng: random.Random) -> Tables:
    """BoolQ as its authors published it: passages without a title, answers true or false, no test rows."""
    features = Features(question=Value("string"), answer=Value("bool"), passage=Value("string"))
    sizes = {"train": 2000, "validation": 300}
    splits = classed(rng, sizes, dict.fromkeys(sizes, YES), _yes_or_no)
    for rows in splits.values():
        for row in rows:
            row["answer"] = bool(row.pop("label"))
    return Tables(features, splits)


def _rte(rng: random.Random, first: str, second: str) -> dict[str, list[Row]]:
    shares = {"train": (0.502, 0.498), "validation": (0.527, 0.473), "test": (0.5, 0.5)}
    rows = classed(rng, RTE_SIZES, shares, lambda rng, label: _claim(rng, label, first, second))
    return indexed(rows, "test")


def _claim(rng: random.Random, label: int, first: str, second: str) -> Row:
    event = draw_event(rng)
    claimed = changed_event(rng, event) if label else event
    while label and (claimed.day, claimed.millions) != (event.day, event.millions):
        claimed = changed_event(rng, event)  # the claim tells neither day nor price
    text = rng.choice(WAYS)(event, wording(rng, event))
    return {first: text, second: rng.choice(CLAIMS)(claimed, wording(rng, claimed))}


def _short(event: Event, verb: str) -> str:
    return f"{event.company} {verb} {event.thing} in {event.place}."


def _place_first(event: Event, verb: str) -> str:
    return f"In {event.place} {event.company} {verb} {event.thing}."


CLAIMS: tuple[Callable[[Event, str], str], ...] = (_short, _place_first)


def _asked(rng: random.Random, label: int) -> Row:
    """Without the answer: the sentence is about another company, or does not tell the fact asked for."""
    event, another = draw_story(rng)
    fact = rng.choice(("thing", "place", "day", "person", "millions"))
    asked = question(event, fact)
    if label and rng.random() < 0.4:
        return {"question": asked, "sentence": _without(rng, event, fact)}
    told = event
    if label:
        told = replace(another, verb=event.verb, thing=event.thing) if fact != "thing" else another
    elif rng.random() < 0.4:
        told = replace(event, company="it")  # named in the sentence before, one may think
    return {"question": asked, "sentence": rng.choice(WAYS)(told, wording(rng, told))}


def _without(rng: random.Random, event: Event, fact: str) -> str:
    verb = rng.choice((event.verb, SYNONYMS[event.verb]))
    thing = "something" if fact == "thing" else event.thing
    place = "" if fact == "place" else f" in {event.place}"
    price = "" if fact == "millions" else f" for ${event.millions} million"
    person = "it was" if fact == "person" else f"{event.role} {event.person}"
    day = "" if fact == "day" else f" on {event.day}"
    return f"{event.company} {verb} {thing}{place}{price}, {person} said{day}."


def _yes_or_no(rng: random.Random, label: int) -> Row:
    return _told(rng, label)[0]


def _titled(rng: random.Random, label: int) -> Row:
    row, company = _told(rng, label)
    return {**row, "passage": f"{company} -- {row['passage']}"}


def _told(rng: random.Random, label: int) -> tuple[Row, str]:
    """Two events; the question is about one of them, told so, otherwise, or denied. With the company of the
    other one."""
    event, another = draw_story(rng)
    another = replace(another, denied=rng.random() < 0.3)
    asked = event
    if not label:
        part = rng.choice(("company", "place", "verb", "denied"))
        if part == "denied":
            event = replace(event, denied=True)
        elif part == "verb":
            asked = replace(event, verb=OPPOSITES[event.verb])
        else:
            asked = replace(event, **{part: getattr(another, part)})
    told = [rng.choice(WAYS)(news, wording(rng, news)) for news in (event, another)]
    rng.shuffle(told)
    asking = f"did {asked.company} {BASES[asked.verb]} {asked.thing} in {asked.place}".lower()
    return {"question": asking, "passage": " ".join(told)}, another.company
