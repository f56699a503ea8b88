"""Training: the training step whose memory is simulated or measured, with the suite's own strategies.

It runs on real tensors, or on fake ones without storage under a FakeTensorMode.
"""

import contextlib
from typing import Any

import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark.engine import find_units
from benchmark.errors import UserError
from benchmark.measure.load_peak import LoadPeak
from benchmark.memory.setting import Setting
from benchmark.models import shapes
from benchmark.models.checkpointing import recompute_activations
from benchmark.models.facts import HEADS
from benchmark.models.precision import autocast
from benchmark.models.registry import source
from benchmark.strategies.base import TuningStrategy
from tasks.chunked import token_losses


class Training:
    """A model with random weights, its strategy's optimizer, and one batch of full length.

    One token of the batch is padding, so that the model builds an attention mask as for any padded batch.
    There is no key-value cache. Raises UserError for a model, strategy or length that cannot be trained.
    """

    def __init__(
        self, setting: Setting, device: str = "cpu", *, fake: FakeTensorMode | None = None
    ) -> None:
        """`fake`: a mode under which no tensor is allocated."""
        self.setting, self.device = setting, torch.device(device)
        with torch.device("meta" if fake else "cpu"):
            self._strategy = strategy = self._prepare()
        with fake or contextlib.nullcontext():
            if fake:
                _fill(self.model)
            self._load(strategy)
            self.batch = self._batch()
        scaled = setting.precision == "fp16" and self.device.type == "cuda"
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)

    def _prepare(self) -> TuningStrategy:
        setting, base = self.setting, build(self.setting).train()
        base.config.use_cache = False
        if base.config.pad_token_id is None:
            base.config.pad_token_id = 0
        _check_length(base, setting)
        self._head, self._regression = head(type(base), base.config), base.config.num_labels == 1
        if setting.loss == "chunked" and self._head != "causal_lm":
            raise UserError(
                f"loss: chunked is for causal LMs, and {setting.model} has a head {self._head}: use whole"
            )
        strategy = setting.built()
        if setting.checkpointing and not strategy.recomputes:
            recompute_activations(base)
        self.model = strategy.prepared(base).train()
        if not any(p.requires_grad for p in self.model.parameters()):
            raise UserError(f"strategy {setting.strategy} trains nothing, so it has no step")
        return strategy

    def _load(self, strategy: TuningStrategy) -> None:
        """Move the model to the device and build its optimizer, as a run does."""
        with LoadPeak(self.model, self.device) as peak:
            if self.device.type != "cpu":  # fake tensors stay on the cpu
                self.model.to(self.device)
            self.optimizer, _ = strategy.optimizer(self.model, 10**6)
            peak.built(self.optimizer)
        self.load_peak = peak.bytes

    def _batch(self) -> dict[str, torch.Tensor]:
        shape = (self.setting.batch_size, self.setting.seq_len)
        ids = torch.full(shape, 5, device=self.device)
        mask = torch.ones_like(ids)
        mask[0, -1] = 0
        batch = {"input_ids": ids, "attention_mask": mask}
        if self._head == "question_answering":
            place = torch.zeros_like(ids[:, 0])
            return batch | {"start_positions": place, "end_positions": place.clone()}
        labels = torch.zeros_like(ids)
        if self._head == "sequence_classification":
            labels = torch.zeros(shape[0], device=self.device)
            labels = labels if self._regression else labels.long()
        return batch | {"labels": labels}

    def forward(self) -> torch.Tensor:
        """The loss, with its graph."""
        with autocast(self.setting.precision, self.device):
            return self._strategy.loss(self.model, self._loss)

    def _loss(self) -> torch.Tensor:
        """The loss of the weights as they are; a causal LM learns every token but the first."""
        if self.setting.loss == "whole":
            loss: torch.Tensor = self.model(**self.batch).loss
            return loss
        inputs = dict(self.batch)
        return token_losses(self.model, inputs.pop("labels")[:, 1:], inputs).mean()

    def backward(self, loss: torch.Tensor) -> None:
        self._scaler.scale(loss).backward()

    def update(self) -> None:
        """The optimizer's step, after which all gradients are freed."""
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Forward, backward and update."""
        self.backward(self.forward())
        self.update()


def build(setting: Setting) -> Any:
    """The model with random weights on torch's default device.

    Raises UserError if the config names an architecture without one of HEADS or without the given attention.
    """
    transformers.logging.set_verbosity_error()
    kind, config = _class_and_config(setting)
    if head(kind, config) is None:
        raise UserError(f"model {setting.model}: {kind.__name__} has no head of {', '.join(HEADS)}")
    if setting.attention is not None:
        config._attn_implementation = setting.attention
    try:
        return _lowest_blocks(kind(config), setting.blocks)
    except ValueError as error:
        if "attention" in str(error):
            reason = f"{kind.__name__} has no {setting.attention} attention in transformers"
        else:
            reason = str(error).splitlines()[0]
        raise UserError(f"model {setting.model}: {reason}") from None


def _lowest_blocks(model: Any, count: int | None) -> Any:
    """The model without the blocks above the `count` lowest; None leaves it as it is."""
    if count is not None:
        names = [unit.name for unit in find_units(model) if unit.kind == "block"]
        layers = model.get_submodule(names[0].rpartition(".")[0])
        del layers[count:]
    return model


def head(kind: type, config: Any) -> str | None:
    """The key of HEADS whose model for `config` is the class `kind`; None if there is none."""
    for name, auto in HEADS.items():
        models = getattr(transformers, auto)._model_mapping
        if type(config) in models and models[type(config)] is kind:
            return name
    return None


def _class_and_config(setting: Setting) -> tuple[Any, Any]:
    if setting.head is None:
        named, config = shapes.config(setting.model)
        return getattr(transformers, named), config
    if setting.model in shapes.SHAPES:
        config = shapes.config(setting.model)[1]
    else:
        location = source(setting.model, None).location
        try:
            config = transformers.AutoConfig.from_pretrained(location)
        except (OSError, ValueError) as error:
            raise UserError(f"model {setting.model}: {str(error).splitlines()[0]}") from None
    mapping = getattr(transformers, HEADS[setting.head])._model_mapping
    if type(config) not in mapping:
        raise UserError(
            f"model {setting.model}: its family {config.model_type} has no head {setting.head}"
        )
    config.num_labels = setting.labels
    return mapping[type(config)], config


def longest(model: nn.Module) -> int | None:
    """The longest input in tokens that the model's positions allow; None without a limit."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name and module.padding_idx:
            return module.num_embeddings - module.padding_idx - 1  # RoBERTa's first position
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    return limit


def _fill(model: nn.Module) -> None:
    """Replace each of the model's meta tensors by an empty CPU tensor; tied ones stay tied."""
    replaced: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        kinds: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in kinds:
            for name, tensor in tensors.items():
                if tensor is not None and tensor not in replaced:
                    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
                    if isinstance(tensor, nn.Parameter):
                        empty = nn.Parameter(empty, tensor.requires_grad)
                    replaced[tensor] = empty
                if tensor is not None:
                    tensors[name] = replaced[tensor]


def _check_length(model: nn.Module, setting: Setting) -> None:
    limit = longest(model)
    added = setting.built().added_positions
    if limit is not None and setting.seq_len + added > limit:
        length = (
            f"{setting.seq_len} and {added} of the strategy are"
            if added
            else f"{setting.seq_len} is"
        )
        raise UserError(f"seq_len: {length} more than the {limit} positions of {setting.model}")
