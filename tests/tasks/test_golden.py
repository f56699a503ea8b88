"""What every task makes of fixed rows is what was read and found right; a blank too many is found by itself.

After a change that is meant: `python tests/tasks/rendering.py TASK`, and read the golden file.
"""

import pytest
import rendering

from tasks import base

NAMES = rendering.NAMES
READ = [name for name in NAMES if rendering.path(name).is_file()]
"""The tasks whose rendering was written down, and read beside the paper."""
PROMPTED = [name for name in NAMES if rendering.adapter(name).prompted]
VERBALIZED = [
    name
    for name in NAMES
    if base.load(name).adapter == "masked"
    or (base.load(name).adapter == "candidates" and hasattr(base.load(name).candidates, "words"))
]
"""The tasks in which words stand for the labels."""


@pytest.mark.parametrize("name", READ)
def test_the_rows_are_rendered_as_in_the_golden_file(name):
    content = rendering.read_golden(name)
    rows = {column: [row[column] for row in content["rows"]] for column in content["rows"][0]}
    assert content["version"] == base.load(name).version, "a new version is rendered and read anew"
    assert rendering.rendered(rendering.adapter(name), rows) == content["examples"]


def test_every_golden_file_is_a_tasks():
    found = {str(path.relative_to(rendering.GOLDEN)) for path in rendering.GOLDEN.rglob("*.*")}
    assert found == {f"{name}.yaml" for name in READ}


@pytest.mark.parametrize("name", NAMES)
def test_two_examples_and_each_label_are_in_the_golden_file(name):
    task, examples = base.load(name), rendering.read_golden(name)["examples"]
    words = getattr(getattr(task, "candidates", None), "words", None)
    labels = getattr(task, "labels", None) or getattr(task, "words", None) or words
    assert len(examples) >= 2
    if labels and isinstance(labels, tuple):
        assert {example["right"].strip() for example in examples} == set(labels)


@pytest.mark.parametrize("name", PROMPTED)
def test_no_blank_slips_into_a_prompt(name):
    for example in rendering.read_golden(name)["examples"]:
        if "text" in example:
            prompts, answers = [example["text"]], []
        else:
            prompts = example.get("prompts") or [example["prompt"]]
            answers = example.get("answers") or [example["answer"]]
        for prompt in prompts:
            if name.startswith(
                "fewshot/sst2_"
            ):  # LM-BFF keeps the blank that GLUE's sentences end in
                prompt = prompt.replace(".  It was<mask>", ". It was<mask>")
            assert prompt == prompt.strip(" ") and "  " not in prompt
            assert " \n" not in prompt and not prompt.startswith("\n")
        for answer in answers:  # exactly one blank or line break stands between prompt and answer
            said = answer.removesuffix("<|endoftext|>").removesuffix("\n")
            assert "  " not in said and said == said.rstrip()
            assert all((prompt[-1] == "\n") != (answer[0] == " ") for prompt in prompts)
            assert said.strip(), "there is an answer"


def answers_of(name, tokenizer):
    """The tokens of each label's word, as it stands after the prompt or in it."""
    task, row = base.load(name), rendering.read_golden(name)["rows"][0]
    if task.adapter == "masked":
        return [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in task.words]
    pairs = rendering.adapter(name).pairs(row, "", at=0, tokenizer=tokenizer)
    return [pair.ids[-pair.answer :] for pair in pairs]


@pytest.mark.parametrize("name", VERBALIZED)
def test_the_words_for_the_labels_differ_in_their_first_token(name, gpt2):
    found = answers_of(name, gpt2)
    assert len({ids[0] for ids in found}) == len(found)
    if base.load(name).adapter == "masked":  # RoBERTa's vocabulary has the pieces of GPT-2's
        assert {len(ids) for ids in found} == {1}, "one mask would do"


@pytest.mark.parametrize(
    "model", ["tiny-bert", "tiny-roberta", "tiny-gpt2", "tiny-opt", "tiny-llama"]
)
@pytest.mark.parametrize("name", VERBALIZED)
def test_the_words_for_the_labels_differ_to_every_kind_of_tokenizer(name, model):
    tokenizer = rendering.tokenizer_of(model)
    if base.load(name).adapter == "masked" and tokenizer.mask_token is None:
        return
    found = answers_of(name, tokenizer)
    assert len(set(map(tuple, found))) == len(found)
