"""The dashboard in a real browser: its view is filled; a run's page begins with curves and has no bars."""

import contextlib
import re
import subprocess
import time
import urllib.request

import pytest
from factories import make_record, make_spec, write_run
from store import fill, runs

from benchmark.records.record import Evaluation
from benchmark.tracking import dashboard, view

pytestmark = pytest.mark.browser
_LONGEST_MS = 300_000
LOOKS = [
    Evaluation(step=s, examples=s, tokens=s, flops=s, seconds=s / 2, dev_loss=1 / s, score=s / 30)
    for s in (5, 10, 15)
]


@pytest.fixture
def server(uri, tmp_path):
    """The address of MLflow's server on a store with a run of full and one of hift, the better one."""
    records = [
        write_run(
            tmp_path / "r", make_record(make_spec(strategy=name), score=score, evaluations=LOOKS)
        )
        for name, score in (("full", 0.75), ("hift", 0.85))
    ]
    assert fill(uri, tmp_path / "r", records)
    address, command = dashboard.command(uri, 0)
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        deadline = time.monotonic() + _LONGEST_MS / 1000
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).close()
                break
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def test_the_view_and_a_run_s_charts_show_what_was_logged(server, uri, browser):
    page = browser.new_page(viewport={"width": 1600, "height": 1600})
    page.set_default_timeout(_LONGEST_MS)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    (address,) = dashboard.views(uri, server).values()
    page.goto(address)
    page.get_by_text("hift, seed 0").first.wait_for()
    shown = page.locator("body").inner_text()
    assert shown.index("hift, seed 0") < shown.index("full, seed 0"), "by score"
    heads = page.locator("[role=columnheader]").all_inner_texts()
    assert set(view.COLUMNS) <= {head.strip() for head in heads}
    assert "hift, glue/sst2" not in shown, "the means of cells stand apart"

    (run,) = runs(uri, "run", **{"hift.cell": "glue-sst2_minilm_hift"})
    page.goto(
        f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/model-metrics"
        "?workflowType=machine_learning"
    )
    page.locator(".js-plotly-plot .scatterlayer path.js-line").first.wait_for(state="attached")
    page.wait_for_function("document.querySelectorAll('path.js-line').length >= 8")
    sections = re.findall(r"^(\w+)\s\(\d+\)$", page.locator("body").inner_text(), re.MULTILINE)
    assert sections[0] == "curve", sections
    assert page.locator(".js-plotly-plot .barlayer .bars").count() == 0
    page.close()
    assert all(url.startswith((server, "data:", "blob:")) for url in asked)
