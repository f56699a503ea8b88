"""Optimizers by name: the class of each, the options that its name implies, and those that a user may set.

One entry of OPTIMIZERS adds an optimizer: specs, the engine, the memory ledger and the commands read this
table. The module does not import torch, so that a matrix is checked without it. The update rules are those of
torch.optim, bitsandbytes and lion-pytorch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark.errors import UserError, nearest

Shape = Sequence[int]
State = Callable[[Shape, int, Mapping[str, Any]], int]
SCALAR = 4
"""Bytes of the step count of one tensor, which torch stores as one fp32 number."""
EIGHT_BIT_FROM = 4096
"""Numbers of the smallest tensor whose state bitsandbytes keeps in 8 bits; that of smaller ones is fp32."""
SCALED = 256
"""Numbers of a state of 8 bits that share one fp32 scale, and fp32 numbers of a table that decodes them."""
SHARED = ("lr", "weight_decay", "fused")
"""Arguments of every optimizer class that are settings of the training, not options of the optimizer."""


def _adam(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
    return (2 + bool(options.get("amsgrad"))) * math.prod(shape) * size + SCALAR


def _sgd(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
    return math.prod(shape) * size if options.get("momentum") else 0


def _adagrad(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
    return math.prod(shape) * size + SCALAR


def _rmsprop(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
    moments = 1 + bool(options.get("momentum")) + bool(options.get("centered"))
    return moments * math.prod(shape) * size + SCALAR


def _adafactor(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
    """Row and column sums of each matrix; one value per element for a vector. Leading dimensions stack
    matrices."""
    if len(shape) < 2:
        return math.prod(shape) * size + SCALAR
    *stack, rows, columns = shape
    return math.prod(stack) * (rows + columns) * size + SCALAR


def _lion(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
    return math.prod(shape) * size


def _eight_bit(moments: int) -> State:
    """Of bitsandbytes, where each block of a moment has its scale."""

    def state(shape: Shape, size: int, options: Mapping[str, Any]) -> int:
        numel = math.prod(shape)
        each = numel + 4 * -(-numel // SCALED) if numel >= EIGHT_BIT_FROM else 4 * numel
        return moments * each

    return state


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer class: `class_name` in the first of `modules` that is installed and has it.

    implied: options that the name implies, such as the momentum of sgdm. options: the options a user may set,
    by their names in the signature of the class. fused: torch has a fused kernel for it. elementwise: it
    updates each number of a tensor by itself. state: the bytes of the state of one tensor, a function of its
    shape, its bytes per element and the options; None if there is no closed form. tables: the keys of the
    state under which all tensors of 8-bit state have the same table; `state` leaves it out.
    """

    class_name: str
    modules: tuple[str, ...] = ("torch.optim",)
    implied: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    fused: bool = False
    elementwise: bool = False
    state: State | None = None
    tables: tuple[str, ...] = ()

    def table_bytes(self, shapes: Iterable[Shape]) -> int:
        """The bytes of the tables that the states of tensors of these shapes share."""
        used = self.tables and any(math.prod(shape) >= EIGHT_BIT_FROM for shape in shapes)
        return len(self.tables) * 4 * SCALED if used else 0


ADAM = ("betas", "eps", "amsgrad")
SGD = ("momentum", "dampening", "nesterov")
RMSPROP = ("alpha", "eps", "momentum", "centered")
MOMENTUM = {"momentum": 0.9}
BITSANDBYTES = ("bitsandbytes.optim",)


def _bitsandbytes(class_name: str, moments: int, **fields: Any) -> Optimizer:
    """A class whose state is `moments` numbers of 8 bits each."""
    tables = ("qmap1", "qmap2")[:moments]
    return Optimizer(
        class_name=class_name,
        modules=BITSANDBYTES,
        state=_eight_bit(moments),
        tables=tables,
        **fields,
    )


OPTIMIZERS = {
    "adamw": Optimizer(class_name="AdamW", options=ADAM, fused=True, elementwise=True, state=_adam),
    "adam": Optimizer(class_name="Adam", options=ADAM, fused=True, elementwise=True, state=_adam),
    "nadam": Optimizer(
        class_name="NAdam",
        elementwise=True,
        options=("betas", "eps", "momentum_decay", "decoupled_weight_decay"),
    ),
    "radam": Optimizer(
        class_name="RAdam",
        elementwise=True,
        options=("betas", "eps", "decoupled_weight_decay"),
        state=_adam,
    ),
    "sgd": Optimizer(class_name="SGD", elementwise=True, options=SGD, fused=True, state=_sgd),
    "sgdm": Optimizer(
        class_name="SGD", elementwise=True, implied=MOMENTUM, options=SGD, fused=True, state=_sgd
    ),
    "adagrad": Optimizer(
        class_name="Adagrad",
        elementwise=True,
        options=("lr_decay", "initial_accumulator_value", "eps"),
        fused=True,
        state=_adagrad,
    ),
    "adafactor": Optimizer(
        class_name="Adafactor", options=("beta2_decay", "eps", "d"), state=_adafactor
    ),
    "rmsprop": Optimizer(class_name="RMSprop", elementwise=True, options=RMSPROP, state=_rmsprop),
    "muon": Optimizer(
        class_name="Muon",
        options=("momentum", "nesterov", "ns_coefficients", "eps", "ns_steps"),
    ),
    "lion": Optimizer(
        class_name="Lion",
        elementwise=True,
        modules=("lion_pytorch", *BITSANDBYTES),
        options=("betas",),
        state=_lion,
    ),
    "adam8bit": _bitsandbytes("Adam8bit", 2, options=("betas", "eps")),
    "adamw8bit": _bitsandbytes("AdamW8bit", 2, options=("betas", "eps")),
    "adagrad8bit": _bitsandbytes("Adagrad8bit", 1, options=("eps",)),
    "rmsprop8bit": _bitsandbytes("RMSprop8bit", 1, options=("alpha", "eps", "momentum")),
    "lion8bit": _bitsandbytes("Lion8bit", 1, options=("betas",)),
    "sgdm8bit": _bitsandbytes(
        "SGD8bit", 1, implied=MOMENTUM, options=("momentum", "dampening", "nesterov")
    ),
}
ELEMENTWISE = tuple(name for name, optimizer in OPTIMIZERS.items() if optimizer.elementwise)
FUSED = tuple(name for name, optimizer in OPTIMIZERS.items() if optimizer.fused)


def find(name: str) -> Optimizer:
    """The entry of OPTIMIZERS for `name`. Raises UserError for an unknown name."""
    if name not in OPTIMIZERS:
        raise UserError(f"unknown optimizer {name!r}{nearest(name, OPTIMIZERS)}")
    return OPTIMIZERS[name]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises UserError for an unknown optimizer, and for an option that the optimizer does not have."""
    valid = find(name).options
    for option in options:
        if option in SHARED:
            raise UserError(f"{option} is a setting of the training, not an option of an optimizer")
        if option not in valid:
            raise UserError(f"optimizer {name} has no option {option}{nearest(option, valid)}")
