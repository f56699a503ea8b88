"""transformers' Trainer, given the optimizer and its scheduler, trains as the loop by hand does, and
resumes from its own checkpoints."""

import pytest
import torch
from loops import TOTAL, by_hand, hift, language, rows
from reference import batches, same_weights
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from benchmark.engine import HiFT

logging.set_verbosity_error()


def trainer_of(model, folder, n_batches, *, optimizers=None, **settings):
    arguments = TrainingArguments(
        str(folder),
        max_steps=TOTAL,
        per_device_train_batch_size=3,
        train_sampling_strategy="sequential",
        use_cpu=True,
        logging_strategy="steps",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        seed=0,
        **{"save_strategy": "no", "max_grad_norm": 0.0, **settings},
    )
    return Trainer(
        model,
        arguments,
        train_dataset=rows(n_batches),
        eval_dataset=rows(2),
        optimizers=optimizers or hift(model),
    )


def losses_of(trainer):
    """As logged: rounded by the Trainer, so compared to 1e-4."""
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(("accumulate", "clip"), [(1, 0.0), (1, 0.05), (3, 0.05)])
def test_the_trainer_is_the_loop_by_hand(tmp_path, accumulate, clip):
    n = TOTAL * accumulate
    expected, losses = by_hand(batches(n), accumulate=accumulate, clip=clip or None)
    model = language()
    trainer = trainer_of(
        model, tmp_path, n, gradient_accumulation_steps=accumulate, max_grad_norm=clip
    )
    trainer.train()
    assert same_weights(model, expected)
    assert losses_of(trainer) == pytest.approx(losses, abs=1e-4)


def test_streamed_weights_train_evaluate_and_resume_in_it(tmp_path):
    def streamed(folder, seed):
        model = language(seed=seed)
        settings = {"save_strategy": "steps", "save_steps": 8, "eval_strategy": "steps"}
        return trainer_of(
            *(model, tmp_path / folder, 6),
            optimizers=hift(model, weights="stream"),
            **settings,
            eval_steps=3,
        )

    expected, _ = by_hand((batches(6) * 3)[:TOTAL])
    whole, resumed = streamed("whole", 0), streamed("resumed", 7)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert same_weights(whole.model, expected) and same_weights(resumed.model, expected)


def test_the_trainer_in_bf16_is_the_loop_by_hand(tmp_path):
    expected, _ = by_hand(batches(TOTAL), autocast=torch.bfloat16)
    model = language()
    trainer_of(model, tmp_path, TOTAL, bf16=True).train()
    assert same_weights(model, expected)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_its_own_checkpoint_resumes_mid_sweep_and_mid_epoch(tmp_path, accumulate):
    """Epochs of six steps; saved after the eighth, stopped there, and taken up by a fresh model."""
    settings = {
        "gradient_accumulation_steps": accumulate,
        "max_grad_norm": 0.05,
        "save_strategy": "steps",
        "save_steps": 8,
    }
    n = 6 * accumulate
    expected, _ = by_hand((batches(n) * 3)[: TOTAL * accumulate], accumulate=accumulate, clip=0.05)
    whole = language()
    trainer_of(whole, tmp_path, n, **settings).train()
    assert same_weights(whole, expected)

    resumed = language(seed=7)
    trainer = trainer_of(resumed, tmp_path / "resumed", n, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert trainer.optimizer.optimizer.position.step == TOTAL
    assert same_weights(resumed, expected)


def test_a_checkpoint_of_another_grouping_is_refused(tmp_path):
    model = language()
    trainer_of(model, tmp_path, TOTAL, save_strategy="steps", save_steps=8).train()
    other = language()
    optimizers = hift(other, group_size=2)
    trainer = trainer_of(other, tmp_path / "other", TOTAL, optimizers=optimizers)
    with pytest.raises(ValueError, match="saved with 6 groups"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))


def test_evaluating_in_the_middle_of_a_sweep_moves_nothing(tmp_path):
    expected, _ = by_hand(batches(TOTAL))
    model = language()
    trainer = trainer_of(model, tmp_path, TOTAL, eval_strategy="steps", eval_steps=3)
    trainer.train()
    assert same_weights(model, expected)
    assert isinstance(trainer.optimizer.optimizer, HiFT)


def test_a_forgotten_scheduler_is_noticed(tmp_path):
    """The Trainer then makes its own, which changes the rate at every step."""
    model = language()
    optimizer = HiFT(model, "adamw", lr=1e-2)
    trainer = trainer_of(model, tmp_path, 4, optimizers=(optimizer, None))
    with pytest.warns(UserWarning, match=r"optimizers=\(optimizer, scheduler\)"):
        trainer.train()
