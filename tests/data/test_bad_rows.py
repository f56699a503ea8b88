"""A row that a task cannot use, for each kind of adapter: `run` exits 2 with one line that names it."""

import pytest

import tasks.base

GONE = "the column is gone"
COPA = {"premise": "a", "question": "cause", "choice1": "b", "choice2": "c", "label": 1}

CASES = {
    "glue/mrpc": (
        "tiny-bert",
        {"sentence1": "a", "sentence2": "b", "label": 1},
        ("label", None, "column label: label None is no index of not_equivalent, equivalent"),
        ("sentence2", "\u200b", "no token of 'sentence2' is left"),
    ),
    "glue/stsb": (
        "tiny-gpt2",
        {"sentence1": "a", "sentence2": "b", "label": 1.0},
        ("sentence2", GONE, "column sentence2 is missing; the data has sentence1, label"),
        ("sentence1", " ", "column sentence1: empty text ' '"),
        ("label", 5.5, "column label: 5.5 is outside 0.0 to 5.0"),
    ),
    "mezo/boolq": (
        "tiny-gpt2",
        {"passage": "a", "question": "b", "answer": True},
        ("question", GONE, "column question is missing; the data has passage, answer"),
        ("passage", "", "column passage: empty text ''"),
        ("answer", None, "column answer: label None is no index of No, Yes"),
    ),
    "mezo/copa": (
        "tiny-opt",
        COPA,
        ("choice2", GONE, "column choice2 is missing; the data has premise, question, choice1"),
        ("question", "why", "column question: 'why' is none of cause, effect"),
    ),
    "mezo/record": (
        "tiny-llama",
        {"passage": "a", "query": "@placeholder .", "entities": ["A", "B"], "answers": ["A"]},
        ("entities", GONE, "column entities is missing; the data has passage, query, answers"),
        ("answers", None, "column answers: None is no list of texts"),
        ("answers", [], "column answers: empty text []"),
        ("entities", ["A", ""], "column entities: empty text ''"),
        ("answers", ["C"], "column answers: ['C'] is not among"),
    ),
    "fewshot/sst2_k16": (
        "tiny-roberta",
        {"sentence": "a", "label": 1},
        ("sentence", None, "column sentence: empty text None"),
        ("sentence", "a <mask>", "a text contains <mask>, the mask token"),
        ("label", -1, "column label: label -1 is outside terrible, great"),
    ),
    "superglue/copa": (
        "tiny-bert",
        COPA,
        ("choice1", GONE, "column choice1 is missing; the data has premise, question, choice2"),
        ("choice1", "", "column choice1: empty text ''"),
        ("label", None, "column label: label None is no index of choice1, choice2"),
    ),
    "qa/squad": (
        "tiny-bert",
        {"question": "who", "context": "a b", "answers": {"text": ["a"], "answer_start": [0]}},
        ("answers", GONE, "column answers.answer_start is missing; the data has question, context"),
        ("answers", None, "column answers.answer_start: None has no answer_start"),
        ("answers", {"text": ["c"], "answer_start": [9]}, "column answers: 'c' at [9] is outside"),
        ("context", "", "column context: empty text ''"),
    ),
    "ner/conll2003": (
        "tiny-roberta",
        {"tokens": ["a", "b"], "ner_tags": [0, 1]},
        ("ner_tags", GONE, "column ner_tags is missing; the data has tokens"),
        ("ner_tags", None, "column ner_tags: None is no list"),
        ("ner_tags", [0, 9], "column ner_tags: tag 9 is outside O, B-PER"),
        ("tokens", ["a", ""], "column tokens: empty text ''"),
    ),
    "generation/gsm8k": (
        "tiny-gpt2",
        {"question": "a", "answer": "#### 1"},
        ("answer", GONE, "column answer is missing; the data has question"),
        ("answer", "", "column answer: empty text ''"),
    ),
    "generation/e2e_nlg": (
        "tiny-gpt2",
        {"meaning_representation": "name[A]", "human_reference": "A ."},
        ("human_reference", GONE, "column human_reference is missing; the data has meaning_repr"),
        ("human_reference", None, "column human_reference: empty text None"),
    ),
    "generation/dart": (
        "tiny-opt",
        {"tripleset": [["a", "b", "c"]], "target": "a", "references": ["a"]},
        ("references", [None], "column references: [None] is no list of texts"),
        ("tripleset", [[None]], "column tripleset: [[None]] is no list of texts"),
    ),
    "generation/alpaca": (
        "tiny-gpt2-512",
        {"instruction": "a", "input": "b", "output": "c"},
        ("output", GONE, "train has no column output"),
        ("instruction", "", "column instruction: empty text ''"),
        ("output", " ", "column output: empty text ' '"),
    ),
    "lm/wikitext2": (
        "tiny-gpt-neo",
        {"text": "a"},
        ("text", None, "column text: None is no text"),
    ),
}
"""A task of each adapter -> a model, a usual row, and what is planted: a column, its value, the words."""


MATRIX = """\
defaults: {model: MODEL, data: mirror, max_steps: 1, lr: 1.0e-3, max_length: 128, seeds: [0]}
tasks: [TASK]
strategies: {full: {}}
"""


@pytest.mark.parametrize(
    ("name", "model", "usual", "column", "value", "said"),
    [
        pytest.param(name, model, usual, *fault, id=f"{name}-{fault[2]}")
        for name, (model, usual, *faults) in CASES.items()
        for fault in faults
    ],
)
def test_the_row_is_named(write, refused_by_run, mirror, name, model, usual, column, value, said):
    """One fault, in row 2 of the split that is evaluated."""
    dataset = tasks.base.load(name).dataset
    part_of_train = any("[" in split for split in dataset.splits.values())  # from row 1,000 on
    rows = [usual | {"number": str(n)} for n in range(1040 if part_of_train else 40)]
    rows += [row | {dataset.shots.per: 0} for row in rows] if dataset.shots else []
    names = {role: split.partition("[")[0] for role, split in dataset.splits.items()}
    splits = {split: list(rows) for split in names.values()}
    splits[names["eval"]][2] = rows[2] | {column: value}
    columns = {column} if value is GONE else set()
    root = mirror(
        dataset=dataset.id,
        config=dataset.config,
        **{
            split: {c: [row[c] for row in rows] for c in rows[0] if c not in columns}
            for split, rows in splits.items()
        },
    )
    write(MATRIX.replace("MODEL", model).replace("TASK", name))
    place = f"{root}/{dataset.id}: "
    row = "" if value is GONE else f"row 2 of {names['eval']}: {name}: "
    found = refused_by_run()
    assert found.startswith(place + row) and said in found
