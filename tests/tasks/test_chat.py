"""Chat data: the learnt tokens against transformers' mask and texts written out; loss, cuts, bad rows."""

import pytest
import torch
from torch.nn import functional

from benchmark.models import registry
from tasks import base, own
from tasks.chat_config import TEMPLATES

TALKS = [
    [("user", "Hi there"), ("assistant", "hello, you")],
    [
        ("system", "be kind"),
        ("user", " 1 + 1? "),
        ("assistant", "two\n"),
        ("user", "é?"),
        ("assistant", "  no: ü"),
        ("user", "bye"),
    ],
]
MARKED = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content | trim + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m.content | trim + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama": "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m.role + '<|end|>\n\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<|eot|>' }}{% endgeneration %}"
    "{% else %}{{ m.content | trim + '<|eot|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}",
}
"""Chat templates that mark what the assistant says."""


def adapter(template="plain", **more):
    content = {
        "adapter": "chat",
        "messages": "talk",
        "metrics": ["perplexity"],
        "main": "perplexity",
    }
    content |= {"higher_is_better": False, "dataset": {"id": "a", "config": "b", "revision": "c"}}
    sides = {"splits": {"train": "t", "eval": "e"}, "sizes": {"train": 1, "eval": 1}}
    content["dataset"] |= sides
    return base.adapter(
        base.parse("chat", own.DEFAULTS | content | {"template": template} | more, "made up")
    )


@pytest.fixture(scope="module")
def source():
    return registry.source("tiny-gpt2")


@pytest.fixture(scope="module")
def tokenizer(source):
    return registry.load_tokenizer(source)


def openai(talks=TALKS):
    return {"talk": [[{"role": r, "content": c} for r, c in talk] for talk in talks]}


def sharegpt(talks=TALKS):
    names = {"user": "human", "assistant": "gpt"}
    return {"talk": [[{"from": names.get(r, r), "value": c} for r, c in talk] for talk in talks]}


