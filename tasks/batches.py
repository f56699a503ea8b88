"""Padded tensors of token ids, and the likelihood of the answer at the end of each sequence."""

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from tasks.chunked import IGNORED, token_losses

Batch = dict[str, torch.Tensor]


def padded(sequences: Sequence[Sequence[int]], value: int, side: str) -> torch.Tensor:
    """An int64 tensor (N, L), L the longest length. `value` pads the sequences on `side` (left or right)."""
    longest = max(map(len, sequences))
    rows = []
    for sequence in sequences:
        fill = [value] * (longest - len(sequence))
        rows.append([*fill, *sequence] if side == "left" else [*sequence, *fill])
    return torch.tensor(rows, dtype=torch.long)


def inputs(sequences: Sequence[Sequence[int]], pad_id: int, side: str = "left") -> Batch:
    """`input_ids` and `attention_mask`, both int64 (N, L).

    Inputs of a causal model are padded on the left, so that all answers end in the last column.
    """
    mask = padded([[1] * len(sequence) for sequence in sequences], 0, side)
    return {"input_ids": padded(sequences, pad_id, side), "attention_mask": mask}


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids (N, L) that start at 0 at the first token of each row, after any padding on the left."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def answer_log_probs(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    lengths: torch.Tensor,
    *,
    seen: torch.Tensor | None = None,
    counted: torch.Tensor | None = None,
    chunked: bool = False,
) -> torch.Tensor:
    """Log-probabilities (N, A) of the answer tokens: the last `lengths` (N,) tokens of each row.

    A is the longest answer. Entries before a shorter answer are 0. `ids` and `mask` (N, L) are padded on the
    left. Logits are computed for the last A + 1 positions only, so their memory does not grow with the
    prompt. `seen` (N, L) are the ids that the model reads, if these are not `ids`. `counted` (N, A) is 0 for
    tokens that are left out, with 0 as their log-probability. chunked: logits are computed in chunks (see
    `tasks.chunked`).
    """
    longest = int(lengths.max())
    targets = ids[:, -longest:]
    inputs = {
        "input_ids": ids if seen is None else seen,
        "attention_mask": mask,
        "position_ids": positions(mask),
        "logits_to_keep": longest + 1,
    }
    place = torch.arange(longest, device=ids.device)
    in_answer = place >= longest - lengths[:, None]
    if counted is not None:
        in_answer = in_answer & counted.bool()
    if chunked:
        return -token_losses(model, targets.where(in_answer, IGNORED), inputs)
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="none"
    )
    return -losses.view_as(targets) * in_answer
