"""Files of the user's own: read alike in each format, refused by file and line, held out by rows."""

import pytest
from own_tasks import reviews, write_rows, write_task

from benchmark.data import own_files, sources, splits
from benchmark.errors import UserError
from tasks import base, own

FORMATS = ("my rows [1].jsonl", "rows*.csv", "rows?.parquet")
ODD = reviews(8) | {"text": ['a "b", c', "é\nü", "NA", "None", "null", "x" * 200_000, " y ", "1"]}


def test_every_format_gives_the_same_rows(tmp_path):
    read = []
    for name in FORMATS:
        task = own.load(write_task(tmp_path / "mine.yaml", ODD, data={"train": name}))
        assert own_files.contents(tmp_path / name) == (("text", "mood"), 8)
        rows = sources.read_all(task, "files")["train"].splits["train"]
        read.append({column: rows[column][:] for column in rows.column_names})
        assert base.adapter(task).references(read[-1]) == [0, 0, 1, 1, 0, 0, 1, 1]
    assert read == [ODD] * 3


def test_a_file_that_changed_is_read_again(tmp_path):
    task = own.load(write_task(tmp_path / "mine.yaml"))
    write_rows(tmp_path / "rows.jsonl", reviews(12))
    first = sources.read_all(task, "files")["train"].splits["train"]
    write_rows(tmp_path / "rows.jsonl", reviews(13))
    second = sources.read_all(task, "files")["train"].splits["train"]
    assert (len(first), len(second)) == (12, 13)


DAMAGED = {
    "no JSON": ("a.jsonl", b'{"text": "a"}\n{"text"\n', "line 2: no JSON"),
    "no objects": ("a.jsonl", b"[1]\n", "line 1: no JSON object"),
    "not UTF-8": ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
    "empty": ("a.csv", b"text,mood\n", "has no rows"),
    "an open quote": ("a.csv", b'text,mood\n"a,b\n', "no CSV"),
    "cut short": ("a.parquet", b"PAR1", "damaged or cut short"),
    "missing": ("a.csv", None, "no such file"),
}


@pytest.mark.parametrize(("name", "content", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name_and_line(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        own_files.contents(tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path / name}: {said}")
    assert "\n" not in str(raised.value)


def test_a_tenth_is_held_out_and_equal_texts_stay_together(tmp_path):
    task = own.load(write_task(tmp_path / "mine.yaml"))
    read = sources.read_all(task, "files")
    parts = {role: splits.part(r.splits, task, role, r.where) for role, r in read.items()}
    train, held_out = (set(parts[role].numbers) for role in ("train", "eval"))
    assert not train & held_out and train | held_out == set(range(40))
    texts = {role: set(part.rows["text"]) for role, part in parts.items()}
    assert not texts["train"] & texts["eval"] and 4 <= len(held_out) <= 5
    assert own_files.train_rows(task) == 36
    again = splits.part(read["eval"].splits, task, "eval", "where")
    assert list(again.numbers) == list(parts["eval"].numbers)


def test_one_text_alone_cannot_be_held_out(tmp_path):
    rows = {"text": ["a"] * 4, "mood": ["sad"] * 4}
    task = own.load(write_task(tmp_path / "mine.yaml", rows))
    read = sources.read_all(task, "files")["eval"]
    with pytest.raises(UserError, match="too few different rows"):
        splits.part(read.splits, task, "eval", read.where)
