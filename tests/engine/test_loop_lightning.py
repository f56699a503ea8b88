"""Lightning's automatic optimization trains as the loop by hand does, and resumes from its checkpoints."""

import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from loops import TOTAL, by_hand, hift
from reference import batches, loss_of, same_weights, tiny
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore", module="lightning")


class Module(lightning.LightningModule):
    def __init__(self, seed: int = 0, **settings) -> None:
        super().__init__()
        self.model, self.settings = tiny(seed=seed), settings
        self.losses: list[float] = []

    def training_step(self, batch, index):
        loss = loss_of(self.model, batch)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimizer, scheduler = hift(self.model, **self.settings)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def fit(module, data, *, steps=TOTAL, ckpt_path=None, **settings):
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **settings},
    )
    loader = DataLoader(data, batch_size=None, shuffle=False)
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(
    ("accumulate", "clip", "weights"),
    [(1, None, "resident"), (1, 0.05, "resident"), (3, 0.05, "resident"), (3, 0.05, "stream")],
)
def test_lightning_is_the_loop_by_hand(accumulate, clip, weights):
    data = batches(TOTAL * accumulate)
    expected, losses = by_hand(data, accumulate=accumulate, clip=clip)
    module = Module(weights=weights)
    fit(module, data, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    assert same_weights(module.model, expected)
    steps = [module.losses[i : i + accumulate] for i in range(0, len(data), accumulate)]
    assert [sum(micro) / accumulate for micro in steps] == losses


def test_lightning_in_bf16_is_the_loop_by_hand():
    expected, losses = by_hand(batches(TOTAL), autocast=torch.bfloat16)
    module = Module()
    fit(module, batches(TOTAL), precision="bf16-mixed")
    assert same_weights(module.model, expected) and module.losses == losses


def _interrupted(folder, data, settings, **of_module):
    """Two epochs of four steps, which end in the middle of a sweep; then the rest, resumed."""
    first = Module(**of_module)
    saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=8)
    fit(first, data, steps=8, callbacks=[saving], enable_checkpointing=True, **settings)
    second = Module(seed=7, **of_module)  # another start: all must come from the checkpoint
    trainer = fit(second, data, ckpt_path=folder / "step=8.ckpt", **settings)
    assert trainer.global_step == trainer.optimizers[0].position.step == TOTAL
    return first, second


@pytest.mark.parametrize("accumulate", [1, 2])
def test_its_own_checkpoint_resumes_mid_sweep(tmp_path, accumulate):
    data = batches(4 * accumulate)
    settings = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.05}
    expected, losses = by_hand(data * 4, accumulate=accumulate, clip=0.05)
    first, second = _interrupted(tmp_path, data, settings)
    assert not same_weights(first.model, expected)
    assert same_weights(second.model, expected)
    micro = first.losses + second.losses
    steps = [micro[i : i + accumulate] for i in range(0, len(micro), accumulate)]
    assert [sum(step) / accumulate for step in steps] == losses


def test_master_weights_come_back_from_its_checkpoint(tmp_path):
    mixed = {"master": "all", "low_dtype": torch.bfloat16}
    whole = Module(**mixed)
    fit(whole, batches(4))
    _, resumed = _interrupted(tmp_path, batches(4), {}, **mixed)
    assert same_weights(resumed.model, whole.model)


def test_streamed_weights_come_back_from_its_checkpoint(tmp_path):
    expected, _ = by_hand(batches(4) * 4)
    _, resumed = _interrupted(tmp_path, batches(4), {}, weights="stream")
    assert same_weights(resumed.model, expected)


@pytest.mark.parametrize("weights", ["resident", "stream"])
def test_validation_in_the_middle_of_a_sweep_moves_nothing(weights):
    class Validated(Module):
        def validation_step(self, batch, index):
            self.log("loss", loss_of(self.model, batch))

        def val_dataloader(self):
            return DataLoader(batches(3, seed=9), batch_size=None)

    expected, _ = by_hand(batches(TOTAL))
    module = Validated(weights=weights)
    fit(module, batches(TOTAL), val_check_interval=3)
    assert same_weights(module.model, expected)
