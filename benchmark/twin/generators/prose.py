"""Prose twins for language modelling: articles whose subject and facts stay the same to their end."""

import random

from datasets import Features, Value

from benchmark.twin.generators import Row, Tables
from benchmark.twin.generators.news import SYNONYMS, THINGS, WAYS, Event, draw_event, wording
from benchmark.twin.generators.sentiment import ASPECTS, BAD, GOOD

SECTIONS = ("Early years", "News", "Film", "Later years")


def wikitext(rng: random.Random) -> Tables:
    """WikiText-2 (raw): one column of lines; headings between `=` signs, empty lines between blocks."""
    features = Features(text=Value("string"))
    sizes = {"train": 2000, "validation": 300, "test": 300}
    seen: set[str] = set()
    return Tables(features, {split: _lines(rng, size, seen) for split, size in sizes.items()})


def _lines(rng: random.Random, size: int, seen: set[str]) -> list[Row]:
    """Articles one after the other, cut at `size` lines; no paragraph stands anywhere twice."""
    lines: list[str] = []
    while len(lines) < size:
        subject = draw_event(rng)
        lines += ["", f" = {subject.company} = \n", ""]
        for section in rng.sample(SECTIONS, rng.randrange(1, 4)):
            paragraph = _paragraph(rng, subject)
            while paragraph in seen:
                paragraph = _paragraph(rng, subject)
            seen.add(paragraph)
            lines += [f" = = {section} = = \n", "", paragraph, ""]
    return [{"text": line} for line in lines[:size]]


def _paragraph(rng: random.Random, subject: Event) -> str:
    """Company, place and person are the article's; things and films change with the sentence."""
    sentences = []
    for _ in range(rng.randrange(2, 5)):
        verb = rng.choice(list(THINGS))
        thing = rng.choice(THINGS[verb])
        good = rng.random() < 0.5
        known, aspect = rng.choice(GOOD if good else BAD), rng.choice(ASPECTS)
        sentences.append(
            rng.choice(
                (
                    f"{subject.company} {SYNONYMS[verb]} {thing} in {subject.place} .",
                    f"{subject.person} was the {subject.role} of {subject.company} at the time .",
                    f"It {verb} {thing} , and {subject.person} went to {subject.place} .",
                    f"The {aspect} of the film about {subject.person} was {known} , but "
                    f"{subject.company} made {'some' if good else 'no'} money .",
                    rng.choice(WAYS)(subject, wording(rng, subject))[:-1] + " .",
                )
            )
        )
    return f" {' '.join(sentences)} \n"
