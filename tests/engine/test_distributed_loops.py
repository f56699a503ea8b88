"""HF Trainer and Accelerate on two gloo ranks end where one process does that accumulates both ranks'
batches. Both wrap the model in DDP and need not know."""

import pytest
import torch
from accelerate import Accelerator
from loops import TOTAL, by_hand, hift, language, rows
from ranks import apart, launched, weights
from reference import batches, loss_of, tiny
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from benchmark.engine.distributed import synchronise


def both_ranks_by_hand(data, accumulate=1, clip=0.05):
    """Micro-batch i of rank r is batch 2·i + r."""
    return by_hand(data, accumulate=2 * accumulate, clip=clip)[0]


# --- HF Trainer -----------------------------------------------------------------------------------


def _trainer(rank, folder, n_batches, accumulate, seed=0, checkpoint=None):
    with launched(rank):
        model = language(seed)
        optimizer, scheduler = hift(model)
        synchronise(optimizer, model)
        arguments = TrainingArguments(
            folder,
            max_steps=TOTAL,
            per_device_train_batch_size=3,
            train_sampling_strategy="sequential",
            gradient_accumulation_steps=accumulate,
            max_grad_norm=0.05,
            use_cpu=True,
            ddp_backend="gloo",
            save_strategy="steps",
            save_steps=8,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model, arguments, train_dataset=rows(n_batches), optimizers=(optimizer, scheduler)
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        assert isinstance(trainer.model_wrapped, DistributedDataParallel)
        return weights(model)


def test_the_trainer_in_ddp_is_one_process_and_resumes(ranks, tmp_path):
    n = 12  # epochs of six steps
    expected = both_ranks_by_hand((batches(n) * 3)[: 2 * TOTAL])
    assert apart(ranks(_trainer, str(tmp_path), n, 1), expected) == 0
    resumed = ranks(_trainer, str(tmp_path / "resumed"), n, 1, 7, str(tmp_path / "checkpoint-8"))
    assert apart(resumed, expected) == 0


def test_the_trainer_in_ddp_accumulates(ranks, tmp_path):
    n = 4 * TOTAL
    answers = ranks(_trainer, str(tmp_path), n, 2)
    assert apart(answers, both_ranks_by_hand(batches(n), 2)) < 1e-6


# --- Accelerate -----------------------------------------------------------------------------------


def _accelerate(rank, accumulate, precision="no"):
    with launched(rank):
        accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=precision
        )
        model = tiny()
        optimizer, scheduler = hift(model)
        synchronise(optimizer, model)
        loader = DataLoader(torch.cat(batches(2 * accumulate * TOTAL)), batch_size=3)
        ddp, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
        assert isinstance(ddp, DistributedDataParallel)
        for ids in loader:
            with accelerator.accumulate(ddp):
                accelerator.backward(loss_of(ddp, ids))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(ddp.parameters(), 0.05)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        return weights(model)


@pytest.mark.parametrize(("accumulate", "tolerance"), [(1, 0), (3, 1e-6)])
def test_accelerate_in_ddp_is_one_process(ranks, accumulate, tolerance):
    expected = both_ranks_by_hand(batches(2 * accumulate * TOTAL), accumulate)
    assert apart(ranks(_accelerate, accumulate), expected) <= tolerance
