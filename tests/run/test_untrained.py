"""Strategy `none`: the model as it is, zero-shot and in-context, and what it is refused for."""

import json

import pytest
import torch
from factories import make_spec, make_strategy

import tasks.base
from benchmark.data import examples
from benchmark.errors import Unsupported, UserError
from benchmark.matrices import matrix
from benchmark.models import registry
from benchmark.records import consistency
from benchmark.records import record as records
from benchmark.records.spec import RunSpec
from benchmark.run import recipe
from benchmark.run.settings import data_settings

USUAL = {
    "task": "mezo/sst2",
    "model": "tiny-gpt2",
    "strategy": "none",
    "data": "twin",
    "eval_examples": 30,
    "max_length": 128,
    "lr": None,
    "epochs": None,
}
MATRIX = """\
name: made_up
defaults: {model: tiny-gpt2, data: twin, epochs: 2, batch_size: 8, eval_examples: 10, clip: 1.0}
tasks: [mezo/sst2, mezo/rte]
strategies:
  zero: {strategy: none}
  shown: {strategy: none, demonstrations: 4}
  full: {lr: 1.0e-3}
"""


def spec_of(**fields):
    return make_spec(**(USUAL | fields))


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "made_up.yaml").write_text(text)
        return matrix.load(tmp_path / "made_up.yaml")

    return load


@pytest.mark.parametrize("demonstrations", [0, 3])
def test_predictions_are_those_of_the_untouched_model(tmp_path, demonstrations):
    spec = spec_of(demonstrations=demonstrations, train_examples=16, seed=2)
    record = recipe.run(spec, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / record.predictions).read_text().splitlines()]

    adapter = tasks.base.adapter(tasks.base.load(spec.task))
    source = registry.source(spec.model)
    tokenizer = registry.load_tokenizer(source)
    training = spec_of(strategy="full", lr=1e-3, epochs=1, train_examples=16, seed=2)
    rows = examples.load(data_settings(training), adapter, tokenizer)
    assert [line["id"] for line in lines] == rows.evaluation.ids
    train = rows.train.encoded[:demonstrations]
    shown = [
        tokenizer.decode(pair[right])
        for pair, right in zip(train["input_ids"], train["labels"], strict=True)
    ]
    model = registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval()
    expected = []
    for pair in rows.evaluation.encoded["input_ids"]:
        texts = ["\n\n".join([*shown, tokenizer.decode(ids)]) for ids in pair]
        expected.append(likelier(model, [tokenizer(text)["input_ids"] for text in texts]))
    assert [line["prediction"] for line in lines] == expected
    assert len(set(expected)) == 2


@torch.inference_mode()
def likelier(model, whole):
    """Which sequence has the highest mean log-probability of the tokens after those that all begin with."""
    same = next(i for i, column in enumerate(zip(*whole, strict=False)) if len(set(column)) > 1)
    means = []
    for ids in whole:
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        answer = [float(logits[at - 1, ids[at]]) for at in range(same, len(ids))]
        means.append(sum(answer) / len(answer))
    return means.index(max(means))


def test_the_record_says_that_nothing_trained_and_what_the_evaluation_took(tmp_path):
    spec = spec_of(demonstrations=3)
    record = recipe.run(spec, tmp_path)
    assert record.status == "success" and record == records.load(tmp_path / f"{spec.run_id}.json")
    assert (record.train.steps, record.train.examples, record.train.final_loss) == (0, 0, None)
    assert (record.params.ratio_peak, record.params.trainable_ever) == (0.0, 0)
    assert record.params.total > 0
    assert record.memory.eval_peak == record.memory.peak_allocated > record.memory.parameters
    assert record.memory.gradients == record.memory.optimizer_state == 0
    assert (record.inputs.examples_train, record.inputs.demonstrations_mean) == (3, 3.0)
    assert record.inputs.read_eval > record.inputs.examples_eval == 30
    assert record.curve is None and not (tmp_path / "curves").exists()


def test_another_seed_draws_other_demonstrations_and_not_another_split():
    tokenizer = registry.load_tokenizer(registry.source("tiny-gpt2"))
    shown, evaluated = [], []
    for seed in (0, 0, 1):
        adapter = tasks.base.adapter(tasks.base.load("mezo/sst2"))
        rows = examples.load(
            data_settings(spec_of(seed=seed, demonstrations=5)), adapter, tokenizer
        )
        shown.append(adapter.demonstrations)
        evaluated.append(rows.evaluation.ids)
    assert shown[0] == shown[1] != shown[2] and evaluated[0] == evaluated[2]


