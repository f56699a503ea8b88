"""Files of a matrix that are missing, cut or not theirs, under every command that reads them."""

import shutil
from pathlib import Path

import pytest
from factories import make_record, write_answers, write_run
from runs import TWO_CELLS

from benchmark.errors import UserError
from benchmark.matrices import matrix
from benchmark.records import record

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_record_that_is_cut_at_any_byte_is_no_record_and_its_run_counts_as_missing(tmp_path):
    path = tmp_path / "one.json"
    record.write(make_record(), path)
    whole = path.read_bytes()
    for size in range(len(whole) - 1):  # without its last line break it is whole
        path.write_bytes(whole[:size])
        with pytest.raises(UserError) as error:
            record.load(path)
        said = record.passed_over(path, error.value)
        assert "\n" not in said and said.startswith(str(path))
        assert said.endswith("its run counts as missing")
    path.write_bytes(whole[:-1])
    assert record.load(path) == make_record()


def test_a_record_with_any_byte_changed_is_read_or_refused_in_a_line(tmp_path):
    path = tmp_path / "one.json"
    record.write(make_record(), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        try:
            record.load(path)
        except UserError as error:
            assert "\n" not in record.passed_over(path, error)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def becomes_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "no text": lambda path: path.write_bytes(b"\xff\x00\xfe" * 99),
    "another's": lambda path: path.write_text("{}\n[1]\nnull\n"),
    "a folder": becomes_a_folder,
    "a loop of links": lambda path: path.unlink() or path.symlink_to(path.name),
    "outside": lambda path: path.unlink() or path.symlink_to("/dev/null"),
}


@pytest.fixture
def one_damaged(write, empty_store):
    """Two runs with curve and predictions; `damage` hits one file of the first. Returns the name of it."""
    write(TWO_CELLS)
    shutil.copy(empty_store, "mlflow.db")
    made = []
    for cell in matrix.load(Path("m.yaml")).cells:
        (spec,) = cell.runs()
        kept = write_run(Path("results/m"), make_record(spec), 5)
        made.append(write_answers(Path("results/m"), kept, [True, True, False], [0, 1, 0]))

    def one_damaged(which, damage):
        name = getattr(made[0], which)
        DAMAGES[damage](Path("results/m") / name)
        return name

    return one_damaged


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["curve", "predictions"])
def test_a_command_that_reads_it_names_it_and_one_that_does_not_goes_on(
    one_damaged, cli, which, damage
):
    """`report` does without it; `rescore`, which would have nothing to go by, and `sync` say it in a line."""
    name = one_damaged(which, damage)
    for command in ("plan", "status"):
        code, _, err = cli(command, "m.yaml")
        assert code == 0 and "Traceback" not in err
    code, _, err = cli("report", "m.yaml")
    assert code == 0 and "Traceback" not in err
    assert name in Path("reports/m/report.md").read_text() + err
    code, _, err = cli("rescore", "m.yaml")
    assert "Traceback" not in err
    if which == "predictions":
        assert code == 2 and err.count("\n") == 1 and name in err
    else:
        assert code == 0
    code, _, err = cli("sync", "m.yaml")
    assert code in (0, 1) and "Traceback" not in err
    assert name in err or which == "predictions" or code == 0
    code, _, err = cli("tables", "roberta-fewshot", "--format", "json")
    assert code == 0 and "Traceback" not in err
