"""The methods of peft: what trains, the outputs and a step are those of a model wrapped by peft directly."""

import copy
import itertools
import warnings

import peft
import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import UserError
from benchmark.measure.canary import Canary
from benchmark.models import registry

HEADS = {"sequence_classification": "SEQ_CLS", "causal_lm": "CAUSAL_LM"}
TARGETS = {"tiny-bert": ["query", "value"], "tiny-gpt2": ["c_attn"], "tiny-llama": None}


def lora(**arguments):
    return lambda task, turned: peft.LoraConfig(
        task_type=task, r=8, lora_alpha=16, fan_in_fan_out=turned, **arguments
    )


DIRECT = {
    "lora": lora(),
    "dora": lora(use_dora=True),
    "rslora": lora(use_rslora=True),
    "pissa": lora(init_lora_weights="pissa"),
    "vera": lambda task, turned: peft.VeraConfig(
        task_type=task, r=256, projection_prng_key=0, fan_in_fan_out=turned
    ),
    "ia3": lambda task, turned: peft.IA3Config(task_type=task, fan_in_fan_out=turned),
    "oft": lambda task, turned: peft.OFTConfig(task_type=task, oft_block_size=32),
    "ln_tuning": lambda task, turned: peft.LNTuningConfig(task_type=task),
}
"""Strategy -> the configuration that a user of peft would write, given task type and fan_in_fan_out."""
LACKS = {("oft", "tiny-gpt2"), ("ln_tuning", "tiny-bert")}
"""What peft itself has not: OFT of Conv1D, and a choice of norms for BERT."""


def load(name, head):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), head, 1)
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 1, 0]) if head == "sequence_classification" else ids
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def prepared(name, model, **options):
    torch.manual_seed(3)
    strategy = make_strategy(make_spec(strategy=name, options=options, lr=1e-2))
    return strategy, strategy.prepare(copy.deepcopy(model))


def trainable(model):
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("name", "twin"), [pair for pair in itertools.product(DIRECT, TARGETS) if pair not in LACKS]
)
def test_it_is_the_model_that_peft_wraps(name, twin):
    head = "causal_lm" if twin == "tiny-llama" else "sequence_classification"
    model, batch = load(twin, head)
    strategy, ours = prepared(name, model)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DIRECT[name](HEADS[head], twin == "tiny-gpt2")
        theirs = peft.get_peft_model(copy.deepcopy(model), config)
    assert trainable(ours).keys() == trainable(theirs).keys()
    assert torch.equal(ours(**batch).logits, theirs(**batch).logits)
    optimizer, _ = strategy.optimizer(ours, 10)
    plain = torch.optim.AdamW(trainable(theirs).values(), lr=1e-2, weight_decay=0.0)
    for wrapped, of_model in ((ours, optimizer), (theirs, plain)):
        wrapped(**batch).loss.backward()
        of_model.step()
    after = trainable(theirs)
    for parameter, value in trainable(ours).items():
        torch.testing.assert_close(value, after[parameter], msg=parameter)


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("name", "twin"),
    [
        pair
        for pair in itertools.product([*DIRECT, "adalora"], TARGETS)
        if pair != ("oft", "tiny-gpt2")  # peft has none
    ],
)
def test_outputs_at_the_start_are_the_pretrained_model_s(name, twin):
    model, batch = load(twin, "sequence_classification")
    _, wrapped = prepared(name, model)
    torch.testing.assert_close(
        wrapped.eval()(**batch).logits, model.eval()(**batch).logits, atol=1e-5, rtol=0
    )


def test_pissa_starts_from_the_largest_singular_values():
    model, _ = load("tiny-bert", "sequence_classification")
    _, wrapped = prepared("pissa", model, r=4)
    layer = wrapped.base_model.model.bert.encoder.layer[0].attention.self.query
    before = model.bert.encoder.layer[0].attention.self.query.weight
    values = torch.linalg.svdvals(before)
    rest = torch.linalg.svdvals(layer.base_layer.weight)
    torch.testing.assert_close(rest[: len(values) - 4], values[4:], atol=1e-5, rtol=1e-4)


