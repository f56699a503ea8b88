"""Shell scripts in the place of a run's process, started in either way."""

import sys

import pytest

SERVER = """\
import os, sys, types
from benchmark.run import warm

def run():
    os.execv("/bin/sh", ["sh", "-c", {script!r}, "sh", *sys.argv[1:]])

warm.preload = lambda: None
sys.modules["benchmark.run.recipe"] = types.SimpleNamespace(main=run)
{before}
sys.exit(warm.main())
"""


@pytest.fixture
def executable(tmp_path, monkeypatch):
    """Let a shell script stand in for a run, as an interpreter of its own and as a fork of the warm server.

    The server is the real one but for its imports; `before` is Python that it runs first.
    """
    python = sys.executable

    def use(script, before=""):
        server, path = tmp_path / "server.py", tmp_path / "python"
        server.write_text(SERVER.format(script=script, before=before))
        # $2 is the module to run
        path.write_text(
            f'#!/bin/sh\nif [ "$2" = benchmark.run.warm ]; then exec {python} {server} "$3"; fi\n{script}\n'
        )
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return use
