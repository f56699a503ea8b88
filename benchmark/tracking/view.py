"""What MLflow's own pages show of an experiment: its kind, its description, and a saved view of its runs.

All three are experiment tags. MLflow documents none of their forms, so they are those that its page writes
(MLflow 3.17): a view is JSON whose `state` is deflated JSON in base64.
"""

import base64
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

KEY = "strategies"
"""The view's name, and what its address has."""
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
NOTE_TAG = "mlflow.note.content"
VIEW_TAG = f"mlflow.sharedViewState.{KEY}"

COLUMNS = ("score/main", "memory/peak_mib", "params/trainable_ratio_mean", "time/step_ms")
CURVES = (
    *("curve/loss", "curve/held_out_loss", "curve/lr", "curve/trainable_ratio", "curve/group"),
    *("curve/memory_mib", "curve/host_memory_mib", "curve/step_ms"),
)
_PARAMETERS = ("task", "model", "seed", "lr")
_WIDTHS = {
    "attributes.`Run Name`": 280,
    "metrics.`score/main`": 125,
    "metrics.`memory/peak_mib`": 155,
    "metrics.`params/trainable_ratio_mean`": 220,
    "metrics.`time/step_ms`": 125,
}
"""Pixels that hold a column's name and its values."""
_HIDDEN = (
    *("memory/host_state_mib", "params/trainable_ratio_peak", "params/trainable_ratio_mean"),
    *("time/train_s", "time/step_ms", "time/step_ms_p90"),
    *("system/load_peak_mib", "system/rss_peak_mib", "system/total_s", "system/fixed_s"),
    "system/others_share",
)
"""Numbers whose charts the page would add by itself."""


def tags(present: Mapping[str, str], description: str) -> dict[str, str]:
    """The tags that an experiment lacks; what a user has written is left as it is."""
    wanted = {KIND_TAG: KIND, NOTE_TAG: description, VIEW_TAG: _view()}
    return {name: text for name, text in wanted.items() if text and not present.get(name)}


def address(server: str, experiment_id: str) -> str:
    """The address of the view at a server, under model training whatever the browser showed last."""
    page = f"{server}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={KEY}&workflowType=machine_learning"


def _view() -> str:
    now = round(time.time() * 1000)
    packed = base64.b64encode(zlib.compress(json.dumps(state()).encode(), 9)).decode()
    saved = {"name": KEY, "state": f"deflate;{packed}", "createdAt": now, "updatedAt": now}
    return json.dumps(saved)


def state() -> dict[str, Any]:
    """The state of MLflow's page of runs: the seeds' runs, by score; the curves, then score and memory."""
    columns = [f"metrics.`{name}`" for name in COLUMNS]
    columns += [f"params.`{name}`" for name in _PARAMETERS]
    curves = [_chart(name, "LINE", "curves") for name in CURVES]
    bars = [_chart(name, "BAR", "results") for name in COLUMNS[:2]]
    unseen = [_chart(name, "BAR", "results") | {"deleted": True} for name in _HIDDEN]
    return {
        "searchFilter": "tags.`hift.role` = 'run'",
        "orderByKey": "metrics.`score/main`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns],
        "columnWidths": _WIDTHS,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "autoRefreshEnabled": True,
        "globalLineChartConfig": _LINES,
        "compareRunSections": [_section("curves", "Curves"), _section("results", "Results")],
        "compareRunCharts": [*curves, *bars, *unseen],
    }


_LINES: dict[str, Any] = {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""}


def _section(uuid: str, name: str) -> dict[str, Any]:
    flags = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, **flags}


def _chart(metric: str, kind: str, section: str) -> dict[str, Any]:
    chart: dict[str, Any] = {"uuid": f"{KEY}-{metric}", "type": kind, "metricKey": metric}
    chart |= {"displayName": metric, "metricSectionId": section, "runsCountToCompare": 20}
    chart |= {"deleted": False, "isGenerated": False}
    if kind == "LINE":
        chart |= _LINES | {"selectedMetricKeys": [metric], "yAxisKey": "metric"}
        chart |= {"yAxisExpressions": [], "ignoreOutliers": False, "range": {}}
        chart |= {"xAxisScaleType": "linear", "scaleType": "linear"}
        chart |= {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    return chart
