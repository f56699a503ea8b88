"""Every task keeps the contract: its data, its card, and every family of models does it or is refused."""

import functools
import json
import math
import re

import pytest
import rendering
import torch
from factories import make_spec
from transformers.models.auto import modeling_auto as auto
from twin_rows import features

from benchmark.data import drawing, examples, splits
from benchmark.errors import Unsupported
from benchmark.matrices import listing
from benchmark.models import registry
from benchmark.run import recipe
from benchmark.twin import models as twins
from tasks import base

NAMES = rendering.NAMES
MODELS = {twin.family: name for name, twin in reversed(twins.TWINS.items())}
"""The first twin of each family of models."""
CLASSES = {
    "sequence_classification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "question_answering": auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    "token_classification": auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "masked_lm": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "causal_lm": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}


def can(model, head):
    """Whether transformers has a class of the model's family with this head; a masked LM is no causal one."""
    kind = twins.TWINS[model].model_type
    return kind in CLASSES[head] and not (head == "causal_lm" and kind in CLASSES["masked_lm"])


PAIRS = [(name, model) for name in NAMES for model in MODELS.values()]
FITTING = [(name, model) for name, model in PAIRS if can(model, rendering.adapter(name).head)]
REFUSED = [pair for pair in PAIRS if pair not in FITTING]


def first_of(pairs, kind):
    """Of pairs of a task and a model those in which the task, or the model with this kind of task, is new."""
    seen, found = set(), []
    for name, model in pairs:
        new = {name, (kind(name), model)} - seen
        if new:
            found.append((name, model))
            seen |= new
    return found


@functools.cache
def brief(name):
    """The task's adapter; what it generates is three tokens long."""
    task = base.load(name)
    if hasattr(task, "decoding"):
        decoding = task.decoding.model_copy(update={"max_new_tokens": 3})
        task = task.model_copy(update={"decoding": decoding})
    return base.adapter(task)


@functools.cache
def network(model, head, labels, problem):
    source = registry.source(model)
    arguments = {} if labels is None else {"num_labels": labels, "problem_type": problem}
    torch.manual_seed(0)
    return registry.load_model(
        source, head, rendering.tokenizer_of(model).pad_token_id, **arguments
    )


def examples_of(adapter, tokenizer, role):
    """The first two examples of the twin that each tiny model has positions for, as rows and features."""
    rows = rendering.twin_part(adapter.config.name, role)
    rows = rendering.take(rows, range(40))
    rows = adapter.arrange(rows, role == "train", tokenizer, twins.MAX_LENGTH) or rows
    found = []
    for number in range(40):
        row = rendering.take(rows, [number])
        try:
            found.append((row, *features(adapter, row, tokenizer, twins.MAX_LENGTH)))
        except base.TaskError as error:
            assert "raise max_length" in str(error)
        if len(found) == 2:
            break
    return found


def batch(adapter, tokenizer, role):
    """Those examples as a batch, and as rows."""
    found = examples_of(adapter, tokenizer, role)
    two = {name: [value for row, _ in found for value in row[name]] for name in found[0][0]}
    return adapter.collator(tokenizer)([feature for _, feature in found]), two


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("name", "model"), first_of(FITTING, kind=lambda name: base.load(name).adapter)
)
def test_a_family_that_can_do_the_task_learns_it_and_is_scored(name, model):
    adapter, tokenizer = brief(name), rendering.tokenizer_of(model)
    arguments = adapter.model_arguments()
    net = network(model, adapter.head, arguments.get("num_labels"), arguments.get("problem_type"))
    net.zero_grad()
    loss = adapter.loss(net.train(), batch(adapter, tokenizer, "train")[0])
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.get_input_embeddings().weight.grad.any(), "the loss reaches the bottom of the model"

    inputs, rows = batch(adapter, tokenizer, "eval")
    with torch.no_grad():
        predictions = adapter.predict(net.eval(), inputs, tokenizer)
    references = adapter.references(rows)
    assert len(predictions) == len(references) == 2
    for kept in (predictions, references):
        assert json.loads(json.dumps(kept)) == kept, "what is stored is what is scored"
    if adapter.config.metrics != ("e2e",):  # whose Java programs take seconds
        assert math.isfinite(adapter.score(predictions, references)[adapter.config.main_key])


LOSSES = {
    (task.adapter, getattr(task, "loss", None)): (name, model)
    for name, model in reversed(FITTING)
    for task in [base.load(name)]
}
"""A task of each kind of loss, and a model."""


@pytest.mark.parametrize(("name", "model"), LOSSES.values())
@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_its_parts_by_their_weights(name, model):
    adapter, tokenizer = brief(name), rendering.tokenizer_of(model)
    arguments = adapter.model_arguments()
    net = network(model, adapter.head, arguments.get("num_labels"), arguments.get("problem_type"))
    collate, found = adapter.collator(tokenizer), examples_of(adapter, tokenizer, "train")
    whole, *parts = (
        collate([feature for _, feature in some]) for some in (found, found[:1], found[1:])
    )
    losses = [adapter.loss(net.eval(), part) * adapter.weight(part) for part in parts]
    assert adapter.weight(whole) == sum(map(adapter.weight, parts))
    assert float(sum(losses)) / adapter.weight(whole) == pytest.approx(
        float(adapter.loss(net, whole)), abs=1e-4
    )


