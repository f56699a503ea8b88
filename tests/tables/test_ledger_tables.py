"""The closed forms against the paper's printed numbers and against arithmetic written out here."""

import csv
import json
import math
from pathlib import Path

import pytest

from benchmark.tables import closed_form, definition, ledger

REFERENCE = Path(definition.HERE) / "reference" / "memory-llama-7b.csv"
TOTAL, BLOCK = 6_738_415_616, 202_383_360  # LLaMA-7B and one of its blocks, from the layer shapes
SIX = ("roberta-base", "roberta-large", "gpt2-large", "gpt-neo-2.7b", "llama-7b", "opt-13b")


@pytest.fixture(scope="module")
def printed():
    with open(REFERENCE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["optimizer"], row["precision"], row["method"], row["column"]): float(row["value"])
        for row in rows
    }


@pytest.fixture(scope="module")
def llama():
    rows = closed_form.memory("llama-7b")
    return {(row["optimizer"], row["precision"], row["method"]): row for row in rows}


def test_all_rows_of_the_paper_and_no_other(printed, llama):
    assert {key[:3] for key in printed} == llama.keys()
    assert len(llama) == 25


@pytest.mark.parametrize("column", ["trainable_params", "para", "gra", "sta", "pgs"])
def test_every_closed_form_cell_is_the_papers(printed, llama, column):
    """0.03 MB, 0.01 GB, 0.01 million; 1e-6 where the paper's own offset of 0.024 MB was multiplied."""
    allowed = {"trainable_params": 0.01, "pgs": 0.01}.get(column, 0.03)
    cells = {key: (row[column], printed[*key, column]) for key, row in llama.items()}
    assert len(cells) == 25
    for key, (ours, paper) in cells.items():
        assert abs(ours - paper) <= max(allowed, 1e-6 * paper), key


def test_the_cells_are_what_the_layer_shapes_give(llama):
    """Written out: bytes from the two parameter counts alone, the ledger not involved."""
    trained = {"FPFT": TOTAL, "HiFT": BLOCK}
    per_parameter = {"AdamW": 8, "SGDM": 4, "SGD": 0, "Adagrad": 4}
    for (optimizer, precision, method), row in llama.items():
        numel = trained[method]
        weights = {"FP32": 4 * TOTAL, "Mixed": 6 * TOTAL, "Mixed^Hi": 2 * TOTAL + 4 * numel}
        assert row["para"] * 2**20 == weights[precision]
        assert row["gra"] * 2**20 == 4 * numel
        if optimizer in per_parameter:  # and a step count of 4 bytes for each of up to 291 tensors
            extra = row["sta"] * 2**20 - per_parameter[optimizer] * numel
            assert 0 <= extra <= 4 * 291
        assert row["pgs"] == pytest.approx(
            (row["para"] + row["gra"] + row["sta"]) / 1024, rel=1e-12
        )


def test_adafactor_keeps_row_and_column_sums(llama):
    width, inner, vocabulary = 4096, 11008, 32000
    block = 4 * (width + width) + 3 * (width + inner) + 2 * width
    whole = 32 * block + 2 * (vocabulary + width) + width
    for precision in ("FP32", "Mixed"):
        fpft, hift = (llama["Adafactor", precision, m]["sta"] * 2**20 for m in ("FPFT", "HiFT"))
        assert fpft == 4 * whole + 4 * (32 * 9 + 3)
        assert hift == 4 * block + 4 * 9


def test_the_paper_adds_up_as_its_readme_says(printed):
    """PGS is the sum of its parts; Mixed is 1.5 times FP32; Mixed^Hi half of it and the active group."""
    for key in {key[:3] for key in printed}:
        parts = sum(printed[*key, column] for column in ("para", "gra", "sta"))
        assert printed[*key, "pgs"] == pytest.approx(parts / 1024, abs=0.0051)
    for optimizer in closed_form.OPTIMIZERS:
        fp32 = printed[optimizer, "FP32", "HiFT", "para"]
        active = printed[optimizer, "FP32", "HiFT", "gra"]
        assert printed[optimizer, "Mixed", "HiFT", "para"] == pytest.approx(1.5 * fp32, abs=0.01)
        mixed_hi = printed[optimizer, "Mixed^Hi", "HiFT", "para"]
        assert mixed_hi == pytest.approx(fp32 / 2 + active, abs=0.03)


def test_mean_reduction_of_the_six_models_is_the_abstracts():
    rows = closed_form.trainable_parameters(SIX)
    *models, mean = rows
    counts = {  # total, embeddings or block, whichever is larger: written out from the configs
        "roberta-base": (124_647_170, 39_000_576),
        "roberta-large": (355_361_794, 52_000_768),
        "gpt2-large": (774_030_080, 65_639_680),
        "gpt-neo-2.7b": (2_651_307_520, 133_900_800),
        "llama-7b": (TOTAL, BLOCK),
        "opt-13b": (12_853_473_280, 314_639_360),
    }
    assert {r["model"]: (r["total_params"], r["peak_trainable"]) for r in models} == counts
    expected = sum(100 * (1 - peak / total) for total, peak in counts.values()) / 6
    assert mean["reduction_percent"] == pytest.approx(expected, abs=1e-9)
    assert f"{mean['reduction_percent']:.4f}" == "89.1827"
    assert f"{mean['reduction_percent']:.2f}" == "89.18"


