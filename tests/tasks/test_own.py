"""A task YAML of the user's own: what it may leave out, what is refused, and what its digest depends on."""

import pytest
from own_tasks import reviews, write_rows, write_task

from tasks import base, own
from tasks.labels import index


def test_it_needs_no_card_version_revision_or_sizes(tmp_path):
    task = own.load(write_task(tmp_path / "my reviews.yaml"))
    assert task.name == "own/my reviews" and task.main_key == "accuracy"
    assert task.dataset.files == {"train": str(tmp_path / "rows.jsonl")}
    assert task.dataset.revision == "unpinned"


def test_it_may_take_over_a_shipped_task_and_name_a_dataset_on_the_hub(tmp_path):
    path = write_task(tmp_path / "a.yaml", include="glue/sst2", inputs=..., label=..., labels=...)
    task, shipped = own.load(path), base.load("glue/sst2")
    assert task.inputs == shipped.inputs and task.dataset.id == "own/a" and not task.dataset.without
    hub = {"id": "me/mine", "splits": {"train": "a", "eval": "b"}}
    task = own.load(write_task(tmp_path / "b.yaml", data=..., dataset=hub))
    assert (task.dataset.id, task.dataset.revision, task.dataset.files) == ("me/mine", "main", {})


EXTRA = "Extra inputs are not permitted (did you mean"
REFUSED = {
    "a key of data": ({"data": {"trian": "a.csv"}}, f'data.trian: {EXTRA} "train"'),
    "no training file": ({"data": {"eval": "a.csv"}}, "data.train: Field required"),
    "data is a text": ({"data": "a.csv"}, "data: "),
    "a format": ({"data": {"train": "a.xlsx"}}, "data.train: a.xlsx ends in none of .jsonl, .csv"),
    "no data": ({"data": ...}, "data: missing"),
    "data misspelt": ({"data": ..., "dta": {}}, f'dta: {EXTRA} "data"'),
    "both": ({"dataset": {}}, "gives data and dataset"),
    "a key": ({"lable": "mood"}, f'lable: {EXTRA} "label'),
    "a list": ({"labels": "glad"}, "labels: "),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_key_is_one_line_with_file_key_and_nearest(tmp_path, changes, said):
    path = write_task(tmp_path / "mine.yaml", rows={}, **changes)
    with pytest.raises(base.TaskError) as raised:
        own.load(path)
    assert str(raised.value).startswith(f"{path}: {said}") and "\n" not in str(raised.value)


def test_the_digest_is_of_contents_and_not_of_places(tmp_path):
    def digest(folder, rows=None, note="", evaluation=None, **changes):
        path = write_task(tmp_path / folder / "mine.yaml", rows, **changes)
        path.write_text(note + path.read_text())
        if evaluation:
            write_rows(path.parent / "eval.csv", evaluation)
        return own.digest(own.load(path))

    usual = digest("a")
    other_place = tmp_path / "b" / "rows.jsonl"
    assert usual == digest("b/c", note="# the same\n")
    write_rows(other_place, reviews())
    assert usual == digest("d", rows={}, data={"train": str(other_place)})
    both = {"train": "rows.jsonl", "eval": "eval.csv"}
    different = [
        digest("e", labels=["glad", "sad"]),
        digest("f", rows=reviews(41)),
        digest("g", data=both),  # whose file is missing
        digest("g", data=both, evaluation=reviews(4)),
        digest("g", data=both, evaluation=reviews(8)),
    ]
    assert len({usual, *different}) == 6


def test_labels_are_indices_or_texts():
    moods, stars = ["sad", "glad"], ["1", "2", "3"]
    assert [index(value, moods) for value in ("glad", 1, True, "sad", 0)] == [1, 1, 1, 0, 0]
    assert [index(value, stars) for value in (1, "2", 3)] == [0, 1, 2]
    for value, labels in [
        ("happy", moods),
        (2, moods),
        (-1, moods),
        (1.0, moods),
        (None, moods),
        (0, stars),
    ]:
        with pytest.raises(ValueError, match=str(value)):
            index(value, labels)
