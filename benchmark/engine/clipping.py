"""Whether the training loop around an optimizer's step clips gradients.

A library's loop clips before the step, and says nothing if it finds no gradients. The settings of the loops
known here are read from the calls that lead to the step. Of a loop that calls torch's `clip_grad_norm_`
itself nothing can be seen from inside the step.
"""

from __future__ import annotations

import sys
from operator import attrgetter
from types import FrameType

LOOPS = (
    ("transformers.trainer", "args.max_grad_norm", "max_grad_norm=0"),
    ("lightning.pytorch.trainer.trainer", "gradient_clip_val", "gradient_clip_val=None"),
    ("pytorch_lightning.trainer.trainer", "gradient_clip_val", "gradient_clip_val=None"),
)
"""The module of each loop's class Trainer, its setting, and that which turns clipping off."""


def clips() -> tuple[str, str] | None:
    """(its setting, what turns it off) of the loop that calls this, such as ("max_grad_norm=1.0",
    "max_grad_norm=0"); None if it does not clip, and if no loop of LOOPS calls this."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        for module, setting, off in LOOPS:
            loop = getattr(sys.modules.get(module), "Trainer", None)
            if loop is not None and isinstance(caller, loop):
                value = attrgetter(setting)(caller)
                return (f"{setting.rpartition('.')[2]}={value}", off) if value else None
        frame = frame.f_back
    return None
