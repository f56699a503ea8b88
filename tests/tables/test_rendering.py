"""Every table's YAML and references, and what the six formats make of hostile text."""

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from factories import make_failure
from test_packaging import loaded_by_commands

import tasks.base
from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.matrices import matrix
from benchmark.tables import compare, definition, evidence, render

TABLES = [definition.load(name) for name in definition.names()]
SCORES = [table for table in TABLES if table.kind == "scores"]
REFERENCES = sorted((definition.HERE / "reference").glob("*.csv"))
SHARED = Path(__file__).parents[3] / "shared" / "paper"
HOSTILE = "<script>alert('a & b')</script> 100% of $x_1$ #2 ^ ~ {y} \\textbf | end"


# --- the tables as data -----------------------------------------------------------------------------


def test_all_the_tables_are_there():
    models = ("roberta-base", "roberta-large", "gpt2-large", "gpt-neo-2.7b", "llama-7b", "opt-13b")
    wanted = {"trainable-parameters", *(f"memory-{model}" for model in models)}
    wanted |= {"opt13b-superglue", "roberta-fewshot", "glue-roberta", "e2e-gpt2"}
    wanted |= {
        "speed",
        "minilm-sst2",
        "minilm-optimizers",
        "minilm-peers",
        "smollm2-e2e",
        "smollm2-gsm8k",
    }
    assert wanted <= set(definition.names())


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_every_reference_value_has_a_source(path):
    rows = definition.published(path.name)
    assert rows
    for row in rows:
        assert row["source"].strip()
        assert row["note"].strip() if not row["value"] else float(row["value"]) >= 0


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_every_reference_is_used(path):
    users = [table.id for table in TABLES if getattr(table, "reference", None) == path.name]
    assert users == [path.stem]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/paper")
@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_references_are_rows_of_the_collection(path):
    known = set()
    for source in SHARED.glob("*.csv"):
        with open(source, encoding="utf-8", newline="") as file:
            known |= {tuple(row.items()) for row in csv.DictReader(file)}
    assert {tuple(row.items()) for row in definition.published(path.name)} <= known


@pytest.mark.parametrize("table", SCORES, ids=lambda table: table.id)
def test_every_published_score_is_in_its_table_once(table, tmp_path):
    rows = render.render(table, tmp_path).rows
    shown = Counter((r["model"], r["method"], r["column"]) for r in rows if r["paper"] is not None)
    means = Counter(
        (row["model"], row["method"], row[table.columns_are])
        for row in definition.published(table.reference)
        if row["column"] in ("score", "mean")
    )
    assert shown == means
    assert set(shown.values()) == {1}


def test_the_main_table_has_its_88_cells(tmp_path):
    rows = render.render(definition.load("opt13b-superglue"), tmp_path).rows
    assert len(rows) == 88
    assert {row["cites"].partition(" ")[0] for row in rows if row["method"] == "HiFT"} == {"HiFT"}
    assert {row["cites"].partition(" ")[0] for row in rows if row["method"] != "HiFT"} == {"MeZO"}


@pytest.mark.parametrize("table", SCORES, ids=lambda table: table.id)
def test_borrowed_baselines_are_never_called_hifts(table, tmp_path):
    for row in render.render(table, tmp_path).rows:
        if row["method"] == "HiFT" and table.id != "opt13b-superglue":
            assert row["paper"] is None and "not available" in row["cites"]
        elif row["method"] != "HiFT":
            assert not row["cites"].startswith("HiFT")
    if table.id != "opt13b-superglue":
        assert any("HiFT rows are not available" in note for note in table.notes)


@pytest.mark.parametrize("table", SCORES, ids=lambda table: table.id)
def test_every_column_names_a_task_and_one_of_its_scores(table):
    for name, column in table.columns.items():
        config = tasks.base.load(column.task)
        assert column.metric == config.main_key or len(config.metrics) == 1, name


@pytest.mark.parametrize("table", SCORES, ids=lambda table: table.id)
def test_every_row_runs_or_says_why_not(table):
    for line in table.rows:
        assert bool(line.strategy) != bool(line.why), line
        assert line.model in table.models


@pytest.mark.parametrize("table", SCORES, ids=lambda table: table.id)
def test_every_run_a_table_shows_is_a_cell_of_its_matrix(table):
    path = evidence.MATRICES / f"{table.matrix}.yaml"
    cells = {(cell.task, cell.model, cell.label) for cell in matrix.load(path).cells}
    for line in table.rows:
        for column in table.columns.values():
            if line.strategy and (column.only is None or line.method in column.only):
                assert (column.task, table.models[line.model], line.strategy) in cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: score\n", "kind: 'score' is unknown (did you mean \"scores\"?)"),
        (
            "id: t\nkind: ledger\ntitle: T\nshows: memory\nmodels: []\ncolour: red\n",
            "t.yaml: colour",
        ),
        ("id: u\nkind: ledger\ntitle: T\nshows: memory\nmodels: []\n", "is not the file's name"),
        ("- a\n", "kind: None is unknown"),
        ("id: [\n", "t.yaml: "),
    ],
)
def test_a_wrong_table_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        definition.read(path)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.id)
def test_no_table_but_speed_shows_a_time(table, tmp_path):
    if table.kind == "records":
        evidence_of = evidence.gather(table.matrix, Path(__file__).parents[2] / "results")
        rows = compare.record_rows(table, evidence_of)
        assert rows and not [key for row in rows for key in row if re.search("ms|step|second", key)]
        with pytest.raises(ValueError, match="step_ms"):
            definition.RecordTable.model_validate(table.model_dump() | {"shows": ["step_ms"]})
    elif table.kind == "speed":
        (row,) = render.render(table, tmp_path).rows
        assert row["verdict"] == "not run" and "hift-bench speed --save" in row["why"]


