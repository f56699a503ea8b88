"""A task's rows: the same from every source, drawn by seed alone, never overlapping, never stale."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from factories import make_spec

import tasks.base
from benchmark.data import examples, loaders, sources
from benchmark.errors import UserError
from benchmark.models import registry
from benchmark.run.settings import data_settings
from benchmark.twin import data as twins

SHARED = Path(__file__).parents[3] / "shared" / "data"
ADAPTER = tasks.base.adapter(tasks.base.load("glue/sst2"))
TRAIN, VALIDATION = 60, 20


@pytest.fixture(scope="module")
def tokenizer():
    return registry.load_tokenizer(registry.source("tiny-bert"))


def columns(n, prefix="row"):
    """`n` different rows; the sentences get longer."""
    return {
        "sentence": [f"{prefix} {i}" + " good" * (i % 7) for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "idx": list(range(n)),
    }


@pytest.fixture
def small(mirror):
    return mirror(train=columns(TRAIN), validation=columns(VALIDATION, "held"))


@pytest.fixture
def load(tokenizer):
    def load(**fields):
        usual = {"model": "tiny-bert", "max_length": 16}
        return examples.load(data_settings(make_spec(**(usual | fields))), ADAPTER, tokenizer)

    return load


def same_rows(a, b):
    return (a.ids, a.references, list(a.encoded["input_ids"])) == (
        *(b.ids, b.references, list(b.encoded["input_ids"])),
    )


def test_mirror_and_twin_of_the_same_content_give_the_same_rows(load, tmp_path, monkeypatch):
    root = twins.build("nyu-mll/glue", "sst2", tmp_path / "built").parents[1]
    shutil.move(root, tmp_path / "mirror")
    monkeypatch.setenv("HIFT_DATA_ROOT", str(tmp_path / "mirror"))
    use = {"train_examples": 40, "eval_examples": 30, "dev_examples": 10, "seed": 3}
    mirrored, twin = load(data="mirror", **use), load(data="twin", **use)
    assert mirrored.fingerprint == twin.fingerprint
    for part in ("train", "evaluation", "development"):
        assert same_rows(getattr(mirrored, part), getattr(twin, part))


def test_ids_are_the_content_and_not_its_number(load, small):
    loaded = load()
    rows = columns(VALIDATION, "held")
    for i, found in enumerate(loaded.evaluation.ids):
        text = json.dumps({"label": rows["label"][i], "sentence": rows["sentence"][i]})
        assert found == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_without_a_limit_every_row_is_used_once(load, small):
    loaded = load()
    assert (len(loaded.train.ids), len(loaded.evaluation.ids)) == (TRAIN, VALIDATION)
    assert len(set(loaded.train.ids)) == TRAIN
    assert loaded.development is None
    assert (loaded.train.split, loaded.evaluation.split) == ("train", "validation")
    assert loaded.evaluation.references == columns(VALIDATION)["label"], "in the file's order"


@pytest.mark.parametrize("seed", range(4))
def test_train_and_held_out_are_disjoint_and_from_train(load, small, seed):
    loaded = load(seed=seed, train_examples=40, dev_examples=20, score_on="dev")
    train, held_out = set(loaded.train.ids), set(loaded.development.ids)
    assert (len(train), len(held_out)) == (40, 20)
    assert not train & held_out
    assert train | held_out == set(load().train.ids)
    assert "held out" in loaded.development.split


def test_the_draw_is_by_seed_alone(load, small):
    first = load(seed=1, train_examples=20)
    for other in (
        {"lr": 1e-3, "strategy": "hift", "batch_size": 3},
        {"eval_examples": 5},
        {"options": {"group_size": 2}, "matrix": "another"},
    ):
        assert same_rows(load(seed=1, train_examples=20, **other).train, first.train)
    assert load(seed=2, train_examples=20).train.ids != first.train.ids
    assert load(seed=1, train_examples=30).train.ids[:20] == first.train.ids


def test_the_evaluation_rows_are_the_same_for_every_seed(load, small):
    few = load(seed=1, eval_examples=7).evaluation
    assert len(few.ids) == 7
    assert same_rows(few, load(seed=5, eval_examples=7).evaluation)
    assert len(load(eval_examples=1000).evaluation.ids) == VALIDATION


def test_the_fingerprint_is_of_the_rows_used(load, mirror):
    rows = columns(TRAIN)

    def changed(row):
        """The fingerprint of twenty training rows where one sentence of the file is another."""
        sentences = [*rows["sentence"][:row], "changed", *rows["sentence"][row + 1 :]]
        root = f"changed-{row}"
        mirror(root, train=rows | {"sentence": sentences}, validation=columns(VALIDATION, "held"))
        return load(train_examples=20).fingerprint

    mirror(train=rows, validation=columns(VALIDATION, "held"))
    loaded = load(train_examples=20)
    order = [rows["sentence"].index(s) for s in drawn_sentences(loaded.train, rows)]
    assert len(set(order)) == 20
    assert changed(order[0]) != loaded.fingerprint
    unused = next(i for i in range(TRAIN) if i not in order)
    assert changed(unused) == loaded.fingerprint
    assert load(train_examples=20, seed=1).fingerprint != loaded.fingerprint


def drawn_sentences(rows, columns):
    """The sentences behind a Rows, by their ids."""
    by_id = {}
    for label, sentence in zip(columns["label"], columns["sentence"], strict=True):
        text = json.dumps({"label": label, "sentence": sentence})
        by_id[hashlib.sha256(text.encode()).hexdigest()[:16]] = sentence
    return [by_id[i] for i in rows.ids]


def test_a_damaged_cache_is_made_again(load, small, tmp_path, monkeypatch):
    monkeypatch.setenv("HIFT_CACHE", str(tmp_path / "cache"))
    whole = load().fingerprint
    (file,) = (tmp_path / "cache").rglob("*-train.arrow")
    file.write_bytes(file.read_bytes()[:200])
    assert load().fingerprint == whole


def test_another_mirror_with_the_same_header_gives_its_own_rows(load, mirror):
    """datasets' cache alone would give the first one's again: its key is the README's header."""
    mirror("one", train=columns(TRAIN, "one"), validation=columns(VALIDATION))
    first = load()
    mirror("two", train=columns(TRAIN, "two"), validation=columns(VALIDATION))
    second = load()
    assert not set(first.train.ids) & set(second.train.ids)
    mirror("two", train=columns(TRAIN, "two put right"), validation=columns(VALIDATION))
    assert not set(load().train.ids) & set(second.train.ids), "a file put right is read again"


