"""Layer units: a model's parameters cut, bottom to top, into embeddings, each block, head.

The units come from the module tree alone, so the model may be on the meta device. A *block* is an element of
an outermost list of repeated layers. Modules that embed tokens or positions, and the norms and projections of
these, are `embeddings`. The rest is the `head`. Every parameter is in exactly one unit. A tied weight is in
the lowest unit that uses it, so an lm_head.weight tied to the token embeddings is in `embeddings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from torch import nn

from benchmark.errors import UserError, nearest

EMBEDS = re.compile(r"(^|[._])emb|embed(ding)?s?($|[._])")
"""Names of modules that belong to the embeddings. BART's layernorm_embedding, a norm registered after the
blocks, is told from a final norm only by its name."""


@dataclass(frozen=True)
class Unit:
    """One layer unit. `parameters` are names as in `model.named_parameters()`, in that order."""

    name: str
    parameters: tuple[str, ...]
    numel: int
    kind: str  # "embeddings" | "block" | "head"


def find_units(
    model: nn.Module, *, trainable_only: bool = False, split_head: bool = False
) -> tuple[Unit, ...]:
    """Cut `model` into units, bottom to top; every parameter is in exactly one of them.

    trainable_only: leave out parameters with requires_grad False (a PEFT-wrapped model's base), and
    units without any other. split_head: one unit per head module (LLaMA: final norm, lm_head),
    as the authors' code counts them. Raises UserError for a model without repeated blocks.
    """
    tree = _Tree(model)
    names: dict[int, str] = {}
    places: dict[int, tuple[int, str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key, place = id(parameter), tree.place(name)
        names.setdefault(key, name)
        tensors.setdefault(key, parameter)
        places[key] = min(places.get(key, place), place, key=lambda p: p[0])
    keys = [k for k in names if tensors[k].requires_grad or not trainable_only]
    if not keys:
        raise UserError(f"every parameter of {type(model).__name__} is frozen; nothing to train")
    by_place = sorted(keys, key=lambda k: places[k][0])
    units = []
    for index, members in groupby(by_place, key=lambda k: places[k][0]):
        parts: dict[str, list[int]] = {}
        for k in members:
            is_head = index > len(tree.blocks)
            parts.setdefault(places[k][1] if split_head and is_head else "", []).append(k)
        for part, ids in parts.items():
            kind = "embeddings" if index == 0 else "head" if index > len(tree.blocks) else "block"
            label = tree.blocks[index - 1] if kind == "block" else (part or kind)
            numel = sum(tensors[k].numel() for k in ids)
            units.append(Unit(label, tuple(names[k] for k in ids), numel, kind))
    return tuple(units)


def check_units(units: Sequence[Unit], parameters: Mapping[str, nn.Parameter]) -> None:
    """Raise UserError that names a parameter if it is missing, unknown or in two units."""
    seen: dict[str, str] = {}
    for unit in units:
        if not unit.parameters:
            raise UserError(f'unit "{unit.name}" holds no parameter')
        for name in unit.parameters:
            if name not in parameters:
                raise UserError(
                    f'unit "{unit.name}" names "{name}", which is no trainable parameter of the '
                    f"model{nearest(name, parameters)}"
                )
            if name in seen:
                raise UserError(
                    f'parameter "{name}" is in two units: "{seen[name]}", "{unit.name}"'
                )
            seen[name] = unit.name
    left = [name for name in parameters if name not in seen]
    if left:
        raise UserError(f"{len(left)} trainable parameters are in no unit: {', '.join(left[:5])}")


class _Tree:
    """The position of each parameter of a model: 0 for embeddings, i for the i-th block, n + 1 for the
    head."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules(remove_duplicate=False))
        chains = list(_chains(model, "", composite=True)) or list(_chains(model, "", False))
        if not chains:
            raise UserError(
                f"{type(model).__name__} holds no list of repeated blocks (nn.ModuleList or "
                "nn.Sequential); pass units=... to say what its layers are"
            )
        self.chains = [[path for path, _ in blocks] for blocks in chains]
        self.blocks = list(chain.from_iterable(self.chains))
        self._index = {path: i for i, path in enumerate(self.blocks, start=1)}
        self._above = {prefix for path in self.blocks for prefix in _prefixes(path)} - {
            *self.blocks
        }

    def place(self, name: str) -> tuple[int, str]:
        """(position, path of the outermost module that has the parameter and contains no block)."""
        for prefix in _prefixes(name):
            if prefix in self._index:
                return self._index[prefix], prefix
        outer = next(prefix for prefix in _prefixes(name) if prefix not in self._above)
        if self._is_embedding(outer, name):
            return 0, outer
        return self._closing(outer.rpartition(".")[0]), outer

    def _closing(self, parent: str) -> int:
        """The position of the head or, for the final norm of an encoder, of the last block before that
        norm."""
        inside = [blocks for blocks in self.chains if blocks[0].startswith(_dot(parent))]
        return len(self.blocks) + 1 if self.chains[-1] in inside else self._index[inside[-1][-1]]

    def _is_embedding(self, outer: str, name: str) -> bool:
        module = self.modules.get(outer)
        if module is not None and any(isinstance(m, nn.Embedding) for m in module.modules()):
            return True
        parent, _, own = outer.rpartition(".")
        siblings = dict(self.modules[parent].named_children())
        owner = self.modules.get(name.rpartition(".")[0])
        tokens = max(
            (m for m in self.modules.values() if isinstance(m, nn.Embedding)),
            key=lambda m: m.num_embeddings,
            default=None,
        )
        if isinstance(owner, nn.Linear) and tokens is not None:
            if owner.out_features == tokens.num_embeddings:
                return False  # maps onto the vocabulary: GPT-NeoX's output head is `embed_out`
            wider = owner.in_features == tokens.embedding_dim < owner.out_features
            if wider and tokens in siblings.values():
                return True  # OPT-350m's project_in, beside the tokens it widens
        if EMBEDS.search(name[len(_dot(parent)) :].lower()):
            return True
        return self._follows_late_embedding(own, siblings)

    @staticmethod
    def _follows_late_embedding(own: str, siblings: dict[str, nn.Module]) -> bool:
        """Whether the module is the norm directly after an embedding that is registered after the blocks, as
        DeBERTa's relative positions are."""
        order = list(siblings)
        i = order.index(own) if own in order else 0
        lists = [j for j, m in enumerate(siblings.values()) if isinstance(m, nn.ModuleList)]
        before = siblings[order[i - 1]] if i else None
        late = isinstance(before, nn.Embedding) and bool(lists) and lists[0] < i - 1
        return late and not list(siblings[own].children())


def _chains(module: nn.Module, path: str, composite: bool) -> Iterator[list[tuple[str, nn.Module]]]:
    """The outermost lists of layers in `module`. composite: only lists whose layers have submodules."""
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        blocks = list(_elements(module, path))
        if blocks and all(list(m.children()) for _, m in blocks) if composite else len(blocks) > 1:
            yield blocks
            return
    for name, child in module.named_children():
        yield from _chains(child, _dot(path) + name, composite)


def _elements(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a list that have parameters. A list of lists counts as one list."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from _elements(child, _dot(path) + name)
        elif next(child.parameters(), None) is not None:
            yield _dot(path) + name, child


def _dot(path: str) -> str:
    return f"{path}." if path else ""


def _prefixes(name: str) -> Iterator[str]:
    """The prefixes of a path: a, a.b and a.b.c for a.b.c."""
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts) + 1))
