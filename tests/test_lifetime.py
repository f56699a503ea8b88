"""Who ends with whom, and what the signals of schedulers do."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from runs import gone

from benchmark.lifetime import Family, Stopped, stoppable


def test_the_first_signal_raises_and_later_ones_do_not_disturb_the_end():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        with pytest.raises(Stopped, match="stopped by SIGHUP"):
            os.kill(os.getpid(), signal.SIGHUP)
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


DEAF = "trap '' TERM; sleep 60 & echo $!; wait"


def test_a_family_ends_with_its_context_even_if_it_is_deaf(capfd):
    with pytest.raises(Stopped), Family(["sh", "-c", DEAF], grace=0.1) as parent:
        while not (child := capfd.readouterr().out):
            time.sleep(0.01)
        raise Stopped
    assert parent.returncode == -signal.SIGKILL and gone(int(child))


OWNER = """
from benchmark.lifetime import Family
script = "trap 'kill $child; exit' TERM; sleep 60 & child=$!; sleep 0.2; echo $$ $child; wait"
with Family(["sh", "-c", script]) as parent:
    parent.wait()
"""


def test_a_family_ends_when_its_owner_is_killed():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    family = list(map(int, owner.stdout.readline().split()))
    owner.kill()
    owner.wait()
    assert all(map(gone, family))


LIGHTNING = """
    import os, signal, lightning, torch
    from benchmark.lifetime import die_at_once

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def training_step(self, batch):
            os.kill(os.getpid(), signal.SIGTERM)
            print("goes on")
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1.0)

    die_at_once()
    settings = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    lightning.Trainer(max_steps=3, accelerator="cpu", **settings).fit(Module(), [0, 1, 2])
"""


@pytest.mark.slow
def test_sigterm_ends_a_training_in_the_middle_of_a_step():
    """Without `die_at_once`, Lightning ends the step and the process with status 0."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIGHTNING)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGTERM and "goes on" not in done.stdout, done.stderr


PRINTING = """
import pathlib, sys
from benchmark.lifetime import outlive_readers
outlive_readers()
for number in range(20_000):
    print(number)
    print(number, file=sys.stderr)
pathlib.Path(sys.argv[1]).write_text("went on")
sys.exit(3)
"""


@pytest.mark.parametrize("how", ["2>&1 | head -1", ">&- 2>&-", "| true"])
def test_who_reads_no_more_ends_nothing(tmp_path, how):
    """The reader closes the pipe of one stream or of both, or there never was any."""
    script = f"( {sys.executable} -c '{PRINTING}' {tmp_path}/on; echo $? > {tmp_path}/code ) {how}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (tmp_path / "on").read_text() == "went on"
    assert (tmp_path / "code").read_text() == "3\n"
    assert "Error" not in done.stderr and done.stdout in ("", "0\n")


def test_what_is_said_is_in_a_log_at_once():
    said = "import os, sys; from benchmark.lifetime import outlive_readers; outlive_readers();"
    said += "sys.stderr.write('said\\n'); os._exit(0)"  # nothing is flushed at such an end
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stderr == "said\n"
