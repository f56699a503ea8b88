"""The pages of docs/: their loops train, and their commands are README's, which are run there.

The loops that torchrun starts are run by tests/engine/test_distributed_docs.py.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


MODEL, *LOOPS = blocks(ROOT / "docs/loops.md", "python")


def heading(loop: str) -> str:
    """The word that tells one loop from the others."""
    return re.search(r"from (torch\.utils|transformers|accelerate)|lightning", loop)[0]


@pytest.mark.slow
@pytest.mark.parametrize("loop", [loop for loop in LOOPS if "torchrun" not in loop], ids=heading)
def test_a_loop_trains_every_unit(loop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = {"__name__": "docs"}
    exec(compile(MODEL, "loops.md", "exec"), page)
    before = {name: p.detach().clone() for name, p in page["model"].named_parameters()}
    exec(compile(loop, "loops.md", "exec"), page)
    moved = {n for n, p in page["model"].named_parameters() if not p.equal(before[n])}
    assert moved == before.keys()


@pytest.mark.slow
def test_the_notebook_prints_what_it_shows(capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((ROOT / "docs/hift.ipynb").read_text(encoding="utf-8"))
    page = {"__name__": "notebook"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        exec(compile("".join(cell["source"]), "hift.ipynb", "exec"), page)
        shown = [line for made in cell["outputs"] for line in made.get("text", [])]
        assert capsys.readouterr().out == "".join(shown)
    assert "image/png" in cells[-1]["outputs"][-1]["data"]


def test_the_costs_in_time_of_settings_are_those_on_record():
    text = " ".join((ROOT / "docs/memory.md").read_text(encoding="utf-8").split())
    longer = []
    for kind in (".2", "_checkpointing"):
        path = ROOT / f"results/speed/gpt2-12x512_adamw_4x128_m1{kind}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        ratio = {row["name"]: row["ratio_to_full"] for row in rows}
        for name in ("hift:update=in_backward", "hift:weights=stream"):
            longer.append(f"{100 * (ratio[name] / ratio['hift'] - 1):.1f} %")
    in_backward, stream, in_backward_recomputing, stream_recomputing = longer
    assert f"makes HiFT's step {in_backward} longer and `weights=stream` {stream}." in text
    assert (
        f"with `--checkpointing`, it is {in_backward_recomputing} and {stream_recomputing}:" in text
    )


def test_the_least_memory_of_a_7b_model_is_that_of_the_page():
    text = " ".join((ROOT / "docs/memory.md").read_text(encoding="utf-8").split())
    rows = (ROOT / "reports/fit/index.md").read_text(encoding="utf-8").splitlines()
    for weights in ("resident", "streamed"):
        row = next(row for row in rows if f"llama-7b, 1 x 1,024, weights {weights}" in row)
        assert f"takes {row.split(' | ')[5]} GB" in text


@pytest.mark.parametrize("page", [p for p in PAGES if not p.is_symlink()], ids=lambda p: p.stem)
def test_every_command_is_one_of_readme(page):
    commands = {line for block in blocks(page, "sh") for line in block.splitlines()}
    known = {line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()}
    assert commands <= known


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f" {page.name}\n" not in navigation] == []
