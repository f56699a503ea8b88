"""Choice with a classification head: one logit per candidate, and a softmax over a row's candidates."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import prompts
from tasks.base import Collate, Rows, TaskError, each
from tasks.candidates import Candidates, over_candidates
from tasks.config import ChoiceConfig


class Choice(Candidates):
    """Candidates, references and scores are those of `Candidates`. The loss is the cross-entropy over a row's
    candidates. The head has one label, so every model with a sequence classification head can be used.
    """

    config: ChoiceConfig  # type: ignore[assignment]  # the inherited methods read only `candidates`
    head = "sequence_classification"
    prompted = False

    def model_arguments(self) -> dict[str, Any]:
        return {"num_labels": 1}

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        first, second = self.config.inputs
        labels = self.right(rows)
        self.check_columns(self.config.inputs, rows)
        firsts, seconds, candidates, owners = [], [], [], []
        for at, row in enumerate(each(rows)):
            for candidate in self.candidates(row, at):
                fields = {**row, "candidate": candidate}
                firsts.append(self.render(first, fields, at))
                seconds.append(self.render(second, fields, at))
                candidates.append(candidate)
                owners.append(at)
        special = tokenizer.num_special_tokens_to_add(pair=True)
        room = max_length - special - 1  # at least one token of the first text must fit
        if room < 1:
            raise TaskError(
                f"{self.config.name}: max_length {max_length} has no room for two texts: raise max_length"
            )
        needs = [0] * len(labels)
        cut, lost = ([False] * len(labels) for _ in range(2))
        for number, ids in enumerate(tokenizer(seconds, add_special_tokens=False)["input_ids"]):
            at = owners[number]
            needs[at] = max(needs[at], len(ids) + special + 1)
            if len(ids) > room:
                seconds[number] = prompts.ending(seconds[number], room, tokenizer)
                cut[at] = True
                lost[at] |= candidates[number] not in seconds[number]
        encoded = tokenizer(firsts, seconds, truncation="only_first", max_length=max_length)
        self.check_left(encoded.encodings, self.config.inputs, owners)
        names = [name for name in tokenizer.model_input_names if name in encoded]
        features: dict[str, list[Any]] = {name: [[] for _ in labels] for name in names}
        features |= {"labels": labels, "needs": needs}
        for number, at in enumerate(owners):
            for name in names:
                features[name][at].append(encoded[name][number])
            cut[at] |= bool(encoded.encodings[number].overflowing)
        pairs = zip(cut, lost, strict=True)
        features["truncated"] = [is_cut and not is_lost for is_cut, is_lost in pairs]
        return features

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            names = [name for name in tokenizer.model_input_names if name in features[0]]
            flat = {name: [ids for f in features for ids in f[name]] for name in names}
            batch = dict(tokenizer.pad(flat, return_tensors="pt"))
            batch["counts"] = torch.tensor([len(feature[names[0]]) for feature in features])
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
            return batch

        return collate

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        scores = self.scores(model, batch, len(batch["input_ids"]))
        return over_candidates(scores, batch["counts"], batch["labels"])

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        return len(batch["counts"])

    def scores(
        self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor], at_once: int
    ) -> torch.Tensor:
        """The logit (N,) of each of the N candidates; `at_once` are in one forward pass."""
        inputs = {name: ids for name, ids in batch.items() if name not in ("counts", "labels")}
        parts = zip(*(tensor.split(at_once) for tensor in inputs.values()), strict=True)
        logits = [model(**dict(zip(inputs, part, strict=True))).logits for part in parts]
        return torch.cat(logits).squeeze(-1).float()
