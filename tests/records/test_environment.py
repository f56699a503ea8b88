"""What a record says of machine and process, and whether an unsupported run is tried again."""

import subprocess
import sys
import time

import pytest

from benchmark.records import environment


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without accelerators; returns the folder whose `gpus` and `dev` stand for /proc and /dev."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(environment, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(environment, "NVIDIA", tmp_path / "gpus")
    return tmp_path


def test_accelerators_are_what_driver_and_device_files_show(machine, monkeypatch):
    assert environment.accelerators() == []
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (machine / "gpus" / bus).mkdir(parents=True)
        (machine / "gpus" / bus / "information").write_text(
            "Model: \t\t NVIDIA H200\nIRQ:   \t\t 77\nGPU UUID: \t GPU-1\n"
        )
    (machine / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl", "null", "kfd"):
        (machine / "dev" / name).touch()
    files = [str(machine / "dev" / name) for name in ("nvidia0", "kfd")]
    assert environment.accelerators() == ["NVIDIA H200", "NVIDIA H200", *files]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment.accelerators()[-1] == "CUDA_VISIBLE_DEVICES="


def test_an_environment_is_the_same_until_a_device_or_a_package_differs(machine):
    here = environment.environment()
    assert here["accelerators"] == [] and environment.same(here)
    assert not environment.same({key: here[key] for key in here if key != "accelerators"})
    assert not environment.same(here | {"packages": here["packages"] | {"torch": "1.0"}})
    assert not environment.same(here | {"packages": here["packages"] | {"no-such-package": "1"}})
    assert environment.same(here | {"packages": {"torch": here["packages"]["torch"]}})
    (machine / "dev").mkdir()
    (machine / "dev" / "nvidia0").touch()
    assert not environment.same(here)


def test_the_start_of_a_process_is_not_that_of_the_second_in_which_the_machine_booted():
    script = (
        "import time; from benchmark.records.environment import process_started as p; print(p())"
    )
    before = time.time()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert before - 0.02 <= float(done.stdout) <= time.time()
