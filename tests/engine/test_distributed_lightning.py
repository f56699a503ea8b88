"""Lightning on two gloo ranks, DDP and FSDP2: what one process does that accumulates both ranks' batches,
and resuming from Lightning's own checkpoints."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from loops import TOTAL, by_hand, hift
from ranks import Failure, apart, launched, weights
from reference import batches, loss_of, tiny
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from benchmark.engine.distributed import synchronise
from benchmark.engine.sharded import full_state_dict


class Unwrapped(DDPStrategy):
    """DDP without its wrapper, hence without gradient buckets of the model's size."""

    def configure_ddp(self):
        pass


class Sharded(ModelParallelStrategy):
    """FSDP2 with checkpoints in one file. Lightning's own code for them goes by the numbers of the
    parameters in param_groups, which here change with the step."""

    def __init__(self, **settings):
        # by itself it takes the ranks of one node for tensor parallelism
        sizes = {"data_parallel_size": 2, "tensor_parallel_size": 1}
        super().__init__(save_distributed_checkpoint=False, **sizes, **settings)

    def optimizer_state(self, optimizer):
        return full_state_dict(getattr(optimizer, "_optimizer", optimizer))

    def load_checkpoint(self, checkpoint_path, weights_only=None):
        return torch.load(self.broadcast(checkpoint_path), map_location="cpu", weights_only=False)

    def load_model_state_dict(self, checkpoint, strict=True):
        whole = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=whole)

    lightning_restore_optimizer = True
    load_optimizer_state_dict = Strategy.load_optimizer_state_dict


class Module(lightning.LightningModule):
    def __init__(self, seed=0, synchronised=True):
        super().__init__()
        self.model, self.synchronised = tiny(seed=seed), synchronised

    def on_train_start(self):
        self.wrapped = isinstance(self.trainer.strategy.model, DistributedDataParallel)

    def training_step(self, batch, index):
        return loss_of(self.model, batch)

    def configure_optimizers(self):
        optimizer, scheduler = hift(self.model)
        if self.synchronised:
            synchronise(optimizer, self.model)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class ShardedModule(Module):
    def __init__(self, seed=0):
        super().__init__(seed, synchronised=False)

    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)


STRATEGIES = {
    "ddp": (DDPStrategy, Module),
    "unwrapped": (Unwrapped, Module),
    "fsdp2": (Sharded, ShardedModule),
}


def _fit(rank, name, data, accumulate=1, steps=TOTAL, folder=None, ckpt=None, **of_module):
    strategy, module = STRATEGIES[name]
    with launched(rank):
        trainer = lightning.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            devices=2,
            strategy=strategy(process_group_backend="gloo"),
            use_distributed_sampler=False,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=0.05,
            callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=8)] if folder else [],
            enable_checkpointing=folder is not None,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = module(**of_module)
        trainer.fit(module, DataLoader(data[rank::2], batch_size=None), ckpt_path=ckpt)
        assert module.wrapped == (name == "ddp")
        return weights(module.model)


@pytest.mark.parametrize("name", ["ddp", "unwrapped"])
def test_lightning_is_one_process(ranks, name):
    """Bit for bit."""
    data = batches(2 * TOTAL)
    expected, _ = by_hand(data, accumulate=2, clip=0.05)
    assert apart(ranks(_fit, name, data), expected) == 0


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_lightning_accumulates(ranks, name):
    """To 1e-6: each rank adds up its own three micro-batches first, and fully_shard sums before it halves."""
    data = batches(6 * TOTAL)
    expected, _ = by_hand(data, accumulate=6, clip=0.05)
    assert apart(ranks(_fit, name, data, 3), expected) < 1e-6


def _resume(rank, name, data, path):
    return _fit(rank, name, data, ckpt=path, seed=7)


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_lightning_resumes_mid_sweep_from_its_checkpoint(ranks, tmp_path, name):
    """Epochs of four steps; saved after the second, in the middle of a sweep."""
    data = batches(8)
    whole = ranks(_fit, name, data)
    ranks(_fit, name, data, 1, 8, str(tmp_path))
    resumed = ranks(_resume, name, data, str(tmp_path / "step=8.ckpt"))
    for a, b in zip(whole, resumed, strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)
    expected, _ = by_hand(data * 4, accumulate=2, clip=0.05)
    assert apart(whole, expected) < 1e-6


def _forgotten(rank):
    _fit(rank, "ddp", batches(4), synchronised=False)


def test_lightning_ddp_without_synchronise_is_refused(ranks):
    for answer in ranks.attempt(_forgotten):
        assert isinstance(answer, Failure) and answer.message.startswith("UserError")
        assert "benchmark.engine.distributed.synchronise" in answer.message
