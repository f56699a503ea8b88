"""Measured on this CPU, in a process of its own, and held against the prediction."""

import json

import psutil
import pytest
import torch
from memory_cases import counted, folder, setting

from benchmark.errors import UserError
from benchmark.files import free
from benchmark.memory import measured
from benchmark.memory.training import Training


@pytest.mark.slow
def test_the_record_holds_the_real_step_and_none_is_overwritten(cli, tmp_path):
    case = setting("llama", batch_size=1, seq_len=8)
    code, out, _ = cli(
        *("memory", folder("llama"), "--batch-size", "1", "--seq-len", "8", "--measure"),
        *("--strategy", "hift", "--results", str(tmp_path), "--format", "json"),
    )
    [row] = json.loads(out)
    [file] = (tmp_path / "memory").glob("*.json")
    assert code == 0 and file.stem.endswith(case.hash)
    assert free(file).stem.endswith(f"{case.hash}.2")
    made = measured.Measured(**json.loads(file.read_text()))
    assert made.status == "success" and made.kind == "counted_cpu_tensors"
    assert made.peak == max(made.phases.values()) == max(counted(case).values())
    assert made.predicted == pytest.approx(made.peak, rel=0.02)
    assert made.rss > made.peak and made.reserved is None
    assert 0 < made.load_peak == Training(case).load_peak < made.peak
    assert made.setting_hash == case.hash and made.setting["seq_len"] == 8
    assert made.schema_version == 1

    assert abs(row["error_percent"]) < 2 and row["error_percent"] == pytest.approx(
        made.error_percent
    )
    phases = ("load", "forward", "backward", "step")
    assert row["measured_bytes"] == max(row[f"{phase}_bytes"] for phase in phases) == made.peak


@pytest.mark.slow
def test_more_than_this_host_holds_is_refused_in_one_line(monkeypatch, tmp_path):
    there = psutil.virtual_memory()._replace(available=2**29)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: there)
    monkeypatch.setattr(measured.subprocess, "run", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(UserError, match="of this host's memory") as refused:
        measured.measure(setting("llama"), tmp_path, lambda line: None)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_on_a_gpu_machine_the_host_must_hold_the_model_while_it_is_lowered(monkeypatch, tmp_path):
    """The fp32 weights and the low ones made of them lie there together, before anything moves."""
    case = setting("llama", precision="mixed_hi", optimizer="sgd", batch_size=1, seq_len=8)
    weights = sum(p.numel() for p in Training(case).model.parameters())
    there = psutil.virtual_memory()._replace(available=measured.LIBRARIES + 6 * weights - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(measured.subprocess, "run", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(UserError, match="of this host's memory"):
        measured.measure(case, tmp_path, lambda line: None)


def test_what_cannot_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="CUDA"):
        measured.measure(setting("llama", precision="fp16"), tmp_path, lambda line: None)