@pytest.mark.parametrize("name", MARKED)
def test_the_tokens_are_those_that_transformers_masks(tokenizer, name):
    chat = adapter(MARKED[name])
    for at, messages in enumerate(chat.conversations(openai())):
        ids, of_answers = chat.encoded(messages, tokenizer, at)
        theirs = tokenizer.apply_chat_template(
            messages,
            chat_template=MARKED[name],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        mask = theirs["assistant_masks"]
        assert ids == theirs["input_ids"][: len(ids)]
        assert of_answers == mask[: len(ids)] and not any(mask[len(ids) :]) and sum(mask) > 4


WRITTEN = {
    "plain": (
        "### System:\nbe kind\n\n### User:\n1 + 1?\n\n### Assistant:\ntwo{end}\n\n### User:\né?\n\n"
        "### Assistant:\nno: ü{end}",
        "two{end}no: ü{end}",
    ),
    "chatml": (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
        "two<|im_end|>\n<|im_start|>user\né?<|im_end|>\n<|im_start|>assistant\nno: ü<|im_end|>",
        "two<|im_end|>no: ü<|im_end|>",
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_named_template_renders_what_is_written_out(tokenizer, name):
    chat = adapter(name)
    ids, of_answers = chat.encoded(chat.conversations(openai())[1], tokenizer, 1)
    whole, learnt = (text.format(end=tokenizer.eos_token) for text in WRITTEN[name])
    assert tokenizer.decode(ids).removeprefix(tokenizer.bos_token or "") == whole
    counted = [token for token, one in zip(ids, of_answers, strict=True) if one]
    assert tokenizer.decode(counted) == learnt


def test_both_forms_give_the_same_features(tokenizer):
    chat = adapter()
    first, second = (chat.encode(rows, tokenizer, 999) for rows in (openai(), sharegpt()))
    assert first == second and first["truncated"] == [False, False]
    assert chat.references(openai()) == chat.references(sharegpt()) == [2, 3]


def test_the_tokenizer_s_own_template_is_used_if_it_has_one(tokenizer, monkeypatch):
    with pytest.raises(
        base.TaskError, match=r"has no chat template: give template: one of plain, chatml"
    ):
        adapter(None).encode(openai(), tokenizer, 99)
    monkeypatch.setattr(tokenizer, "chat_template", MARKED["llama"])
    own_template = adapter(None).encode(openai(), tokenizer, 999)
    assert own_template == adapter(MARKED["llama"]).encode(openai(), tokenizer, 999)


def test_the_loss_is_over_the_answers_alone(source, tokenizer):
    """Against a loop over conversations and tokens; padding, and chunks of logits, change nothing."""
    torch.manual_seed(0)
    chat = adapter()
    model = registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval()
    features = chat.encode(openai(), tokenizer, 999)
    each = [{name: column[i] for name, column in features.items()} for i in range(2)]
    batch = chat.collator(tokenizer)(each)
    expected = []
    for at, messages in enumerate(chat.conversations(openai())):
        ids, of_answers = chat.encoded(messages, tokenizer, at)
        logits = model(torch.tensor([ids])).logits[0].detach()
        steps = [n for n, one in enumerate(of_answers) if one]
        losses = [functional.cross_entropy(logits[n - 1], torch.tensor(ids[n])) for n in steps]
        expected.append((float(sum(losses)), len(losses)))
    mean = sum(total for total, _ in expected) / sum(n for _, n in expected)
    for chat.chunked in (False, True):
        assert chat.loss(model, batch).item() == pytest.approx(mean, rel=1e-5)
        for (total, n), wanted in zip(chat.predict(model, batch, tokenizer), expected, strict=True):
            assert (total, n) == (pytest.approx(wanted[0], rel=1e-5), wanted[1])


def test_what_is_too_long_loses_its_oldest_tokens(tokenizer):
    chat = adapter("chatml")
    whole, of_answers = chat.encoded(chat.conversations(openai())[1], tokenizer, 0)
    answer = of_answers[::-1].index(0)
    rows = openai(TALKS[1:])
    for limit in (answer + 1, len(whole) - 1):
        features = chat.encode(rows, tokenizer, limit)
        assert features["input_ids"][0][1:] == whole[1 - limit :] and features["truncated"] == [
            True
        ]
        assert features["needs"] == [len(whole)]
        assert features["counted"][0][-answer:] == [1] * answer
    assert chat.encode(rows, tokenizer, answer)["truncated"] == [
        False
    ]  # `needs` says that it is too long


def talk(**message):
    return {"talk": [[{"role": "user", "content": "a"}, message]]}


CALLING = (
    "{% if tools %}{{ '<tools>' + tools | tojson + '</tools>' }}{% endif %}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}"
    "{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + ' ' + c.function.arguments.city }}"
    "{% endfor %}{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m.content | trim + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def calls(arguments='{"city": "Rome"}', **function):
    """A conversation in which the assistant calls a tool; messages have equal keys, as in files of rows."""
    none = {"tool_calls": None, "tool_call_id": None}
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": arguments} | function,
    }
    return {
        "talk": [
            [
                none | {"role": "user", "content": "Rain in Rome?"},
                none | {"role": "assistant", "content": None, "tool_calls": [call]},
                none | {"role": "tool", "content": "no", "tool_call_id": "c1"},
                none | {"role": "assistant", "content": "No rain."},
            ]
        ],
        "tools": [
            '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]'
        ],
    }


def test_tool_calls_are_learnt_and_what_tools_answer_is_not(tokenizer):
    """Against transformers' mask, and the text of what is learnt."""
    chat = adapter(CALLING, tools="tools")
    (messages,), (tools,) = chat.conversations(calls()), chat.tools(calls())
    assert tools == [WEATHER] and messages[1]["tool_calls"][0]["function"]["arguments"] == {
        "city": "Rome"
    }
    ids, of_answers = chat.encoded(messages, tokenizer, 0, tools)
    theirs = tokenizer.apply_chat_template(
        messages,
        tools=[WEATHER],
        chat_template=CALLING,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert ids == theirs["input_ids"][: len(ids)] and "<tools>" in tokenizer.decode(ids)
    assert of_answers == theirs["assistant_masks"][: len(ids)]
    learnt = tokenizer.decode([token for token, one in zip(ids, of_answers, strict=True) if one])
    assert learnt == "<call>weather Rome<|im_end|>No rain.<|im_end|>"
    assert chat.encode(calls(), tokenizer, 999)["input_ids"] == [ids]
    assert chat.references(calls()) == [
        len(["name", "weather", "arguments", "city", "Rome", "No", "rain"])
    ]


@pytest.mark.parametrize(
    ("rows", "template", "said"),
    [
        (
            calls(),
            "chatml",
            "does not show the tool calls of message 1: give one that does as template",
        ),
        (calls(arguments="{"), CALLING, "message 1: tool_calls: '{' is no JSON"),
        (calls(name=None), CALLING, "has no function with a name"),
        (calls() | {"tools": ["weather"]}, CALLING, "column tools: 'weather' is no JSON"),
        (calls() | {"tools": ['{"a": 1}']}, CALLING, "is no list of tools"),
        ({"talk": calls()["talk"]}, CALLING, "column tools is missing; the data has talk"),
    ],
)
def test_bad_tool_calls_are_said(tokenizer, rows, template, said):
    chat = adapter(template, tools="tools")
    with pytest.raises(base.TaskError) as raised:
        chat.check(rows)
        chat.encode(rows, tokenizer, 999)
    assert said in str(raised.value) and "\n" not in str(raised.value)


BAD = {
    "no list": ({"talk": ["hello"]}, "column talk: 'hello' is no list of messages"),
    "no column": ({"text": ["a"]}, "column talk is missing; the data has text"),
    "a role": (talk(role="robot", content="b"), "message 1: role 'robot' is none of system, user"),
    "keys": (talk(role="user", value="b"), "has neither role and content nor from and value"),
    "no text": (talk(role="assistant", content=None), "message 1: content None is no text"),
    "an empty answer": (talk(role="assistant", content=" "), "message 1: content ' ' is no text"),
    "no answer": (talk(role="user", content="b"), "column talk: no message is the assistant's"),
}


@pytest.mark.parametrize(("rows", "said"), BAD.values(), ids=BAD)
def test_a_bad_row_is_said(tokenizer, rows, said):
    with pytest.raises(base.TaskError) as raised:
        adapter().encode(rows, tokenizer, 99)
    assert said in str(raised.value)


TEMPLATE_FAULTS = {
    "refuses": (
        "{{ raise_exception('no system\nrole') }}",
        "the chat template refuses it: no system role",
    ),
    "no Jinja": ("{% for %}", "the chat template refuses it: "),
    "no prefix": (
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "told apart",
    ),
}


@pytest.mark.parametrize(("template", "said"), TEMPLATE_FAULTS.values(), ids=TEMPLATE_FAULTS)
def test_a_template_that_does_not_fit_is_said(tokenizer, template, said):
    with pytest.raises(base.TaskError) as raised:
        adapter(template).encode(openai(), tokenizer, 99)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_template_is_a_name_or_a_file_beside_the_task(tmp_path):
    text = "adapter: chat\nmessages: talk\nmetrics: [perplexity]\nmain: perplexity\ndata: {train: a.jsonl}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}template: mine.jinja\n")
    with pytest.raises(base.TaskError, match=r"mine\.yaml: template: mine\.jinja: no such file"):
        own.load(path)
    (tmp_path / "mine.jinja").write_text(MARKED["llama"])
    first = own.load(path)
    assert first.template == MARKED["llama"]
    (tmp_path / "mine.jinja").write_text(MARKED["chatml"])
    assert own.digest(own.load(path)) != own.digest(first)
    path.write_text(f"{text}template: chatlm\n")
    with pytest.raises(
        base.TaskError, match=r'template: no template "chatlm".*did you mean "chatml"'
    ):
        own.load(path)
