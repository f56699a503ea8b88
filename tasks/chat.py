"""Conversations in the form of a model's chat template; what the assistant says or calls is learnt."""

import json
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
    **{role: role for role in ("system", "user", "assistant", "tool")},
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant"},
}
"""Roles as the data may name them -> as templates do."""
KEYS = (("role", "content"), ("from", "value"))
"""The keys of a message: OpenAI's, ShareGPT's."""
OF_TOOLS = ("tool_calls", "tool_call_id", "name")
"""Further keys of OpenAI's messages, which a template gets as they are."""

Message = dict[str, Any]


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
        for name in self.config.inputs_read:
            self.column(rows, name)

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        names = ("input_ids", "answer_lengths", "counted", "truncated", "needs")
        features: dict[str, list[Any]] = {name: [] for name in names}
        tools = self.tools(rows)
        for at, messages in enumerate(self.conversations(rows)):
            ids, of_answers = self.encoded(messages, tokenizer, at, tools[at])
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
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerBase,
        at: int,
        tools: Sequence[Any] | None = None,
    ) -> tuple[list[int], list[int]]:
        """The tokens of a conversation up to the end of the last answer, and 1 for those of answers, else 0.

        A token that an answer shares with what is around it is the answer's. at: the row, for messages.
        tools: the schemas of the functions that the assistant may call.
        """
        text, answers = self.rendered(messages, tokenizer, at, tools)
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
        self,
        messages: Sequence[Message],
        tokenizer: PreTrainedTokenizerBase,
        at: int,
        tools: Sequence[Any] | None = None,
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
                some,
                tools=list(tools) if tools else None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=reply,
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
                for call in message.get("tool_calls", ()):
                    if call["function"]["name"] not in answer:
                        raise TaskError(
                            f"{self.config.name}: the chat template does not show the tool calls of "
                            f"message {number}: give one that does as template",
                            at,
                        )
                said = message["content"].strip()
                if not (said and answer.rstrip().endswith(said)):  # there is an end mark
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
        # rows of one type have every key of any row, with None where a row has none
        of_tools = {key: value[key] for key in OF_TOOLS if value.get(key)}
        if "tool_calls" in of_tools:
            calls = of_tools["tool_calls"]
            of_tools["tool_calls"] = [_tool_call(c, f"{place}: tool_calls", at) for c in calls]
            content = content or ""
        silent = ROLES[role] == "assistant" and "tool_calls" not in of_tools
        if not isinstance(content, str) or (silent and not content.strip()):
            raise TaskError(f"{place}: {keys[1]} {content!r} is no text", at)
        return {"role": ROLES[role], "content": content, **of_tools}

    def tools(self, rows: Rows) -> list[list[Any] | None]:
        """The schemas of functions that each row offers: a list, as such or as text in JSON; None without."""
        name = self.config.tools
        if name is None:
            return [None] * len(self.column(rows, self.config.messages))
        found = []
        for at, value in enumerate(self.column(rows, name)):
            place = f"{self.config.name}: column {name}"
            tools = _parsed(value, place, at) if isinstance(value, str) else value
            if not isinstance(tools, list | tuple | None):
                raise TaskError(f"{place}: {value!r} is no list of tools", at)
            found.append(list(tools) if tools else None)
        return found

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        pad = super().collator(tokenizer)

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            counted = batches.padded([feature["counted"] for feature in features], 0, "left")
            return pad(features) | {"counted": counted}

        return collate

    def references(self, rows: Rows) -> list[int]:
        """The number of words of each conversation's answers, tool calls as JSON included."""
        return [
            sum(_words(m) for m in messages if m["role"] == "assistant")
            for messages in self.conversations(rows)
        ]


def _words(message: Message) -> int:
    calls = (json.dumps(call["function"]) for call in message.get("tool_calls", ()))
    return sum(len(text.split()) for text in (message["content"], *calls))


def _tool_call(value: Any, place: str, at: int) -> dict[str, Any]:
    """A call as templates want it: the arguments as values, which OpenAI's data have as text in JSON."""
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise TaskError(f"{place}: {value!r} has no function with a name", at)
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = _parsed(arguments, place, at)
    return {**value, "function": {**function, "arguments": arguments}}


def _parsed(text: str, place: str, at: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place}: {text!r} is no JSON: {error}", at) from None