@pytest.mark.parametrize("name", [name for name in NAMES if base.load(name).metrics == ("e2e",)])
@pytest.mark.filterwarnings("ignore:e2e. without METEOR")
def test_generated_text_is_scored(name, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without Java: BLEU is the main score, and METEOR takes seconds
    adapter = rendering.adapter(name)
    _, rows = batch(adapter, rendering.tokenizer_of("tiny-gpt2"), "eval")
    right = [texts[0] for texts in adapter.references(rows)]
    assert adapter.score(right, adapter.references(rows))[adapter.config.main_key] == 1


@pytest.mark.parametrize(
    ("name", "model"), first_of(REFUSED, kind=lambda name: rendering.adapter(name).head)
)
def test_a_family_that_cannot_is_refused_before_anything_is_loaded(
    name, model, tmp_path, monkeypatch
):
    def loaded(*arguments, **options):
        raise AssertionError("something was loaded")

    monkeypatch.setattr(registry, "load", loaded)
    monkeypatch.setattr(examples, "load", loaded)
    spec = make_spec(task=name, model=model, data="twin")
    with pytest.raises(Unsupported, match=f"model {model}: its family .* has no head"):
        recipe.run(spec, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("row", listing.rows("tasks"), ids=lambda row: row["task"])
def test_the_families_that_are_listed_are_those_that_can_do_the_task(row):
    first, _, rest = row["families"].partition(" but ")
    listed = set(MODELS) - {rest} if first == "all" else set(first.split(", "))
    head = base.adapter(base.load(row["task"])).head
    assert listed == {family for family, model in MODELS.items() if can(model, head)}


@pytest.mark.parametrize("name", twins.TWINS)
def test_a_twin_names_the_heads_of_its_family(name):
    assert set(twins.TWINS[name].heads) == {head for head in CLASSES if can(name, head)}


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_has_the_splits_and_columns_that_the_task_reads(name):
    adapter = rendering.adapter(name)
    tokenizer = rendering.tokenizer_of(rendering.reader(adapter))
    for role in ("train", "eval"):
        rows = rendering.twin_part(name, role)
        rows = adapter.arrange(rows, role == "train", tokenizer, 128) or rows
        n = len(next(iter(rows.values())))
        assert n >= 4 and len(adapter.references(rows)) == n
        some = rendering.take(rows, range(min(n, 40)))
        encoded = adapter.encode(some, tokenizer, rendering.UNCUT)
        assert {len(values) for values in encoded.values()} == {min(n, 40)}


@pytest.mark.parametrize("name", NAMES)
def test_no_row_is_both_trained_on_and_evaluated_on(name):
    task = base.load(name)
    origins, used = task.dataset.origins, {}
    for role, origin in origins.items():
        part = splits.part(rendering.twin(origin.id, origin.config), task, role, "twin")
        split = task.dataset.splits[role].partition("[")[0]
        used[role] = {(origin.id, origin.config, split, number) for number in part.numbers}
    assert not used["train"] & used["eval"]


@pytest.mark.parametrize("name", [name for name in NAMES if base.load(name).dataset.shots])
def test_the_shots_and_as_many_rows_to_select_on_can_be_drawn(name):
    dataset, label = base.load(name).dataset, base.load(name).label
    rows = rendering.twin_part(name, "train")
    classes = len(base.load(name).words)
    wanted = dataset.shots.count * classes
    spec = make_spec(task=name, data="twin", seed=13, dev_examples=wanted)
    part = splits.part(rendering.twin(dataset.id, dataset.config), base.load(name), "train", "twin")
    drawn = drawing.draw(spec, part.rows, part.rows, base.load(name), "twin")
    train, held_out = drawn.train, drawn.held_out
    assert len(train) == dataset.sizes["train"] <= wanted and not set(train) & set(held_out)
    assert {rows[label][i] for i in train} == set(range(classes))


@pytest.mark.parametrize("name", base.names())
def test_the_card_says_what_it_was_checked_against_and_revisions_are_pinned(name):
    task = base.load(name)
    assert task.version >= 1 and re.fullmatch(r"[a-z0-9_]+@\S+", task.main_version)
    for link in re.findall(r"https?://\S+", task.card.paper):
        assert link.startswith("https://")
    assert "https://" in task.card.paper
    assert len(task.card.reference.split()) >= 2 and len(task.card.checked.split()) >= 8
    for origin in task.dataset.origins.values():
        assert re.fullmatch(r"[0-9a-f]{40}|refs/convert/parquet", origin.revision)