def written_with_peft_alone(model, batch, steps):
    """AdaLoRA as peft's documentation trains it."""
    config = peft.AdaLoraConfig(
        task_type="SEQ_CLS",
        init_r=6,
        target_r=2,
        lora_alpha=16,
        total_step=steps,
        tinit=int(0.25 * steps),
        tfinal=int(0.25 * steps),
    )
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(copy.deepcopy(model), config).train()
    optimizer = torch.optim.AdamW(trainable(wrapped).values(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    losses = []
    for step in range(steps):
        loss = wrapped(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        wrapped.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    return wrapped, losses


def test_adalora_is_the_loop_of_peft_s_documentation():
    steps = 12
    model, batch = load("tiny-bert", "sequence_classification")
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    theirs, expected = written_with_peft_alone(model, batch, steps)
    strategy, ours = prepared("adalora", model, initial_r=6, target_r=2, start=0.25, final=0.25)
    ours.train()
    optimizer, scheduler = strategy.optimizer(ours, steps)
    losses = []
    for _ in range(steps):
        loss = strategy.loss(ours, lambda: ours(**batch).loss)
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-5)
    after = trainable(theirs)
    for name, value in trainable(ours).items():
        torch.testing.assert_close(value, after[name], msg=name)
    left = [int(value.count_nonzero()) for n, value in after.items() if "lora_E" in n]
    assert sum(left) == 2 * len(left) and len(set(left)) > 1, "the budget, unevenly spread"
    kinds = {kind for state in optimizer.state.values() for kind in state}
    assert "exp_avg_ipt" not in kinds, "freed with the last cut"


def test_the_importances_of_adalora_count_as_optimizer_state():
    model, batch = load("tiny-bert", "sequence_classification")
    strategy, wrapped = prepared("adalora", model)
    optimizer, _ = strategy.optimizer(wrapped, 100)
    strategy.loss(wrapped, lambda: wrapped(**batch).loss).backward()
    optimizer.step()
    updates = sum(p.nbytes for n, p in trainable(wrapped).items() if "lora_" in n)
    counted = sum(
        value.nbytes
        for state in optimizer.state.values()
        for kind, value in state.items()
        if kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
    )
    assert counted == 3 * updates > 0


def test_a_matrix_that_adalora_prunes_whole_is_no_dead_parameter():
    model, batch = load("tiny-bert", "sequence_classification")
    strategy, wrapped = prepared("adalora", model, initial_r=4, target_r=1)
    optimizer, scheduler = strategy.optimizer(wrapped, 8)
    canary = Canary(wrapped)
    for _ in range(8):
        strategy.loss(wrapped, lambda: wrapped(**batch).loss).backward()
        canary.claim(p for p in wrapped.parameters() if p.grad is not None)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    names = {id(p): n for n, p in wrapped.named_parameters()}
    pruned = {names[id(p)] for p in strategy.set_back(wrapped)}
    zeros = {n for n, p in trainable(wrapped).items() if "lora_E" in n and not p.any()}
    assert pruned == zeros == set(canary.unmoved()) and pruned
    canary.excuse(strategy.set_back(wrapped))
    canary.check()


@pytest.mark.parametrize(
    ("name", "twin", "options", "said"),
    [
        ("lora", "tiny-bert", {"r": 65}, "r 65 is larger than a matrix of 64 × 64"),
        ("pissa", "tiny-bert", {"r": 65}, "r 65 is larger than a matrix of 64 × 64"),
        ("adalora", "tiny-bert", {"initial_r": 65}, "initial_r 65 is larger"),
        ("dora", "tiny-bert", {"targets": ["no_such"]}, "targets: no_such: "),
        ("ia3", "tiny-bert", {"targets": ["no_such"]}, "targets: no_such: "),
        ("vera", "tiny-bert", {"targets": ["no_such"]}, "targets: no_such: "),
        ("oft", "tiny-bert", {"block": 48}, "block 48 does not divide the width 64"),
        ("oft", "tiny-gpt2", {}, "by default: .*Conv1D"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused_in_one_line(name, twin, options, said):
    model, _ = load(twin, "sequence_classification")
    with pytest.raises(UserError, match=f"strategy {name}: .*{said}") as refused:
        prepared(name, model, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("adalora", {"target_r": 12}, "target_r must be less than initial_r"),
        ("adalora", {"start": 0.5, "final": 0.5}, "start and final"),
        ("ia3", {"targets": ["key"], "feedforward": ["dense"]}, "among targets"),
        ("oft", {"block": 1}, "block"),
    ],
)
def test_options_that_no_model_can_satisfy_are_refused_before_one_loads(name, options, said):
    with pytest.raises(UserError, match=said):
        make_strategy(make_spec(strategy=name, options=options))


@pytest.mark.parametrize(
    ("name", "head", "new"),
    [
        ("tiny-roberta", "masked_lm", ""),
        ("tiny-roberta", "question_answering", "qa_outputs"),
        ("tiny-gpt2", "question_answering", "qa_outputs"),
        ("tiny-bert", "token_classification", "classifier"),
        ("tiny-opt", "causal_lm", ""),
    ],
)
def test_lora_trains_what_is_new_of_every_head(name, head, new):
    model = registry.load_model(registry.source(name), head, 1)
    strategy = make_strategy(make_spec(strategy="lora", model=name))
    prepared = strategy.prepare(model)
    trains = {n for n, p in prepared.named_parameters() if p.requires_grad and "lora_" not in n}
    assert bool(trains) == bool(new) and all(f".{new}." in n for n in trains)
    ids = torch.randint(10, 900, (2, 6), generator=torch.Generator().manual_seed(1))
    output = prepared(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert output[0].requires_grad


def test_lora_names_a_target_that_is_not_in_the_model(loaded):
    name, model, _ = loaded
    strategy = make_strategy(
        make_spec(strategy="lora", options={"targets": ["no_such"]}, model=name)
    )
    with pytest.raises(UserError, match=r"strategy lora: .*no_such"):
        strategy.prepare(copy.deepcopy(model))
