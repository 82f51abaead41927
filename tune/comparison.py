"""The MLflow page that compares the trials of one study, described in the form in which MLflow's own pages share views.

(The form is not documented; it works with MLflow 3.17. Were it to change, the link would show MLflow's standard view.)
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from tune.record import METRICS
from tune.space import Study

TAG = "mlflow.sharedViewState."  # of the experiment, followed by the key that the link names


def view_state(parent: str, study: Study) -> str:
    """Trials best first, with the searched settings as columns; parallel coordinates, learning curves, final values."""
    final = final_metric(study.objective)
    always = [name for name, axis in study.search.items() if not axis.when]  # the chart leaves out runs without one
    charts = [
        _chart("PARALLEL", selectedParams=always, selectedMetrics=[final], showAllRuns=False),
        _chart(
            "LINE",
            metricKey=study.objective,
            selectedMetricKeys=[study.objective],
            xAxisKey="step",
            xAxisScaleType="linear",
            scaleType="linear" if study.mode == "max" else "log",
            lineSmoothness=0,
        ),
        _chart("BAR", metricKey=final),
    ]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.kind = 'trial'",
        "orderByKey": f"metrics.`{final}`",
        "orderByAsc": study.mode == "min",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "selectedColumns": _columns(study),
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": "comparison", "name": "Comparison", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
        "viewMaximized": False,
        "runListHidden": False,
    }
    return json.dumps(state)


def page(address: str, experiment: str, name: str) -> str:
    """The link to the comparison, on a server at this address."""
    return f"{address}/#/experiments/{experiment}/runs?viewStateShareKey={quote(name)}&compareRunsMode=CHART"


def final_metric(objective: str) -> str:
    """The metric that only trials have that ran to their end: `val/nll` -> `final/val_nll`."""
    return objective.replace("val/", "final/val_")


def _columns(study: Study) -> list[str]:
    metrics = [final_metric(metric) for metric in METRICS]
    metrics += [name for name in study.shown if name not in METRICS]
    columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in study.search]
    return ["attributes.`Created`", "attributes.`Duration`", "tags.`outcome`", "tags.`baseline`", *columns]


def _chart(kind: str, **settings: Any) -> dict[str, Any]:
    common: dict[str, Sequence[str] | str | int | bool] = {
        "type": kind,
        "uuid": kind.lower(),
        "metricSectionId": "comparison",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
    }
    return common | settings