def test_the_rows_drawn_have_the_fingerprint_that_a_training_has():
    tokenizer = registry.load_tokenizer(registry.source("tiny-gpt2"))
    adapter = tasks.base.adapter(tasks.base.load("mezo/sst2"))
    drawn = {"train_examples": 12, "dev_examples": 5}
    trained = spec_of(**drawn, strategy="full", lr=1e-3, epochs=1)
    found = [
        examples.load(data_settings(s), adapter, tokenizer) for s in (trained, spec_of(**drawn))
    ]
    assert found[0].fingerprint == found[1].fingerprint
    assert found[1].train.encoded is None


def test_what_the_other_strategies_train_with_is_not_in_its_spec(load):
    specs = {cell.label: cell.runs()[0] for cell in load(MATRIX).cells}
    assert specs["zero"].steps(100) == 0 and specs["zero"].lr is None
    for old, new in (("epochs: 2", "max_steps: 7"), ("batch_size: 8", "batch_size: 4")):
        changed = {c.label: c.runs()[0] for c in load(MATRIX.replace(old, new)).cells}
        assert changed["zero"].hash == specs["zero"].hash
        assert changed["full"].hash != specs["full"].hash
    searched = MATRIX.replace("clip: 1.0", "search: {lr: [1.0e-3, 1.0e-4], examples: 8}")
    assert not next(c for c in load(searched).cells if c.label == "zero").trials()


@pytest.mark.slow
def test_a_matrix_of_both_compares_them_and_goes_through_the_runner(go, in_process, results):
    in_process()
    short = MATRIX.replace("tasks: [mezo/sst2, mezo/rte]", "tasks: [mezo/sst2]")
    outcome, watch = go(short.replace("epochs: 2", "max_steps: 2"))
    assert (outcome.ran, outcome.failed, outcome.refused) == (3, 0, [])
    steps = {run_id.split("_")[-2]: n for run_id, n in watch.of("started")}
    assert steps["zero"] == 0 and steps["full"] > 0
    differing = {d.field for d in consistency.differences(records.load_all(results))}
    assert not differing & {
        "max_steps",
        "batch_size",
        "clip",
        "demonstrations",
        "dataset fingerprint",
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("zero: {strategy: none}", "zero: {strategy: none, lr: 1.0}", r"zero\.lr: .*trains noth"),
        ("{lr: 1.0e-3}", "{}", "full.lr: missing"),
        ("{lr: 1.0e-3}", "{lr: 1.0e-3, demonstrations: 2}", r"full\.demonstrations"),
        ("demonstrations: 4", "demonstrations: -1", r"shown\.demonstrations"),
    ],
)
def test_a_setting_without_a_use_is_refused_where_it_stands(load, old, new, said):
    with pytest.raises(UserError, match=said):
        load(MATRIX.replace(old, new))


@pytest.mark.parametrize("fields", [{"strategy": "none"}, {"strategy": "full", "lr": None}])
def test_a_strategy_and_its_spec_agree_on_whether_something_trains(fields):
    with pytest.raises((UserError, ValueError), match="lr"):
        make_strategy(make_spec(**fields))


def test_a_specs_own_rules_survive_its_json():
    spec = spec_of(demonstrations=2)
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"task": "glue/sst2"}, Unsupported, "head sequence_classification, which would be new"),
        ({"task": "glue/sst2", "demonstrations": 2}, Unsupported, "no prompt"),
        ({"demonstrations": 9, "train_examples": 8}, UserError, "demonstrations 9 .* 8 rows"),
    ],
)
def test_what_would_mean_nothing_is_refused_and_writes_nothing(tmp_path, fields, error, said):
    with pytest.raises(error, match=said):
        recipe.run(spec_of(**fields), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_holds_the_head_is_scored_as_it_is(tmp_path):
    source = registry.source("tiny-bert")
    model = registry.load_model(source, "sequence_classification", 1, num_labels=2)
    model.save_pretrained(tmp_path / "tuned")
    registry.load_tokenizer(source).save_pretrained(tmp_path / "tuned")
    spec = spec_of(task="glue/sst2", model=str(tmp_path / "tuned"))
    assert recipe.run(spec, tmp_path / "results").status == "success"
