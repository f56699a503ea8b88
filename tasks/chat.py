"""Conversations in the form of a model's chat template; what the assistant says in them is learnt."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import torch
from transformers import PreTrainedTokenizerBase

from tasks import batches
from tasks.base import Collate, Rows, TaskError
from tasks.chat_config import TEMPLATES, ChatConfig
from tasks.language_model import Response

ROLES = {
    **{role: role for role in ("system", "user", "assistant")},
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant"},
}
"""Roles as the data may name them -> as templates do."""
KEYS = (("role", "content"), ("from", "value"))
"""The keys of a message: OpenAI's, ShareGPT's."""

Message = dict[str, str]


class Chat(Response):
    """Scored as a response is, over the tokens of all that the assistant says in a conversation.

    Features: `input_ids` up to the end of the assistant's last answer, `answer_lengths`, the number of tokens
    from the start of its first one, and `counted`, which of these are the assistant's (0 or 1).
    """

    config: ChatConfig  # type: ignore[assignment]
    prompted = False

    def tokens(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return batch["counted"].sum(-1)

    def check(self, rows: Rows) -> None:
        self.column(rows, self.config.messages)

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        names = ("input_ids", "answer_lengths", "counted", "truncated", "needs")
        features: dict[str, list[Any]] = {name: [] for name in names}
        for at, messages in enumerate(self.conversations(rows)):
            ids, of_answers = self.encoded(messages, tokenizer, at)
            needs, first = len(ids), of_answers.index(1)
            if not first:
                raise TaskError(f"{self.config.name}: there is no token before the answer", at)
            last_answer = of_answers[::-1].index(
                0
            )  # its number of tokens, with one before it to fit in
            cut = last_answer < max_length < needs
            if cut:
                start = ids[:1] if ids[0] == tokenizer.bos_token_id else ids[-max_length:][:1]
                ids = start + ids[1 - max_length :]
                of_answers = [0, *of_answers[1 - max_length :]]  # nothing is before the first
                first = of_answers.index(1)
            features["input_ids"].append(ids)
            features["answer_lengths"].append(len(ids) - first)
            features["counted"].append(of_answers[first:])
            features["truncated"].append(cut)
            features["needs"].append(needs)
        return features

    def encoded(
        self, messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, at: int
    ) -> tuple[list[int], list[int]]:
        """The tokens of a conversation up to the end of the last answer, and 1 for those of answers, else 0.

        A token that an answer shares with what is around it is the answer's. `at`: the row, for messages.
        """
        text, answers = self.rendered(messages, tokenizer, at)
        whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        of_answers = [
            int(any(start < last and first < end for first, last in answers) and start < end)
            for start, end in whole["offset_mapping"]
        ]
        if 1 not in of_answers:
            raise TaskError(f"{self.config.name}: no token of an answer", at)
        end = len(of_answers) - of_answers[::-1].index(1)
        return whole["input_ids"][:end], of_answers[:end]

    def rendered(
        self, messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, at: int
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and the first and last character (exclusive) of each answer in it.

        An answer begins where the text of the messages before it ends, with what the template puts before a
        reply, and ends with what the template puts after it, but for white space behind such a mark.
        """
        template = self.config.template
        template = TEMPLATES.get(template, template) if template else tokenizer.chat_template
        if not template:
            raise TaskError(
                f"{self.config.name}: the model's tokenizer has no chat template: give template: one of "
                f"{', '.join(TEMPLATES)}, or a file in Jinja"
            )

        def render(count: int, reply: bool = False) -> str:
            some: Any = list(messages[:count])
            rendered: Any = tokenizer.apply_chat_template(
                some, chat_template=template, tokenize=False, add_generation_prompt=reply
            )
            return str(rendered)

        try:
            text, answers = render(len(messages)), []
            for number, message in enumerate(messages):
                if message["role"] != "assistant":
                    continue
                before, after = render(number, reply=True), render(number + 1)
                if not (text.startswith(after) and after.startswith(before)):
                    raise TaskError(
                        f"{self.config.name}: the chat template does not render message {number} as the "
                        "whole conversation has it, so its answer cannot be told apart",
                        at,
                    )
                answer = after[len(before) :]
                if not answer.rstrip().endswith(message["content"].strip()):  # there is an end mark
                    answer = answer.rstrip()
                answers.append((len(before), len(before) + len(answer)))
        except jinja2.TemplateError as error:
            reason = " ".join(str(error).split())
            raise TaskError(
                f"{self.config.name}: the chat template refuses it: {reason}", at
            ) from None
        return text, answers

    def conversations(self, rows: Rows) -> list[list[Message]]:
        """The messages of each row. Raises TaskError for a row that is no conversation with an answer."""
        found = []
        for at, value in enumerate(self.column(rows, self.config.messages)):
            place = f"{self.config.name}: column {self.config.messages}"
            if not isinstance(value, list | tuple) or not value:
                raise TaskError(f"{place}: {value!r} is no list of messages", at)
            messages = [self.message(m, f"{place}: message {n}", at) for n, m in enumerate(value)]
            if all(message["role"] != "assistant" for message in messages):
                raise TaskError(f"{place}: no message is the assistant's", at)
            found.append(messages)
        return found

    def message(self, value: Any, place: str, at: int) -> Message:
        """One message as role and content. `place` and `at`: where it is, for messages about errors."""
        keys = next((k for k in KEYS if isinstance(value, Mapping) and {*k} <= value.keys()), None)
        if keys is None:
            raise TaskError(
                f"{place}: {value!r} has neither role and content nor from and value", at
            )
        role, content = (value[key] for key in keys)
        if role not in ROLES:
            raise TaskError(f"{place}: {keys[0]} {role!r} is none of {', '.join(ROLES)}", at)
        if not isinstance(content, str) or (ROLES[role] == "assistant" and not content.strip()):
            raise TaskError(f"{place}: {keys[1]} {content!r} is no text", at)
        return {"role": ROLES[role], "content": content}

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        pad = super().collator(tokenizer)

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            counted = batches.padded([feature["counted"] for feature in features], 0, "left")
            return pad(features) | {"counted": counted}

        return collate

    def references(self, rows: Rows) -> list[int]:
        """The number of words of each conversation's answers."""
        return [
            sum(len(m["content"].split()) for m in messages if m["role"] == "assistant")
            for messages in self.conversations(rows)
        ]
