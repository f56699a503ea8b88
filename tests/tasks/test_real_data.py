"""Real rows of GLUE and SuperGLUE: read, rendered as MeZO would, trained on for two steps and scored."""

import json

import pytest
from datasets import load_dataset
from factories import make_spec
from twin_rows import SHARED, task

from benchmark.run import recipe
from tasks import base

ROOT = SHARED / "data"
HEADS = [
    "glue/sst2",
    "glue/mrpc",
    *(f"superglue/{n}" for n in ("boolq", "cb", "copa", "rte", "wic")),
]
PROMPTS = [f"mezo/{name}" for name in ("sst2", "boolq", "cb", "copa", "rte", "wic")]
MASKED = ["fewshot/sst2_k16"]
ONE_OF_A_KIND = ["glue/sst2", "superglue/copa", "mezo/copa", *MASKED]
"""A task of each adapter: make test trains on these alone."""
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no real data beside the checkout")


def boolq(row, candidate):
    question = row["question"] if row["question"].endswith("?") else row["question"] + "?"
    return f"{row['passage']} {question[0].upper()}{question[1:]}\n{candidate}"


def copa(row, candidate):
    premise = row["premise"].rstrip()
    premise = premise[:-1] if premise.endswith(".") else premise
    words = candidate.split(" ")
    words[0] = words[0] if words[0] == "I" else words[0].lower()
    return f"{premise}{' so ' if row['question'] == 'effect' else ' because '}{' '.join(words)}"


MEZO = {
    "mezo/sst2": lambda row, word: f"{row['sentence'].strip()} It was {word}",
    "mezo/boolq": boolq,
    "mezo/cb": lambda row, word: (
        f'Suppose {row["premise"]} Can we infer that "{row["hypothesis"]}"? Yes, No, or Maybe?\n{word}'
    ),
    "mezo/copa": copa,
    "mezo/rte": lambda row, word: (
        f'{row["premise"]}\nDoes this mean that "{row["hypothesis"]}" is true? Yes or No?\n{word}'
    ),
    "mezo/wic": lambda row, word: (
        f'Does the word "{row["word"]}" have the same meaning in these two sentences? Yes, No?\n'
        f"{row['sentence1']}\n{row['sentence2']}\n{word}"
    ),
}
"""`verbalize` of princeton-nlp/MeZO large_models/templates.py at 9fe98cb, as it is for each task."""
WORDS = {
    "mezo/sst2": ["terrible", "great"],
    "mezo/boolq": ["No", "Yes"],
    "mezo/cb": ["Yes", "No", "Maybe"],
    "mezo/rte": ["Yes", "No"],
    "mezo/wic": ["No", "Yes"],
}


def validation_rows(name):
    dataset = base.load(name).dataset
    if name != "mezo/boolq":
        return load_dataset(str(ROOT / dataset.id), dataset.config)["validation"][:32]
    # SuperGLUE's rows without what they have more: google/boolq is not beside the checkout
    rows = load_dataset(str(ROOT / "aps/super_glue"), "boolq")["validation"][:32]
    titles, passages = zip(*(text.split(" -- ", 1) for text in rows["passage"]), strict=True)
    assert all(titles)
    answers = [label == 1 for label in rows["label"]]
    return {"question": rows["question"], "answer": answers, "passage": list(passages)}


@pytest.mark.parametrize("name", PROMPTS)
def test_real_rows_read_as_mezo_renders_them(name, gpt2):
    adapter, rows = task(name), validation_rows(name)
    encoded = adapter.encode(rows, gpt2, 2048)
    assert not any(encoded["truncated"])
    assert encoded["labels"] == rows[adapter.config.candidates.label]
    for row, inputs in zip(base.each(rows), encoded["input_ids"], strict=True):
        candidates = WORDS.get(name) or [row["choice1"], row["choice2"]]
        assert [gpt2.decode(ids) for ids in inputs] == [
            MEZO[name](row, candidate).strip(" ") for candidate in candidates
        ]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        pytest.param(name, model, marks=() if name in ONE_OF_A_KIND else pytest.mark.slow)
        for names, model in (
            (HEADS, "tiny-bert"),
            (set(PROMPTS) - {"mezo/boolq"}, "tiny-gpt2-512"),
            (MASKED, "tiny-roberta"),
        )
        for name in sorted(names)
    ],
)
def test_a_run_on_real_rows_goes_from_spec_to_scores(name, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HIFT_DATA_ROOT", str(ROOT))
    spec = make_spec(
        **{"task": name, "model": model, "strategy": "hift", "lr": 1e-3, "epochs": None},
        **{"max_steps": 2, "batch_size": 4, "eval_examples": 8},
        max_length=512 if model == "tiny-gpt2-512" else 128,
        train_examples=None if name in MASKED else 8,
    )
    done = recipe.run(spec, tmp_path)
    assert done.status == "success" and done.train.steps == 2
    assert done.inputs.dataset_source == "mirror" and done.scores.n == 8
    lines = [json.loads(line) for line in (tmp_path / done.predictions).read_text().splitlines()]
    kept = ([line[side] for line in lines] for side in ("prediction", "reference"))
    assert task(name).score(*kept) == done.scores.all, "what is stored is enough to score again"
