"""Whole or not at all: files and folders written while something goes wrong, and names made of any text."""

import os
import re
import string
import threading

import pytest

from benchmark import files
from benchmark.sizes import readable

SAFE = set(string.ascii_letters + string.digits + ".+-_")


def everything(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("old", [None, "old"])
def test_a_body_that_raises_leaves_what_was_there(tmp_path, old):
    path = tmp_path / "file.txt"
    if old is not None:
        path.write_text(old)
    before = everything(tmp_path)
    with pytest.raises(RuntimeError, match="midway"), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("midway")
    assert everything(tmp_path) == before


def test_a_reader_sees_the_old_file_until_the_body_ends(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert everything(path.parent) == {"file.txt": "new"}


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    files.write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_whose_filling_fails_is_not_there_and_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "half").touch()
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        files.build_once(tmp_path / "made", fill)
    assert list(tmp_path.iterdir()) == []


def test_of_two_builders_at_once_one_wins_whole(tmp_path):
    both_in = threading.Barrier(2)

    def fill(folder):
        (folder / "first").write_text("1")
        both_in.wait(timeout=10)
        (folder / "second").write_text("2")

    builders = [
        threading.Thread(target=files.build_once, args=(tmp_path / "made", fill)) for _ in range(2)
    ]
    for one in builders:
        one.start()
    for one in builders:
        one.join()
    assert everything(tmp_path / "made") == {"first": "1", "second": "2"}
    assert os.listdir(tmp_path) == ["made"]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["glue/sst2", "tiny-bert", "hift m=1", "s0"], "glue-sst2_tiny-bert_hift-m-1_s0"),
        (["../up", "/models/opt-13b/"], "up_models-opt-13b"),
        (["a_b", "1e-05", "--flag"], "a-b_1e-05_flag"),
        (["naïve 模型", ".hidden."], "na-ve-37700353_hidden"),
    ],
)
def test_a_stem_is_made_of_safe_characters_alone(parts, name):
    assert files.file_stem(*parts) == name
    assert set(name) <= SAFE


def test_names_without_ascii_letters_stay_different():
    labels = ["全量", "微调", "größe", "große", "!!!", "???", "groe"]
    stems = [files.file_stem("glue/sst2", label, "s0") for label in labels]
    assert len(set(stems)) == len(labels)
    for stem in stems:
        assert set(stem) <= SAFE and re.fullmatch(r"glue-sst2_[A-Za-z0-9][^_]*_s0", stem)


def test_a_taken_name_is_numbered(tmp_path):
    path = tmp_path / "one.json"
    for expected in ("one.json", "one.2.json", "one.3.json"):
        assert files.free(path).name == expected
        files.free(path).touch()


@pytest.mark.parametrize(
    ("size", "said"),
    [(2**30, "1.00 GiB"), (13_245_000_000, "12.34 GiB"), (2**30 - 1, "1024.0 MiB"), (2**19, "0.5 MiB")],
)  # fmt: skip
def test_an_amount_is_read_in_the_larger_unit(size, said):
    assert readable(size) == said
