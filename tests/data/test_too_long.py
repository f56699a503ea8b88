"""Rows that max_length does not hold are left out, cut from the left or refused, and counted."""

import dataclasses
import io

import pytest
from factories import make_record, make_spec
from rich.console import Console
from twin_tables import tokenizer_of

import tasks.base
from benchmark.commands import progress
from benchmark.data import examples
from benchmark.errors import UserError
from benchmark.records import record
from benchmark.report import tables
from benchmark.run.settings import data_settings

LENGTH = 64
WHY = "why " * 300
SHORT = {"meaning_representation": "name[A], food[Thai]", "human_reference": "A has Thai food ."}
LONG_PROMPT = SHORT | {"meaning_representation": "name[B], food[Thai], " * 9 + "area[river]"}
LONGER_PROMPT = SHORT | {"meaning_representation": "name[C], food[Thai], " * 12 + "area[river]"}
LONG_ANSWER = SHORT | {"human_reference": "B has Thai food by the river . " * 20}


def columns(rows):
    """As columns; every row is another example."""
    numbered = [row | {"number": n} for n, row in enumerate(rows)]
    return {name: [row[name] for row in numbered] for name in numbered[0]}


@pytest.fixture
def e2e(mirror):
    """E2E with three long rows of 20 to train on, one of them by its answer, and two long of 8 to score."""
    train = [SHORT] * 20
    train[3], train[7], train[11] = LONG_PROMPT, LONG_ANSWER, LONGER_PROMPT
    held = [SHORT | {"meaning_representation": f"name[E{n}]"} for n in range(8)]
    held[2] = LONG_PROMPT
    held[5] = LONG_ANSWER | {"meaning_representation": LONGER_PROMPT["meaning_representation"]}
    dataset = {"dataset": "tuetschek/e2e_nlg", "config": "default"}
    return mirror(**dataset, train=columns(train), validation=columns(held))


def e2e_spec(**fields):
    usual = {"task": "generation/e2e_nlg", "model": "tiny-gpt2", "data": "mirror", "epochs": 1}
    return make_spec(**usual | {"max_length": LENGTH, "batch_size": 2, "lr": 1e-3} | fields)


def load(spec):
    adapter = tasks.base.adapter(tasks.base.load(spec.task))
    return examples.load(data_settings(spec), adapter, tokenizer_of(spec.model))


def ids_of(row, tokenizer):
    """Prompt, and answer with the end token, tokenised apart."""
    prompt = tokenizer(f"{row['meaning_representation']} ###")["input_ids"]
    answer = tokenizer(f" {row['human_reference'].strip()}")["input_ids"]
    return prompt, [*answer, tokenizer.eos_token_id]


def pairs_of(rows):
    """Prompt and answer of every encoded row."""
    both = zip(rows.encoded["input_ids"], rows.encoded["answer_lengths"], strict=True)
    return [(ids[:-n], ids[-n:]) for ids, n in both]


def test_long_training_rows_are_left_out_unless_the_spec_says_otherwise(e2e):
    tokenizer = tokenizer_of("tiny-gpt2")
    found = load(e2e_spec())
    assert (found.long.train_dropped, found.long.train_cut, found.long.eval_cut) == (3, 0, 2)
    short = ids_of(SHORT, tokenizer)
    assert pairs_of(found.train) == [short] * 17
    assert len(found.train.ids) == len(found.train.references) == 17
    assert found.truncated == 2