@pytest.mark.parametrize("model", SIX)
def test_what_fpft_and_hift_hold_for_every_model(model):
    """FPFT 4·P and HiFT P + 3·P_max with AdamW in fp32, but for step counts."""
    units, shapes = closed_form.shape(model)
    total = sum(math.prod(shape) for shape in shapes.values())
    largest = max(unit.numel for unit in units)
    fpft = closed_form.held(model, "adamw", "FP32", "FPFT")
    hift = closed_form.held(model, "adamw", "FP32", "HiFT")
    assert 0 <= fpft.pgs - 16 * total <= 4 * len(shapes)
    assert 0 <= hift.pgs - (4 * total + 12 * largest) <= 4 * len(shapes)
    assert (fpft.trainable, hift.trainable) == (total, largest)


def test_commands_print_paper_beside_ours(cli):
    code, out, _ = cli("tables", "trainable-parameters", "--format", "json")
    assert code == 0
    mean = json.loads(out)[-1]
    assert (mean["model"], mean["reduction_percent_paper"]) == ("mean", 89.18)
    assert mean["verdict"] == "within"
    code, out, _ = cli("tables", "memory-llama-7b", "--format", "json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 25
    assert {row["verdict"] for row in rows} == {"within"}
    assert rows[0]["sta_paper"] == 51410.08 and "llama.png" in rows[0]["source"]


def test_a_wrong_closed_form_is_outside(monkeypatch, tmp_path):
    right = closed_form.memory

    def wrong(model, **options):
        first, *rest = right(model, **options)
        return [first | {"sta": first["sta"] - 0.06}, *rest]

    monkeypatch.setattr(closed_form, "memory", wrong)
    table = definition.load("memory-llama-7b")
    first, second, *_ = ledger.rows(table, table.models, tmp_path)
    assert first["verdict"] == "outside: sta"
    assert second["verdict"] == "within"


def test_any_config_has_a_ledger(cli, tmp_path):
    """A local folder with a config and no weights."""
    from transformers import LlamaConfig

    small = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=100,
        architectures=["LlamaForCausalLM"],
    )
    small.save_pretrained(tmp_path / "small")
    block = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64
    total = 3 * block + 2 * 100 * 64 + 64
    folder = str(tmp_path / "small")
    code, out, err = cli("tables", "memory", "--model", folder, "--format", "json")
    assert code == 0, err
    rows = json.loads(out)
    assert rows[0]["trainable_params"] == total / 10**6
    assert rows[1]["trainable_params"] == block / 10**6
    assert {row["para_paper"] for row in rows} == {None}
    assert {row["verdict"] for row in rows} == {None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory-lama-7b"], "no table 'memory-lama-7b' (did you mean \"memory-llama-7b\"?)"),
        (["memory"], "table memory: --model: name a known shape, a folder or a Hub id"),
        (["memory", "--model", "lama-7b"], 'did you mean "llama-7b"'),
        (["speed", "--model", "llama-7b"], "--model: only a closed form takes one"),
        (["memory-llama-7b", "--model", "opt-13b"], "give it to the table memory instead"),
        (["speed", "--group-size", "2"], "--group-size: only a closed form takes one"),
        (["memory-llama-7b", "--group-size", "35"], "group_size 35 is more than the 34 units"),
        (["--all", "--model", "llama-7b"], "--all: takes no --model"),
        ([], "name one table, or give --list or --all"),
        (["speed", "--out", "here"], "--out: is where --all writes"),
        (["speed", "--all"], "name one table, or give --list or --all"),
        (["--list", "--format", "tex"], "give one of text, json, csv, md"),
    ],
)
def test_bad_input_is_one_line(write, refused, arguments, message):
    assert message in refused("tables", *arguments)


def test_the_papers_mean_is_not_laid_beside_other_models(cli):
    code, out, _ = cli("tables", "trainable-parameters", "--model", "llama-7b", "--format", "json")
    assert code == 0
    one, mean = json.loads(out)
    assert one["reduction_percent"] == mean["reduction_percent"]
    assert mean["reduction_percent_paper"] is mean["verdict"] is None


def test_larger_groups_hold_more_and_nothing_is_published_for_them(cli):
    """m = 2 of LLaMA-7B: 17 pairs of units, two blocks the largest."""
    code, out, _ = cli("tables", "memory-llama-7b", "--group-size", "2", "--format", "json")
    assert code == 0
    hift = json.loads(out)[1]
    assert hift["trainable_params"] == 2 * BLOCK / 10**6
    assert hift["gra"] == 4 * 2 * BLOCK / 2**20
    assert hift["para_paper"] is hift["verdict"] is None
    code, out, _ = cli("tables", "trainable-parameters", "--group-size", "2", "--format", "json")
    by_model = {row["model"]: row for row in json.loads(out)}
    assert by_model["llama-7b"]["groups"] == 17
    assert by_model["llama-7b"]["peak_trainable"] == 2 * BLOCK


def test_a_decoder_without_a_head_is_counted_with_a_causal_lm_s(write, cli):
    from transformers import GPT2Config

    found = []
    for architecture in ("GPT2Model", "GPT2LMHeadModel"):
        GPT2Config(n_layer=1, architectures=[architecture]).save_pretrained("own")
        code, out, err = cli("tables", "memory", "--model", "own", "--format", "csv")
        assert code == 0, err
        found.append(out)
    assert found[0] == found[1] and len(found[0].splitlines()) > 5


def test_a_model_that_has_no_head_to_give_is_refused(write, refused):
    from transformers import ViTConfig

    ViTConfig(num_hidden_layers=1, architectures=["ViTModel"]).save_pretrained("headless")
    line = refused("tables", "memory", "--model", "headless")
    assert line.startswith("model headless: ViTModel has no causal-LM head")