def test_truncated_rows_are_counted(load, mirror, tokenizer):
    long = {"sentence": ["good " * 30, "good", "bad " * 40], "label": [0, 1, 0]}
    mirror(train=long, validation={"sentence": ["fine " * 50, "ok"], "label": [0, 1]})
    loaded = load(max_length=16)
    assert loaded.truncated == 3
    assert max(len(ids) for ids in loaded.train.encoded["input_ids"]) == 16


def test_batches_are_shuffled_by_the_seed_with_a_generator_of_their_own(load, small, tokenizer):
    rows, collate = load().train, ADAPTER.collator(tokenizer)

    def epochs(noise, **fields):
        torch.manual_seed(noise)  # another method draws other numbers before its loop begins
        loader = loaders.training_batches(rows, collate, make_spec(batch_size=8, **fields))
        return [flat(by_row(b) for b in loader) for _ in range(2)]

    first, second = epochs(noise=0)
    assert [first, second] == epochs(noise=1)
    assert first != second and epochs(noise=0, seed=1)[0] != first
    order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(0)).tolist()
    assert first == [rows.encoded["input_ids"][i] for i in order]


def test_grouping_by_length_uses_the_same_rows_with_less_padding(load, small, tokenizer):
    rows, collate = load().train, ADAPTER.collator(tokenizer)

    def epoch(grouped):
        spec = make_spec(batch_size=2, group_by_length=grouped)
        return [b["attention_mask"] for b in loaders.training_batches(rows, collate, spec)]

    def lengths(masks):
        return sorted(n for mask in masks for n in mask.sum(1).tolist())

    plain, grouped = epoch(False), epoch(True)
    assert lengths(plain) == lengths(grouped)
    assert sum(m.numel() for m in grouped) < sum(m.numel() for m in plain)
    assert [len(m) for m in plain] == [len(m) for m in grouped] == [2] * 30