# --- the formats --------------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A table with a record whose error is made to break out of every format."""
    (tmp_path / "glue_roberta.yaml").write_text(
        "name: glue_roberta\n"
        "defaults: {data: hub, lr: 1.0e-5, epochs: 3}\n"
        "tasks: [glue/sst2]\nmodels: [roberta-base]\nstrategies: [full]\n"
    )
    monkeypatch.setattr(evidence, "MATRICES", tmp_path)
    (spec,) = matrix.load(tmp_path / "glue_roberta.yaml").cells[0].runs()
    path = tmp_path / "results" / "glue_roberta" / f"{spec.run_id}.json"
    write_text(path, make_failure(spec, "oom", HOSTILE).to_json())
    return render.render(definition.load("glue-roberta"), tmp_path / "results")


class Page(html.parser.HTMLParser):
    """The tags and the text of the table's cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = Counter(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_html_shows_hostile_text_as_text(hostile):
    page = Page(hostile.text("html"))
    assert page.tags["script"] == 0
    (cell,) = [cell for cell in page.cells if "oom" in cell]
    assert HOSTILE in cell
    assert page.tags["td"] == len(hostile.shown) * len(hostile.shown[0])


def test_latex_shows_hostile_text_as_text(hostile):
    text = hostile.text("tex")
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0]
    (line,) = [line for line in body.splitlines() if "oom" in line]
    cells = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
    assert len(cells) == len(hostile.shown[0])
    bare = re.sub(
        r"\\text\w+\{\}|\$\\(?:pm|cdot|surd|dagger|le)\$|\$\^2\$|\\[&%$#_{}]", "", cells[-1]
    )
    assert not set("\\&%$#_{}^~<>|") & set(bare)
    assert r"100\% of \$x\_1\$ \#2 \textasciicircum{} \textasciitilde{} \{y\}" in cells[-1]
    assert text.count("{longtable}") == 2 and "booktabs" in text.splitlines()[0]


def test_markdown_keeps_hostile_text_in_its_cell(hostile):
    (line,) = [line for line in hostile.text("md").splitlines() if "oom" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == len(hostile.shown[0]) + 1
    assert "<script>" not in line


def test_csv_and_json_hold_the_same_unrounded_rows(hostile):
    rows = json.loads(hostile.text("json"))
    read = list(csv.DictReader(io.StringIO(hostile.text("csv"))))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == read
    assert any(HOSTILE in (row["why"] or "") for row in rows)


@pytest.mark.slow
def test_all_writes_every_table_in_every_format_and_twice_the_same(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(render.definition, "names", lambda: ("memory-roberta-base", "glue-roberta"))
    for folder in ("one", "two"):
        code, out, err = cli("tables", "--all", "--out", str(tmp_path / folder))
        assert (code, out.strip()) == (0, str(tmp_path / folder / "index.html")), err
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("one", "two"))
    assert one == two
    wanted = {f"{n}.{f}" for n in render.definition.names() for f in render.FORMATS}
    assert one.keys() == wanted | {"index.md", "index.html", "memory.png"}
    assert one["memory.png"].startswith(b"\x89PNG")
    for name in render.definition.names():
        assert f'href="{name}.html"' in one["index.html"].decode()
        assert f"({name}.md)" in one["index.md"].decode()


@pytest.mark.parametrize("name", [table.id for table in TABLES if table.id != "memory"])
def test_what_is_committed_is_what_the_command_makes(name):
    """Of every table each format; of those that no matrix fills, each byte."""
    table, root = definition.load(name), Path(__file__).parents[2]
    kinds = ("ledger", "simulated", "speed")
    made = render.render(table, root / "results") if table.kind in kinds else None
    for format in render.FORMATS:
        text = (root / "reports" / "paper" / f"{name}.{format}").read_text(encoding="utf-8")
        assert made is None or text == made.text(format)


@pytest.mark.parametrize("name", [table.id for table in TABLES if table.id != "memory"])
def test_a_terminal_of_80_columns_shows_each_table_with_its_verdicts(name, cli):
    arguments = ("tables", name, "--results", str(Path(__file__).parents[2] / "results"))
    code, out, err = cli(*arguments)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    _, wide, _ = cli(*arguments, "--wide")
    assert ("verdict" in out) == ("verdict" in wide)


@pytest.mark.slow
def test_closed_forms_need_no_lightning_or_mlflow(tmp_path):
    assert not {"lightning", "mlflow"} & loaded_by_commands(
        ["tables", "trainable-parameters"], cwd=tmp_path
    )


@pytest.mark.slow
def test_latex_compiles(hostile, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    preamble = (
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs,longtable}"
    )
    body = f"{preamble}\\begin{{document}}\n{hostile.text('tex')}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(body)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