def test_a_training_prompt_is_cut_from_the_left_and_its_answer_stays(e2e):
    tokenizer = tokenizer_of("tiny-gpt2")
    found = load(e2e_spec(too_long="truncate"))
    # the row whose answer alone is too long has nothing to cut
    assert (found.long.train_dropped, found.long.train_cut, found.long.eval_cut) == (1, 2, 2)
    short = ids_of(SHORT, tokenizer)
    cut = [pair for pair in pairs_of(found.train) if pair != short]
    assert len(found.train.ids) == 19 and len(cut) == 2
    for prompt, answer in cut:
        assert answer == short[1]
        assert prompt in [
            ids_of(r, tokenizer)[0][-LENGTH // 2 :] for r in (LONG_PROMPT, LONGER_PROMPT)
        ]


def test_all_are_refused_in_one_line_with_the_max_length_that_holds_them(e2e):
    with pytest.raises(UserError) as raised:
        load(e2e_spec(too_long="error"))
    tokenizer = tokenizer_of("tiny-gpt2")
    most = sum(map(len, ids_of(LONG_ANSWER, tokenizer)))
    assert str(raised.value) == (
        f"{e2e}/tuetschek/e2e_nlg: generation/e2e_nlg: 3 of 20 rows of train and 2 of 8 rows of validation"
        f" do not fit in max_length {LENGTH}; the longest is row 7 of train: max_length {most} holds all"
    )
    assert not load(e2e_spec(too_long="error", max_length=most)).long
    with pytest.raises(UserError, match="1 of 20 rows of train do not fit"):
        load(e2e_spec(too_long="error", max_length=most - 1))


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
def test_a_row_to_be_scored_is_read_as_if_it_had_no_right_answer(e2e, too_long):
    """As LoRA's and MeZO's code: the last tokens of the prompt, with room for what is generated."""
    tokenizer = tokenizer_of("tiny-gpt2")
    found = load(e2e_spec(too_long=too_long)).evaluation
    assert len(found.ids) == len(found.references) == 8
    prompts = [prompt for prompt, _ in pairs_of(found)]
    for number, row in ((2, LONG_PROMPT), (5, LONGER_PROMPT)):
        assert prompts[number] == ids_of(row, tokenizer)[0][-LENGTH // 2 :]
    whole = [n for n in range(8) if n not in (2, 5)]
    for number in whole:
        text = {"meaning_representation": f"name[E{number}]", "human_reference": "A"}
        assert prompts[number] == ids_of(text, tokenizer)[0]
    assert all(len(ids) <= LENGTH for ids in found.encoded["input_ids"])


def test_held_out_rows_are_cut_and_never_left_out(mirror):
    asked = [f"name[T{n}], " + "food[Thai], " * (n % 2 * 12) + "area[river]" for n in range(20)]
    train = [SHORT | {"meaning_representation": text} for text in asked]
    dataset = {"dataset": "tuetschek/e2e_nlg", "config": "default"}
    mirror(**dataset, train=columns(train), validation=columns([SHORT]))
    found = load(e2e_spec(dev_examples=10))
    cut = sum(found.development.encoded["truncated"])
    assert len(found.development.ids) == 10 and 0 < cut < 10
    assert found.long.eval_cut == cut and found.long.train_dropped == 10 - cut
    assert len(found.train.ids) == cut


def test_one_setting_is_never_served_what_another_encoded(e2e):
    def seen(**fields):
        found = load(e2e_spec(**fields))
        return [pairs_of(part) for part in (found.train, found.evaluation)], found.long

    first = {name: seen(too_long=name) for name in ("drop", "truncate")}
    again = {name: seen(too_long=name) for name in ("truncate", "drop")}
    assert first == again and first["drop"] != first["truncate"]


RESPONSE = {"instruction": "a", "input": "", "output": "c"}


@pytest.fixture
def alpaca(mirror):
    """Alpaca with seven rows to train on after the 1,000 that are scored."""

    def alpaca(changes):
        rows = [RESPONSE | {"number": str(n)} | changes.get(n, {}) for n in range(1007)]
        where = {"dataset": "tatsu-lab/alpaca", "config": "default"}
        return mirror(**where, train={name: [row[name] for row in rows] for name in rows[0]})

    return alpaca


def test_what_trains_is_counted_told_and_decides_the_steps(alpaca, go, results, in_process):
    in_process()
    alpaca({1002: {"instruction": WHY}, 1004: {"output": WHY}, 1005: {"instruction": WHY}})
    _, watch = go(
        "defaults: {model: tiny-gpt2-512, data: mirror, lr: 1.0e-3, max_length: 128, seeds: [0]}\n"
        "tasks: {generation/alpaca: {epochs: 2, batch_size: 2, eval_examples: 2}}\n"
        "strategies: {full: {}, cut: {strategy: full, too_long: truncate}}\n"
    )
    full, cut = (
        record.load(results / f"generation-alpaca_tiny-gpt2-512_{n}_s0.json")
        for n in ("full", "cut")
    )
    assert (full.inputs.examples_train, full.inputs.long_train_dropped) == (4, 3)
    assert (full.train.steps, full.train.examples) == (4, 8)
    inputs = cut.inputs
    assert (inputs.examples_train, inputs.long_train_dropped, inputs.long_train_cut) == (6, 1, 2)
    assert inputs.examples_truncated == 2
    assert (cut.train.steps, cut.train.examples) == (6, 12)
    assert watch.of("noted") == [
        ("longer than max_length 128: 3 training rows left out",),
        (
            "longer than max_length 128: 1 training rows left out, 2 training prompts cut from the left",
        ),
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_note_is_a_line_under_the_name_of_the_run(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)
    with progress.Progress(console=console) as shown:
        bars = progress.Bars(console, shown if terminal else None, 3)
        bars.started(make_spec(), 10)
        bars.noted("longer than max_length 128: [3] training rows left out", make_spec())
    assert ": longer than max_length 128: [3] training rows left out\n" in console.file.getvalue()


def test_the_report_names_them_where_there_are_some():
    def said(**counts):
        done = make_record()
        done = dataclasses.replace(done, inputs=dataclasses.replace(done.inputs, **counts))
        table = tables.provenance_table([done])
        return dict(table.rows)[f"data: {done.inputs.dataset}"]

    assert "too long" not in said() and "left" not in said()
    assert "; 3 too long and left out of training; " in said(long_train_dropped=3)
    assert "; 2 evaluation prompts cut from the left; " in said(long_eval_cut=2)


def test_nothing_left_to_train_on_is_refused(e2e):
    with pytest.raises(
        UserError, match="20 of 20 rows of train do not fit in max_length 8; the longest"
    ):
        load(e2e_spec(max_length=8))


KINDS = {
    "mezo/boolq": ("tiny-llama", {"passage": "a", "question": "b", "answer": True}, "question"),
    "qa/squad": (
        "tiny-bert",
        {"question": "who", "context": "a b", "answers": {"text": ["a"], "answer_start": [0]}},
        "question",
    ),
    "generation/gsm8k": ("tiny-opt", {"question": "a", "answer": "#### 1"}, "question"),
}
"""A task, its model, a usual row, and the column that is made too long. `masked` is in test_lm_bff.py."""


def small(mirror, name, usual, changes):
    """Eight rows to train on and four to score, `changes` by role and row."""
    dataset = tasks.base.load(name).dataset
    parts = {}
    for role, n in (("train", 8), ("eval", 4)):
        rows = [usual | {"number": str(at)} | changes.get((role, at), {}) for at in range(n)]
        parts[dataset.splits[role]] = {column: [row[column] for row in rows] for column in rows[0]}
    return mirror(dataset=dataset.id, config=dataset.config, **parts)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_task_leaves_out_and_cuts(mirror, name):
    model, usual, column = KINDS[name]
    why = {column: WHY}
    small(mirror, name, usual, {("train", 1): why, ("train", 6): why, ("eval", 3): why})
    spec = make_spec(task=name, model=model, data="mirror", max_length=128)
    left = load(spec)
    assert dataclasses.astuple(left.long)[1:] == (2, 0, 1) and len(left.train.ids) == 6
    cut = load(spec.model_copy(update={"too_long": "truncate"}))
    assert dataclasses.astuple(cut.long)[1:] == (0, 2, 1) and len(cut.train.ids) == 8
    special = tokenizer_of(model).all_special_ids
    for part in (cut.train, cut.evaluation):
        for inputs, is_cut in zip(
            part.encoded["input_ids"], part.encoded["truncated"], strict=True
        ):
            each = inputs if isinstance(inputs[0], list) else [inputs]
            assert all(len(ids) <= 128 for ids in each)
            assert not is_cut or all(len(ids) > 60 and ids[0] in special for ids in each)


def test_what_a_task_cuts_itself_is_not_too_long(mirror):
    model, usual, _ = KINDS["mezo/boolq"]
    small(mirror, "mezo/boolq", usual, {("train", 1): {"passage": WHY}})
    spec = make_spec(task="mezo/boolq", model=model, data="mirror", max_length=64, too_long="error")
    found = load(spec)
    assert not found.long and len(found.train.ids) == 8 and found.truncated == 1


def test_an_answer_that_leaves_no_room_is_refused_where_it_is_scored(mirror, alpaca):
    usual = {"premise": "a", "question": "cause", "choice1": "b", "choice2": "c", "label": 1}
    root = small(mirror, "superglue/copa", usual, {("eval", 2): {"choice2": WHY}})
    with pytest.raises(UserError) as raised:
        load(make_spec(task="superglue/copa", model="tiny-bert", data="mirror"))
    assert str(raised.value).startswith(
        f"{root}/aps/super_glue: superglue/copa: 1 of 4 rows of validation have an answer that leaves no "
        "room for a prompt in max_length 128; the longest is row 2 of validation: max_length "
    )
    alpaca({500: {"output": WHY}})
    spec = make_spec(task="generation/alpaca", model="tiny-gpt2-512", data="mirror", max_length=256)
    with pytest.raises(
        UserError, match=r"1 of 1,000 rows of train\[:1000\] have an answer that leaves"
    ):
        load(spec)