def test_evaluation_is_longest_first_and_is_put_back_into_the_order_of_the_rows(
    load, small, tokenizer
):
    rows = load().evaluation
    order = loaders.EvaluationOrder(rows, 6)
    loader = order.batches(ADAPTER.collator(tokenizer))
    masks = [b["attention_mask"] for b in loader]
    lengths = [n for mask in masks for n in mask.sum(1).tolist()]
    assert lengths == sorted(lengths, reverse=True) and [len(m) for m in masks] == [6, 6, 6, 2]
    tokens = order.in_row_order(flat([by_row(b) for b in loader]))
    assert tokens == list(rows.encoded["input_ids"])


def by_row(batch):
    """The unpadded token ids of each row."""
    pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def flat(batches):
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("label", 7, r"column label: label 7 is outside negative, positive"),
        ("sentence", "  ", r"column sentence: empty text '  '"),
        ("sentence", None, r"column sentence: empty text None"),
    ],
)
def test_a_bad_row_is_named_by_its_place_in_the_file(load, mirror, column, value, said):
    rows = columns(TRAIN)
    rows[column][17] = value
    root = mirror(train=rows, validation=columns(VALIDATION))
    with pytest.raises(
        UserError, match=rf"^{root}/nyu-mll/glue: row 17 of train: glue/sst2: {said}"
    ):
        load()


def test_too_few_rows(load, small):
    for fields in ({"train_examples": TRAIN + 1}, {"train_examples": 50, "dev_examples": 11}):
        with pytest.raises(
            UserError, match=rf"^{small}.*train_examples .* than the 60 examples of train"
        ):
            load(**fields)
    with pytest.raises(UserError, match="dev_examples 60"):
        load(dev_examples=TRAIN)


def damage(path, how):
    whole = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("sentence,label\ngood,1\n")
    elif how == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "head":
        path.write_bytes(b"XXXX" + whole[4:])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["empty", "text", "cut short", "head"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_check_names_a_damaged_file(small, how, split):
    task = tasks.base.load("glue/sst2")
    sources.check(task, "mirror")
    file = small / "nyu-mll" / "glue" / "sst2" / f"{split}-00000-of-00001.parquet"
    damage(file, how)
    with pytest.raises(UserError, match=f"^{file}: damaged or cut short"):
        sources.check(task, "mirror")
    sources.check(task, "twin")


def test_check_wants_files_a_dataset_and_a_root(small, monkeypatch):
    task = tasks.base.load("glue/sst2")
    for file in small.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(UserError, match=f"^{small}/nyu-mll/glue: no parquet files of config sst2"):
        sources.check(task, "mirror")
    (small / "nyu-mll" / "glue").rename(small / "nyu-mll" / "other")
    with pytest.raises(UserError, match=f"^{small}: has no dataset nyu-mll/glue.*nyu-mll/other"):
        sources.check(task, "mirror")
    monkeypatch.delenv("HIFT_DATA_ROOT")
    with pytest.raises(UserError, match="--data-root or HIFT_DATA_ROOT"):
        sources.check(task, "mirror")


@pytest.mark.skipif(
    not (SHARED / "nyu-mll/glue").is_dir(), reason="no real data beside the checkout"
)
@pytest.mark.parametrize("name", ["glue/sst2", "glue/mrpc"])
def test_the_real_data_is_as_the_task_says(name, tokenizer, monkeypatch):
    monkeypatch.setenv("HIFT_DATA_ROOT", str(SHARED))
    task = tasks.base.load(name)
    spec = make_spec(task=name, train_examples=30, eval_examples=20, dev_examples=10)
    loaded = examples.load(data_settings(spec), tasks.base.adapter(task), tokenizer)
    assert (len(loaded.train.ids), len(loaded.evaluation.ids)) == (30, 20)
    assert set(loaded.train.references) == {0, 1}
    files = sorted((SHARED / task.dataset.id / task.dataset.config).glob("*.parquet"))
    tables = {file.name.partition("-")[0]: pq.read_table(file) for file in files}
    sizes = {role: tables[split].num_rows for role, split in task.dataset.splits.items()}
    # this mirror cuts MRPC's 4,076 rows 3,576 to 500 where the Hub has 3,668 to 408
    assert sum(sizes.values()) == sum(task.dataset.sizes.values())
    for table in tables.values():
        info = json.loads(table.schema.metadata[b"huggingface"])["info"]
        assert tuple(info["features"][task.label]["names"]) == task.labels
