"""Inference twins: does the hypothesis follow? Dropped detail, general words, negation, opposites."""

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from datasets import ClassLabel, Features, Value

from benchmark.twin.generators import Row, Tables, classed, indexed, words
from benchmark.twin.generators.news import PEOPLE
from benchmark.twin.generators.scenes import (
    HOME,
    TRAITS,
    WORK,
    Scene,
    World,
    draw_scene,
    other,
    told,
    vaguer,
)

NAMES = ["entailment", "neutral", "contradiction"]
THIRDS = (1 / 3, 1 / 3, 1 / 3)
MOTIVES = ["to make money", "for a friend", "to please the family", "for the first time"]
Pair = tuple[str, str]


def snli(rng: random.Random) -> Tables:
    """SNLI (plain_text): columns and label names of the official set, without its unlabelled rows.

    Train is large enough for 512 rows of each class twice over (training and development).
    """
    features = _features(idx=False)
    sizes = {"train": 3300, "validation": 300, "test": 300}
    return Tables(
        features, _three_way(rng, sizes, {"train": HOME, "validation": HOME, "test": HOME})
    )


def mnli(rng: random.Random) -> Tables:
    """GLUE MNLI: the official columns, label names and splits; the test labels are hidden.

    The mismatched splits are about another world than train, as the official ones are of other
    genres. Train is large enough for 512 rows of each class twice over.
    """
    worlds = {
        "train": HOME,
        "validation_matched": HOME,
        "validation_mismatched": WORK,
        "test_matched": HOME,
        "test_mismatched": WORK,
    }
    sizes = {split: 3300 if split == "train" else 300 for split in worlds}
    rows = _three_way(rng, sizes, worlds)
    return Tables(_features(), indexed(rows, "test_matched", "test_mismatched"))


def ax(rng: random.Random) -> Tables:
    """GLUE AX, the diagnostic set: only a test split, its labels hidden."""
    return Tables(_features(), indexed(_three_way(rng, {"test": 300}, {"test": WORK}), "test"))


def diagnostics(rng: random.Random) -> Tables:
    """GLUE's diagnostic set with its labels (pietrolesci/glue_diagnostics): the official columns and shares.

    As in `ax`, about another world than MNLI's training rows. What is marked in the official columns
    (logic, knowledge, ...) is not marked here.
    """
    marks = ("lexical semantics", "predicate-argument structure", "logic", "knowledge", "domain")
    features = Features({**dict.fromkeys(marks, Value("string")), **_features(idx=False)})
    shares = {"test": (0.417, 0.35, 0.233)}
    splits = classed(rng, {"test": 600}, shares, functools.partial(_pair, WORK))
    rows = [{**dict.fromkeys(marks, ""), **row} for row in splits["test"]]
    return Tables(features, {"test": rows})


def cb(rng: random.Random) -> Tables:
    """SuperGLUE CB: the official columns, label names, sizes and shares; the test labels are hidden.

    Whether the embedded clause follows is decided by the verb above it and by negation.
    """
    features = Features(
        premise=Value("string"),
        hypothesis=Value("string"),
        idx=Value("int32"),
        label=ClassLabel(names=["entailment", "contradiction", "neutral"]),
    )
    sizes = {"train": 250, "validation": 56, "test": 250}
    shares = dict.fromkeys(sizes, (0.46, 0.476, 0.064))
    return Tables(features, indexed(classed(rng, sizes, shares, _embedded), "test"))


def _features(idx: bool = True) -> Features:
    columns = {
        "premise": Value("string"),
        "hypothesis": Value("string"),
        "label": ClassLabel(names=NAMES),
    }
    return Features(columns | ({"idx": Value("int32")} if idx else {}))


def _three_way(
    rng: random.Random, sizes: Mapping[str, int], worlds: Mapping[str, World]
) -> dict[str, list[Row]]:
    """Splits of one world are drawn together, so that none shares a pair with another."""
    splits: dict[str, list[Row]] = {}
    for world in (HOME, WORK):
        own = {split: size for split, size in sizes.items() if worlds[split] is world}
        splits |= classed(rng, own, dict.fromkeys(own, THIRDS), functools.partial(_pair, world))
    return {split: splits[split] for split in sizes}


def _pair(world: World, rng: random.Random, label: int) -> Row:
    move = rng.choice(MOVES[label])
    premise, hypothesis = move(rng, world, draw_scene(rng, world))
    return {"premise": premise, "hypothesis": hypothesis}


