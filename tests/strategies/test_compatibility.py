"""The compatibility table against the strategies: what it allows trains, and what it refuses says why.

Each strategy meets each optimizer, each precision and each feature once, on a model of two small blocks.
"""

import contextlib
import copy

import pytest
import torch
from factories import make_bert, make_spec, make_strategy

from benchmark.errors import Unsupported, UserError
from benchmark.matrices.foreseen import refusal
from benchmark.measure.live_bytes import LiveBytes
from benchmark.models.checkpointing import recompute_activations
from benchmark.models.precision import autocast
from benchmark.optimizers import OPTIMIZERS
from benchmark.run.module import mean_loss
from benchmark.strategies import STRATEGIES, strategy_class
from benchmark.strategies.compatibility import FEATURES, PRECISIONS, row

STEPS = 3
TRAINED = [name for name in STRATEGIES if strategy_class(name).trains]
RUN = tuple(p for p in PRECISIONS if p != "fp16")
"""The precisions of a run on a CPU: fp16 needs a CUDA device."""
ASKED = {
    "accumulate": {"accumulate": 2},
    "clip": {"clip": 1.0},
    "checkpointing": {"checkpointing": True},
}


@pytest.fixture(scope="module")
def model():
    return make_bert()


class Classes:
    """An adapter whose loss is the model's."""

    def loss(model, batch):
        return model(**batch).loss


def train(model, spec):
    """STEPS optimizer steps and a prediction as a run makes them. Returns the losses and the names of what
    moved."""
    strategy = make_strategy(spec)
    strategy.check()
    model = copy.deepcopy(model)
    if spec.checkpointing and not strategy.recomputes:
        recompute_activations(model)
    torch.manual_seed(0)
    model = strategy.prepared(model).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer, scheduler = strategy.optimizer(model, STEPS)
    batch = {
        "input_ids": torch.randint(4, 64, (4, 8), generator=torch.Generator().manual_seed(1)),
        "attention_mask": torch.ones(4, 8, dtype=torch.long),
        "labels": torch.tensor([0, 1, 1, 0]),
    }
    losses = []
    for _ in range(STEPS):
        for _ in range(spec.accumulate):
            with autocast(spec.precision, torch.device("cpu")):
                loss = strategy.loss(model, lambda: model(**batch).loss) / spec.accumulate
            loss.backward()
            losses.append(loss.item())
        if spec.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    with LiveBytes([]):  # as in an evaluation
        losses.append(mean_loss(model, Classes, [batch], torch.device("cpu"), spec.precision)[0])
    return losses, {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


def spec_of(name, **fields):
    return make_spec(
        strategy=name, lr=1e-3, epochs=None, max_steps=STEPS, schedule="constant", **fields
    )


def installed(optimizer):
    """Whether the package of the optimizer is there; those of 8 bits are an extra."""
    from benchmark.engine.wrapped import find_optimizer

    with contextlib.suppress(UserError):
        return bool(find_optimizer(optimizer))
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_what_is_allowed_trains(model, name):
    kind = strategy_class(name)
    optimizers = OPTIMIZERS if kind.optimizers is None else kind.optimizers
    asked = [{"optimizer": o} for o in optimizers if installed(o)]
    asked += [{"precision": p} for p in RUN if p in kind.precisions]
    asked += [fields for feature, fields in ASKED.items() if feature not in kind.refuses]
    for fields in asked:
        try:
            losses, moved = train(model, spec_of(name, **fields))
        except UserError as refused:  # an optimizer that cannot take these tensors, such as Muon
            assert "optimizer" in fields and "\n" not in str(refused), (fields, refused)
            continue
        assert all(loss == loss and loss < 100 for loss in losses), fields
        assert moved, fields


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_refused_says_why_before_there_is_a_model(name):
    kind = strategy_class(name)
    for precision in set(RUN) - set(kind.precisions):
        with pytest.raises(
            Unsupported, match=f"strategy {name} has no precision {precision}, only"
        ):
            make_strategy(spec_of(name, precision=precision))
    if kind.optimizers is not None:
        for optimizer in sorted(set(OPTIMIZERS) - {*kind.optimizers, "adamw"}):
            with pytest.raises(Unsupported, match=f"strategy {name} .*optimizer"):
                make_strategy(spec_of(name, optimizer=optimizer))


@pytest.mark.parametrize(
    "fields", [{"accumulate": 2}, {"clip": 1.0}, {"precision": "fp16"}], ids=str
)
def test_what_options_rule_out_is_refused_with_them_alone(fields):
    inside = {"options": {"update": "in_backward"}}
    with pytest.raises(
        Unsupported, match=r"strategy hift does not work with .*update: in_backward"
    ) as said:
        make_strategy(spec_of("hift", **fields, **inside))
    assert "\n" not in str(said.value)
    assert refusal(spec_of("hift", **fields, **inside)) == str(said.value), "as a plan shows it"
    make_strategy(spec_of("hift", **fields))
    make_strategy(spec_of("hift", **inside))


def test_rows_need_an_optimizer_that_updates_each_number_by_itself():
    options = {"options": {"partition": "rows:500K"}}
    with pytest.raises(Unsupported, match=r"adafactor: .*use adamw, .*or partition: modules"):
        make_strategy(spec_of("hift", optimizer="adafactor", **options))
    make_strategy(spec_of("hift", optimizer="sgdm", **options))
    with pytest.raises(UserError, match=r'partition: unknown partition "row:5K".*"rows:5K"'):
        make_strategy(spec_of("hift", options={"partition": "row:5K"}))


def test_inputs_of_blocks_wait_on_the_host_only_for_recomputation():
    waiting = {"boundaries": "host"}
    for options in (waiting, {**waiting, "weights": "stream"}):
        with pytest.raises(UserError, match=r"boundaries: host .*checkpointing: true"):
            make_strategy(spec_of("hift", options=options))
        make_strategy(spec_of("hift", options=options, checkpointing=True))


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_line_of_the_table_says_what_the_strategy_says(name):
    kind, line = strategy_class(name), row(name, strategy_class(name))
    assert set(line) == {"optimizers", "precisions", *FEATURES}
    if not kind.trains:
        assert set(line.values()) == {""}
        return
    for feature in set(FEATURES) - {"sharded"}:
        assert line[feature] == kind.refuses.get(feature, "yes")
    together = kind.refuses.get("data_parallel", "yes")
    assert line["sharded"] == kind.refuses.get("sharded", together)
