"""docs/team.md, tried as written: PostgreSQL, a server with passwords, two users."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from documents import blocks, surroundings
from servers import closed_port

PROGRAMS = ("initdb", "pg_ctl", "createuser", "createdb", "psql")
MATRIX = """
name: {name}
defaults: {{model: tiny-bert, data: twin, max_steps: 2, train_examples: 16, eval_examples: 8, lr: 1.0e-3}}
tasks: [glue/sst2]
strategies: {{full: {{batch_size: 4, max_length: 16}}}}
"""


def program(name: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))


missing = [name for name in PROGRAMS if program(name) is None]
missing += [name for name in ("psycopg", "flask_wtf") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}"),
]


@pytest.fixture
def cluster():
    """A PostgreSQL of this test's own; yields its port and the variables of a user who may create databases.

    It refuses to run as root, so root's is Debian's user postgres, who may not enter pytest's folders.
    """
    folder, port = Path(tempfile.mkdtemp(prefix="postgresql")), closed_port()
    as_user = {}
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        shutil.chown(folder, "postgres")
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
    data = folder / "data"
    subprocess.run(
        [program("initdb"), "-D", data, "-U", "boss", "--auth-local=trust", "--auth-host=md5"],
        **run,
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    server = [program("pg_ctl"), "-D", data, "-w", "-t", "300", "-l", folder / "log"]
    subprocess.run([*server, "-o", options, "start"], **run)
    try:
        yield port, {"PGHOST": str(folder), "PGPORT": str(port), "PGUSER": "boss"}
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], **run)
        shutil.rmtree(folder)


def shell(text, folder, **variables):
    return subprocess.run(
        ["bash", "-ec", text],
        cwd=folder,
        env=surroundings() | variables,
        capture_output=True,
        text=True,
    )


def test_the_page_gives_two_users_a_server(cluster, tmp_path):
    port, boss = cluster
    ours = {"5000": str(closed_port()), "5432": str(port)}

    def written(language):
        for block in blocks("docs/team.md", language):
            for theirs, port in ours.items():
                block = block.replace(theirs, port)
            yield block

    database, server, everyone = written("bash")
    (users,) = written("python")
    done = shell(database, tmp_path, **boss)
    assert done.returncode == 0, done.stderr

    (tmp_path / "server").mkdir()
    refused = shell(
        server.replace("export MLFLOW_AUTH", "export NOT_MLFLOW_AUTH"), tmp_path / "server"
    )
    assert refused.returncode == 2 and "set MLFLOW_AUTH_ADMIN_PASSWORD" in refused.stderr
    address, log = f"http://localhost:{ours['5000']}", open(tmp_path / "server.log", "w")  # noqa: SIM115
    serving = subprocess.Popen(
        ["bash", "-ec", server.replace("hift-bench", "exec hift-bench")],
        cwd=tmp_path / "server",
        env=surroundings(),
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + 600
        while not answers(f"{address}/health"):
            said = (tmp_path / "server.log").read_text()
            assert serving.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.5)
        with pytest.raises(urllib.error.HTTPError) as nobody:
            urllib.request.urlopen(f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0")
        assert nobody.value.code == 401
        done = subprocess.run([sys.executable, "-c", users], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

        for name in ("ann", "bob"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "mine.yaml").write_text(MATRIX.format(name=f"of_{name}"))
            done = shell(everyone.replace("ann", name), folder)
            assert done.returncode == 0, done.stderr
            done = shell(later(everyone).replace("ann", name), folder)  # `run` may not have waited
            assert done.returncode == 0, done.stderr
        assert logged(address, "of_ann", by="bob") == {"FINISHED"}, "he sees hers"
        assert list((tmp_path / "server/artifacts").rglob("record/*.json"))

        done = shell(later(everyone).replace("ann", "bob"), tmp_path / "ann")
        assert done.returncode == 0 and "the other 1 were there" in done.stdout, "he reads hers"
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        (theirs / "mine.yaml").write_text(MATRIX.format(name="of_ann"))
        for command, code in ((everyone, 0), (later(everyone), 1)):  # a run of his own for hers
            done = shell(command.replace("ann", "bob"), theirs)
            assert done.returncode == code and "MLflow failed" in done.stderr, "he may not write"
    finally:
        serving.terminate()
        serving.wait(60)
        log.close()
    with socket.create_server(("", int(ours["5000"]))):
        pass  # the port is free again


def later(everyone):
    """What a user does after a run to have all of it on the server."""
    assert everyone.count("hift-bench run ") == 1
    return everyone.replace("hift-bench run ", "hift-bench sync ")


def answers(address):
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(address, timeout=10).status == 200
    return False


def logged(address, experiment, by):
    """The states of an experiment's runs, as a user sees them."""
    script = (
        "import sys; from mlflow import MlflowClient; client = MlflowClient(sys.argv[1])\n"
        "found = client.get_experiment_by_name(sys.argv[2]).experiment_id\n"
        "print(*{run.info.status for run in client.search_runs([found])})"
    )
    user = {"MLFLOW_TRACKING_USERNAME": by, "MLFLOW_TRACKING_PASSWORD": f"change-me-{by}"}
    command = [sys.executable, "-c", script, address, experiment]
    done = subprocess.run(command, env=surroundings() | user, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
