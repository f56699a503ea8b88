"""The loops of docs/loops.md that torchrun starts on two ranks train one model."""

import contextlib
import os
import re
import runpy

import pytest
from documents import blocks
from forks import FORKS
from servers import closed_port

LOOPS = {
    match[1]: loop
    for loop in blocks("docs/loops.md", "python")
    if (match := re.match(r"# (\w+)\.py: torchrun --nproc-per-node 2 ", loop))
}


def run_rank(script, rank, port):
    """Run the script with the variables of torchrun; what it prints is in a file beside it."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({key: str(value) for key, value in {**where, **place}.items()})
    with open(script.with_suffix(f".{rank}"), "w") as said, contextlib.redirect_stdout(said):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_two_ranks_train_one_model(name, tmp_path):
    script, port = tmp_path / "script.py", closed_port()
    script.write_text(LOOPS[name])
    ranks = [FORKS.Process(target=run_rank, args=(script, rank, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        process.kill()
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    printed = [script.with_suffix(f".{rank}").read_text() for rank in range(2)]
    said = [re.fullmatch(r"rank (\d) loss [\d.]+(?: weights (\S+))?\n", text) for text in printed]
    assert [match[1] for match in said] == ["0", "1"]
    assert said[0][2] == said[1][2], "the ranks have the same weights"


def test_every_launched_loop_is_one_of_them():
    launched = [loop for loop in blocks("docs/loops.md", "python") if "torchrun" in loop]
    assert launched and list(LOOPS.values()) == launched