def _dropped(rng: random.Random, world: World, scene: Scene) -> Pair:
    return told(rng, scene), told(rng, vaguer(rng, scene))


def _general(rng: random.Random, world: World, scene: Scene) -> Pair:
    part, names = rng.choice((("agent", world.agents), ("action", world.actions)))
    wider = replace(scene, **{part: names[getattr(scene, part)]})
    return told(rng, scene), told(rng, vaguer(rng, wider))


def _not_the_opposite(rng: random.Random, world: World, scene: Scene) -> Pair:
    return told(rng, scene), f"The {scene.agent} is not {TRAITS[scene.trait]}."


def _not_another(rng: random.Random, world: World, scene: Scene) -> Pair:
    action = other(rng, world.actions, scene.action)
    return told(rng, scene), f"The {scene.agent} is {scene.action}, not {action}."


def _another(rng: random.Random, world: World, scene: Scene) -> Pair:
    """Another place, or an action that cannot go with this one."""
    if rng.random() < 0.5:
        false = replace(scene, place=other(rng, world.places, scene.place))
    else:
        false = replace(scene, action=other(rng, world.actions, scene.action))
    return told(rng, scene), told(rng, replace(false, trait=""))


def _denied(rng: random.Random, world: World, scene: Scene) -> Pair:
    said = rng.choice(
        (
            f"The {scene.agent} is not {scene.action}.",
            f"Nobody is {scene.action}.",
            f"The {scene.agent} is not {scene.trait}.",
        )
    )
    return told(rng, scene), said


def _the_opposite(rng: random.Random, world: World, scene: Scene) -> Pair:
    return told(rng, scene), f"The {scene.agent} is {TRAITS[scene.trait]}."


def _swapped(rng: random.Random, world: World, scene: Scene) -> Pair:
    action = other(rng, world.actions, scene.action)
    return told(rng, scene), f"The {scene.agent} is {action}, not {scene.action}."


def _unsaid(rng: random.Random, world: World, scene: Scene) -> Pair:
    """What the premise leaves open is said, or denied, in the hypothesis."""
    if rng.random() < 0.5:
        return told(rng, replace(scene, trait="")), told(rng, scene)
    no = rng.choice(("", "not "))
    return told(rng, replace(scene, trait="")), f"The {scene.agent} is {no}{scene.trait}."


def _narrower(rng: random.Random, world: World, scene: Scene) -> Pair:
    part, names = rng.choice((("agent", world.agents), ("action", world.actions)))
    wider = replace(scene, **{part: names[getattr(scene, part)]})
    return told(rng, wider), told(rng, vaguer(rng, scene))


def _placed(rng: random.Random, world: World, scene: Scene) -> Pair:
    return told(rng, replace(scene, place="")), told(rng, scene)


def _motive(rng: random.Random, world: World, scene: Scene) -> Pair:
    return told(rng, scene), f"The {scene.agent} is {scene.action} {rng.choice(MOTIVES)}."


MOVES: Sequence[Sequence[Callable[[random.Random, World, Scene], Pair]]] = (
    (_dropped, _general, _not_the_opposite, _not_another),
    (_unsaid, _narrower, _placed, _motive),
    (_another, _denied, _the_opposite, _swapped),
)

FACTIVE = words("know see remember understand")
BELIEF = words("think believe say hope")


def _embedded(rng: random.Random, label: int) -> Row:
    """Two statements of two people; only the one that embeds the hypothesis counts."""
    clause, about = (_clause(rng) for _ in range(2))
    names = rng.sample(PEOPLE, 2)
    statements = [
        f"{names[0]} {_attitude(rng, label)} that {clause}.",
        f"{names[1]} {_attitude(rng, rng.randrange(3))} that {about}.",
    ]
    rng.shuffle(statements)
    return {"premise": " ".join(statements), "hypothesis": clause}


def _clause(rng: random.Random) -> str:
    scene = draw_scene(rng, HOME)
    return f"the {scene.agent} was {scene.action} {scene.place}"


def _attitude(rng: random.Random, label: int) -> str:
    """A factive verb carries its clause through negation; a belief denied speaks against it."""
    shapes = (
        (f"did not {rng.choice(FACTIVE)}", f"could {rng.choice(FACTIVE)}", "had no doubt"),
        (f"did not {rng.choice(BELIEF)}", f"had no reason to {rng.choice(BELIEF)}", "had doubt"),
        (f"did {rng.choice(BELIEF)}", f"would {rng.choice(BELIEF)} if asked"),
    )
    return rng.choice(shapes[label])
