"""A small training run that can be killed at any moment; test_engine_checkpoint starts it as a process.

Saves after every micro-batch, so a kill may hit mid-sweep, mid-accumulation or while a checkpoint is
being written; starts from the last whole checkpoint; writes FOLDER/final.pt when it is done. Says how many
micro-batches are saved after each, for the test to aim its kills.
"""

from multiprocessing.connection import Connection
from pathlib import Path

import torch
from reference import batches, loss_of, tiny

from benchmark.engine import HiFT
from benchmark.engine.checkpoint import load, save

ACCUMULATE = 3
KINDS = {
    "ordinary": {},
    "in_backward": {"update": "in_backward"},
    "streamed": {"weights": "stream"},
    "least memory": {"update": "in_backward", "weights": "stream", "checkpointing": "parts"},
}


def main(folder: Path, steps: int, saved: Connection, kind: str = "ordinary") -> None:
    """kind: of KINDS, settings of HiFT. An update inside the backward pass takes one micro-batch a step."""
    settings = KINDS[kind]
    accumulate = 1 if "update" in settings else ACCUMULATE
    torch.set_num_threads(1)
    model = tiny(tied=True)
    torch.nn.Module.train(model)
    optimizer = HiFT(
        model, "adamw", lr=1e-2, group_size=2, order="random", seed=3, dwell=2, **settings
    )
    scheduler = optimizer.delayed_lr("cosine", total_steps=steps)
    path = folder / "checkpoint.pt"
    done = 0
    torch.manual_seed(11)
    if path.exists():
        done = load(path, model, optimizer, scheduler=scheduler)["micro"]
    data = batches(steps * accumulate)
    for micro in range(done, len(data)):
        # noise from torch's generator: a resumed run must draw the same numbers
        (loss_of(model, data[micro]) * (1 + 0.1 * torch.rand(())) / accumulate).backward()
        if (micro + 1) % accumulate == 0:
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        save(path, model, optimizer, scheduler=scheduler, extra={"micro": micro + 1})
        saved.send(micro + 1)
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "final.pt"
    )
