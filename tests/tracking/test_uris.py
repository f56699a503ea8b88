"""What is wrong with a tracking URI is said before training, in one line; a slow server is not waited for."""

import sys

import pytest
from servers import babble, closed_port, deny, die, drip, hang, serving

from benchmark.errors import UserError
from benchmark.tracking import uris


def test_the_uri_is_that_of_the_option_or_of_the_environment_or_a_file(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert uris.tracking_uri(None) == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert uris.tracking_uri(None) == "sqlite:///elsewhere.db"
    assert uris.tracking_uri("sqlite:///given.db") == "sqlite:///given.db"


@pytest.mark.parametrize(
    "uri, reason",
    [
        ("foo://x", "MLflow has no store foo://"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://127.0.0.1:{closed}", "nothing listens at 127.0.0.1:{closed}; start the server"),
        ("http://u:secret@127.0.0.1:{closed}/m", "nothing listens at 127.0.0.1:{closed}"),
        (
            "postgresql+x://u:secret@127.0.0.1/m",
            "Can't load plugin: sqlalchemy.dialects:postgresql.x",
        ),
        ("sqlite:////proc/nowhere/m.db", "the folder /proc/nowhere cannot be made"),
        ("sqlite:///{tmp}/text", "the file is not an SQLite database"),
    ],
)
def test_a_uri_that_refuses_is_refused(uri, reason, tmp_path):
    (tmp_path / "text").write_text("no database\n" * 1000)
    names = {"closed": closed_port(), "tmp": tmp_path}
    with pytest.raises(UserError) as refused:
        uris.usable(uri.format(**names))
    said = str(refused.value)
    assert reason.format(**names) in said and "\n" not in said and "secret" not in said


def test_a_database_without_its_driver_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"psycopg is not installed; .*\[suite,team\]'$"):
        uris.usable("postgresql+psycopg://127.0.0.1/m")


def test_a_server_that_wants_a_user_is_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    for name in ("USERNAME", "PASSWORD", "TOKEN", "AUTH"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    with serving(deny) as (uri, _):
        with pytest.raises(UserError, match="wants a user; set MLFLOW_TRACKING_USERNAME and"):
            uris.usable(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")  # of which this suite knows nothing
        assert uris.usable(uri) == uri
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        with pytest.raises(UserError, match="does not accept the password of the user ann"):
            uris.usable(uri)


@pytest.mark.parametrize("behave", [hang, drip, die, babble])
def test_a_server_whose_state_cannot_be_told_is_left_to_the_tracker(behave, monkeypatch, capsys):
    monkeypatch.setattr(uris, "_PROBE_S", 0.05)
    with serving(behave) as (uri, released):
        assert uris.usable(uri) == uri and not released.is_set()
    assert capsys.readouterr().err == ""


def test_a_password_is_not_printed():
    assert uris.without_password("postgresql://u:pw@h/m") == "postgresql://u:***@h/m"
    assert uris.without_password("http://h:5000") == "http://h:5000"
