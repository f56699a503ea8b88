"""Twin data: what the ordinary loader reads, against the official schemas and what a twin promises."""

import hashlib
import json
import multiprocessing
from collections import Counter
from pathlib import Path

import datasets
import pytest
from twin_tables import tables

from benchmark.errors import UserError
from benchmark.twin import data

# Of the rows as JSON, so that they hold on every machine. A changed digest means new data under an
# old name: raise data.VERSION with it.
DIGESTS = {
    ("nyu-mll/glue", "sst2"): "a2305bd957ba5f8e",
    ("nyu-mll/glue", "mrpc"): "169b5f2a36f6e47a",
    ("nyu-mll/glue", "cola"): "531562376055329f",
    ("nyu-mll/glue", "stsb"): "c5ddaffa8272b187",
    ("nyu-mll/glue", "qqp"): "00d769da670face1",
    ("nyu-mll/glue", "mnli"): "adcb7e33d97f7574",
    ("nyu-mll/glue", "qnli"): "00cdb1bf128b0123",
    ("nyu-mll/glue", "rte"): "5546841b60909d36",
    ("nyu-mll/glue", "wnli"): "b7cb15820a6f4c5f",
    ("nyu-mll/glue", "ax"): "a17811ab4853a21d",
    ("pietrolesci/glue_diagnostics", "default"): "982b394c4070eedf",
    ("stanfordnlp/snli", "plain_text"): "3fe1eebac0a822b1",
    ("aps/super_glue", "boolq"): "f5df37b24e006060",
    ("aps/super_glue", "cb"): "d850b40210bfb983",
    ("aps/super_glue", "copa"): "ce13a5e5dc4cbd53",
    ("aps/super_glue", "multirc"): "60e29c281f639833",
    ("aps/super_glue", "record"): "bcd4c957bbda09da",
    ("aps/super_glue", "rte"): "a6aa4a4f9010657d",
    ("aps/super_glue", "wic"): "c379461adcbf3d31",
    ("aps/super_glue", "wsc"): "746c5e6b7dcd77ac",
    ("aps/super_glue", "wsc.fixed"): "fb3448e7bba1e86b",
    ("google/boolq", "default"): "1964239dece5a0fe",
    ("rajpurkar/squad", "plain_text"): "b9a6f2e5d50c7637",
    ("tuetschek/e2e_nlg", "default"): "6c1dbfdc981e8ef1",
    ("CogComp/trec", "default"): "c47d1167590db914",
    ("SetFit/sst5", "default"): "537c8f43efdde4f9",
    ("eriktks/conll2003", "conll2003"): "e64ea50989ba5f25",
    ("openai/gsm8k", "main"): "f6df0f723b5ddabd",
    ("tatsu-lab/alpaca", "default"): "9eaf7a870929f0f0",
    ("Salesforce/wikitext", "wikitext-2-raw-v1"): "b7d86ff6f2c6b213",
    ("GEM/dart", "default"): "d441e92420139fba",
    ("GEM/web_nlg", "en"): "9f65b5dd3c0899de",
    ("ucinlp/drop", "default"): "dd66f4dceff13363",
}
# dtype, label names and splits of nyu-mll/glue on the Hub
OFFICIAL = {
    "sst2": (["sentence", "label", "idx"], ["negative", "positive"], {"test"}),
    "mrpc": (
        ["sentence1", "sentence2", "label", "idx"],
        ["not_equivalent", "equivalent"],
        set(),
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("twin-data")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def load(root: Path, config: str) -> datasets.DatasetDict:
    return datasets.load_dataset(str(data.build("nyu-mll/glue", config, root)), config)


@pytest.mark.parametrize("pair", data.GENERATORS)
def test_content_is_the_version_s(pair):
    splits = tables(*pair).splits
    digest = hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:16]
    assert digest == DIGESTS[pair], "the generator's output changed: raise data.VERSION"


@pytest.mark.parametrize("config", OFFICIAL)
def test_schema_is_the_official_one(root, config):
    columns, names, hidden = OFFICIAL[config]
    twin = load(root, config)
    assert list(twin) == ["train", "validation", "test"]
    for split, rows in twin.items():
        assert rows.column_names == columns
        assert rows.features["label"] == datasets.ClassLabel(names=names)
        assert rows.features["idx"] == datasets.Value("int32")
        assert rows["idx"][:] == list(range(len(rows)))
        assert set(rows["label"][:]) == ({-1} if split in hidden else {0, 1})


@pytest.mark.parametrize("config", OFFICIAL)
def test_schema_equals_the_mirror_s(root, config):
    mirror = Path(__file__).parents[2] / "../shared/data/nyu-mll/glue"
    if not mirror.is_dir():
        pytest.skip("no mirror with the official data here")
    official, twin = datasets.load_dataset(str(mirror), config), load(root, config)
    for split in official:
        assert twin[split].features == official[split].features
        ours, theirs = (_share(rows["label"][:]) for rows in (twin[split], official[split]))
        assert ours == pytest.approx(theirs, abs=0.01)


def _share(labels) -> float:
    return Counter(labels)[1] / len(labels)


@pytest.mark.parametrize("config", OFFICIAL)
def test_no_text_is_in_two_splits_or_twice(root, config):
    twin = load(root, config)
    texts = [column for column in OFFICIAL[config][0] if column.startswith("sentence")]
    rows = [tuple(row[c] for c in texts) for split in twin.values() for row in split]
    assert len(rows) == len(set(rows))


def test_sst2_is_learnable_and_words_alone_do_not_solve_it(root):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    twin = load(root, "sst2")
    train, held_out = twin["train"], twin["validation"]

    def score(longest: int) -> float:
        words = CountVectorizer(ngram_range=(1, longest))
        model = LogisticRegression(solver="liblinear")
        model.fit(words.fit_transform(train["sentence"][:]), train["label"][:])
        return model.score(words.transform(held_out["sentence"][:]), held_out["label"][:])

    alone, in_order = score(1), score(2)
    assert 0.65 < alone < 0.85
    assert alone + 0.05 < in_order < 0.98  # word order is what is left to learn


def test_mrpc_needs_the_facts_compared(root):
    from sklearn.linear_model import LogisticRegression

    def overlap(rows):
        sides = zip(rows["sentence1"], rows["sentence2"], strict=True)
        sets = [(set(a.lower().split()), set(b.lower().split())) for a, b in sides]
        denials = [("never" in a or "no" in a, "never" in b or "no" in b) for a, b in sets]
        return [
            [len(a - b), len(b - a), len(a & b), first != second]
            for (a, b), (first, second) in zip(sets, denials, strict=True)
        ]

    twin = load(root, "mrpc")
    train, held_out = twin["train"], twin["validation"]
    model = LogisticRegression().fit(overlap(train), train["label"][:])
    score = model.score(overlap(held_out), held_out["label"][:])
    assert _share(held_out["label"][:]) + 0.02 < score < 0.9


def test_a_config_added_later_leaves_the_others_as_they_are(tmp_path):
    folder = data.build("nyu-mll/glue", "sst2", tmp_path)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")}
    assert data.build("nyu-mll/glue", "mrpc", tmp_path) == folder
    data.build("nyu-mll/glue", "sst2", tmp_path)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert datasets.get_dataset_config_names(str(folder)) == ["mrpc", "sst2"]


def test_other_content_in_the_same_layout_is_not_read_from_the_cache(root, tmp_path, monkeypatch):
    first = load(root, "sst2")["train"][0]
    monkeypatch.setattr(data, "VERSION", "another")
    assert load(tmp_path, "sst2")["train"][0] != first


def _build(arguments):
    return str(data.build(*arguments))


@pytest.mark.slow
def test_several_processes_at_once(tmp_path):
    asked = [("nyu-mll/glue", config, tmp_path) for config in ("sst2", "mrpc")] * 3
    with multiprocessing.get_context("fork").Pool(6) as pool:
        assert set(pool.map(_build, asked, chunksize=1)) == {str(tmp_path / "nyu-mll/glue")}
    folder = tmp_path / "nyu-mll/glue"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "mrpc", "sst2"]
    assert datasets.get_dataset_config_names(str(folder)) == ["mrpc", "sst2"]


def test_an_unknown_twin_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="nyu-mll/glue/sst2"):
        data.build("nyu-mll/glue", "sst3", tmp_path)
    assert not list(tmp_path.iterdir())
