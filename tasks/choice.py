"""Choice with a head: each candidate gets one logit beside the rest of its row, and a softmax decides."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import prompts
from tasks.base import Collate, Rows, TaskError, each
from tasks.candidates import Candidates, over_candidates
from tasks.config import ChoiceConfig


class Choice(Candidates):
    """Candidates, references and score are those of `Candidates`; the loss is the cross-entropy over a row's
    candidates. A head of one label scores them, so that every family with a classification head will do."""

    config: ChoiceConfig  # type: ignore[assignment]  # what it inherits reads `candidates` alone
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
                of_one = {**row, "candidate": candidate}
                firsts.append(self.render(first, of_one, at))
                seconds.append(self.render(second, of_one, at))
                candidates.append(candidate)
                owners.append(at)
        special = tokenizer.num_special_tokens_to_add(pair=True)
        room = max_length - special - 1  # one token of the first text is left
        if room < 1:
            raise TaskError(
                f"{self.config.name}: max_length {max_length} has no room for two texts: raise max_length"
            )
        needs = [0] * len(labels)
        cut, lost = ([False] * len(labels) for _ in range(2))
        for place, ids in enumerate(tokenizer(seconds, add_special_tokens=False)["input_ids"]):
            at = owners[place]
            needs[at] = max(needs[at], len(ids) + special + 1)
            if len(ids) > room:
                seconds[place] = prompts.ending(seconds[place], room, tokenizer)
                cut[at] = True
                lost[at] |= candidates[place] not in seconds[place]
        encoded = tokenizer(firsts, seconds, truncation="only_first", max_length=max_length)
        self.check_left(encoded.encodings, self.config.inputs, owners)
        names = [name for name in tokenizer.model_input_names if name in encoded]
        features: dict[str, list[Any]] = {name: [[] for _ in labels] for name in names}
        features |= {"labels": labels, "needs": needs}
        for place, at in enumerate(owners):
            for name in names:
                features[name][at].append(encoded[name][place])
            cut[at] |= bool(encoded.encodings[place].overflowing)
        pairs = zip(cut, lost, strict=True)
        features["truncated"] = [shorter and not gone for shorter, gone in pairs]
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

    def scores(
        self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor], at_once: int
    ) -> torch.Tensor:
        """The logit (N,) of every candidate, `at_once` of them in one forward pass."""
        inputs = {name: ids for name, ids in batch.items() if name not in ("counts", "labels")}
        parts = zip(*(tensor.split(at_once) for tensor in inputs.values()), strict=True)
        logits = [model(**dict(zip(inputs, part, strict=True))).logits for part in parts]
        return torch.cat(logits).squeeze(-1).float()
