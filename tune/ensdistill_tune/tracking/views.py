"""The MLflow pages of one study. The one that compares its trials is described as MLflow's own pages share views.

(The form is not documented; it works with MLflow 3.17. Were it to change, the link would show MLflow's standard view.)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ensdistill_tune.metric_names import confirmed_metric, final_metric, log_name
from ensdistill_tune.study.study_config import StudyConfig

TAG = "mlflow.sharedViewState."  # of the experiment, followed by the key that the link names
TRAINING = "workflowType=machine_learning"  # or MLflow frames the page with traces and judges of language models
STUDIES = "studies"  # the key of the page that lists them
COLUMNS = ("val/nll", "val/accuracy", "val/ece")

COMMON: dict[str, Any] = {
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsHiddenMode": "SHOWALL",
    "viewMaximized": False,
    "runListHidden": False,
}


@dataclass(frozen=True)
class MlflowPages:
    """Where MLflow shows a study."""

    experiment: str  # its id
    run: str  # the id of the parent run
    view: str  # the key of the page that compares the trials

    def comparison(self, address: str) -> str:
        """The link to the page that compares the trials, on a server at this address."""
        return f"{_shared(address, self.experiment, self.view)}&compareRunsMode=CHART"

    def study(self, address: str) -> str:
        """The link to the study's own run, its notes and its files."""
        return f"{address}/#/experiments/{self.experiment}/runs/{self.run}?{TRAINING}"


def studies_page(address: str, experiment: str) -> str:
    """The link to all studies of an experiment."""
    return _shared(address, experiment, STUDIES)


def views(pages: MlflowPages, study: StudyConfig) -> dict[str, str]:
    """What the links show, by the tags of the experiment that say so."""
    return {TAG + pages.view: _trials_view(pages.run, study), TAG + STUDIES: _studies_view()}


def _trials_view(parent: str, study: StudyConfig) -> str:
    """Trials best first, with the searched settings as columns; parallel coordinates, curves, confirmed means."""
    final = final_metric(study.objective)
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.kind = 'trial'",
        "orderByKey": f"metrics.`{final}`",
        "orderByAsc": study.mode == "min",
        "selectedColumns": _columns(study),
        "compareRunCharts": _charts(study, final),
        "compareRunSections": [
            _section("settings", "Settings and what came of them", columns=1),
            _section("results", "On the way, and with fresh seeds", columns=2),
        ],
        "isAccordionReordered": True,
    }
    return json.dumps(COMMON | state)


def _studies_view() -> str:
    """The latest first, with what came out."""
    names = ("best/nll", "confirmed/mean_nll", "teachers/ensemble_nll", "best/accuracy", "trials/finished")
    columns = [f"metrics.`{name}`" for name in names] + ["tags.`best`", "tags.`preset`"]
    state = {
        "searchFilter": "tags.kind = 'study'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": ["attributes.`Created`", *columns],
    }
    return json.dumps(COMMON | state)


def _columns(study: StudyConfig) -> list[str]:
    """Few, so that metrics and settings are seen together; the pages put them in alphabetical order."""
    wanted = [study.objective, *(name for name in COLUMNS if name != study.objective)]
    metrics = [final_metric(name) for name in wanted] + [confirmed_metric(study.objective, "mean")]
    metrics += [final_metric(name) for name in study.secondary_objectives if name not in wanted]
    columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in study.search]
    return ["attributes.`Created`", *columns, "tags.`outcome`", "tags.`baseline`"]


def _charts(study: StudyConfig, final: str) -> list[dict[str, Any]]:
    always = [name for name, axis in study.search.items() if not axis.when]  # the chart leaves out runs without one
    axes = [log_name(name) if name in study.logarithmic else name for name in always]
    curve = {
        "metricKey": study.objective,
        "selectedMetricKeys": [study.objective],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear" if study.mode == "max" else "log",
        "lineSmoothness": 0,
    }
    return [
        _chart("PARALLEL", "settings", selectedParams=axes, selectedMetrics=[final], showAllRuns=False),
        _chart("LINE", "results", **curve),
        _chart("BAR", "results", metricKey=confirmed_metric(study.objective, "mean")),
    ]


def _shared(address: str, experiment: str, view: str) -> str:
    return f"{address}/#/experiments/{experiment}/runs?{TRAINING}&viewStateShareKey={quote(view)}"


def _section(key: str, name: str, columns: int) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": True, "isReordered": True, "columns": columns, "cardHeight": 360}


def _chart(kind: str, section: str, **settings: Any) -> dict[str, Any]:
    common: dict[str, Sequence[str] | str | int | bool] = {
        "type": kind,
        "uuid": kind.lower(),
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
    }
    return common | settings
