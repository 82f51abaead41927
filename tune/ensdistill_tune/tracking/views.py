"""Links to the MLflow pages of a study, and the saved views that the links open.

MLflow does not document the format of a saved view; the format used here works with MLflow 3.17. If the format changes,
a link opens the default view.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ensdistill_tune.metric_names import confirmed_metric, final_metric, log_name, replicate_metric
from ensdistill_tune.study.study_config import StudyConfig

TAG = "mlflow.sharedViewState."  # prefix of a tag that stores a view; the rest of the tag is the view's key in links
TRAINING = "workflowType=machine_learning"  # otherwise MLflow shows pages for language models
STUDIES = "studies"  # key of the page that lists all studies
SEEDS = "-seeds"  # suffix of the key of the page that groups replicates
DESCRIPTION, DATASET = "attributes.`Description`", "attributes.`Dataset`"  # columns
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
    """The MLflow pages of a study.

    Attributes:
        experiment: Id of the experiment.
        run: Id of the parent run.
        view: Key of the saved view that compares the trials.
    """

    experiment: str
    run: str
    view: str

    def comparison(self, address: str) -> str:
        """Returns the link to the page that compares the trials, on the server at this address."""
        return f"{_shared(address, self.experiment, self.view)}&compareRunsMode=CHART"

    def seeds(self, address: str) -> str:
        """Returns the link to the page that groups the replicates by their settings."""
        return _shared(address, self.experiment, f"{self.view}{SEEDS}")

    def figure(self, address: str, name: str) -> str:
        """Returns the link to a figure among the artifacts of the study."""
        return f"{address}/#/experiments/{self.experiment}/runs/{self.run}/artifacts/{name}?{TRAINING}"

    def study(self, address: str) -> str:
        """Returns the link to the parent run, which has the description and the files."""
        return f"{address}/#/experiments/{self.experiment}/runs/{self.run}?{TRAINING}"


def studies_page(address: str, experiment: str) -> str:
    """Returns the link to the list of all studies of an experiment."""
    return _shared(address, experiment, STUDIES)


def views(pages: MlflowPages, study: StudyConfig, *, confirmed: bool = False) -> dict[str, str]:
    """Returns the saved views of a study, keyed by the experiment tags that store them.

    Args:
        pages: The pages of the study.
        study: The settings.
        confirmed: Whether the candidates have means over fresh seeds. The trials are then sorted by these means, so
            that the winner comes first, because MLflow does not pin child runs.
    """
    return {
        TAG + pages.view: _trials_view(pages.run, study, confirmed=confirmed),
        f"{TAG}{pages.view}{SEEDS}": _seeds_view(pages.run, study),
        TAG + STUDIES: _studies_view(),
    }


def _trials_view(parent: str, study: StudyConfig, *, confirmed: bool) -> str:
    """Returns the view of trials, best first, with searched settings, parallel coordinates, curves and replicates."""
    final = final_metric(study.objective)
    order = confirmed_metric(study.objective, "mean") if confirmed else final
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.kind = 'trial'",
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": study.mode == "min",
        "selectedColumns": _columns(study),
        "compareRunCharts": _charts(study, final),
        "compareRunSections": [
            _section("settings", "Settings and results", columns=1),
            _section("results", "During training, and with fresh seeds", columns=2),
        ],
        "isAccordionReordered": True,
    }
    return json.dumps(COMMON | state)


def _seeds_view(parent: str, study: StudyConfig) -> str:
    """Returns the view of replicates, grouped by their settings; each group shows means over seeds."""
    final = final_metric(study.objective)
    names = list(dict.fromkeys([final, *map(final_metric, COLUMNS)]))
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent}' AND tags.kind = 'confirmation'",
        "orderByKey": f"metrics.`{final}`",
        "orderByAsc": study.mode == "min",
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "candidate"}]},
        "selectedColumns": [*(f"metrics.`{name}`" for name in names), "tags.`seed`", DESCRIPTION],
    }
    return json.dumps(COMMON | state)


def _studies_view() -> str:
    """Returns the view of studies, latest first, with their results."""
    names = ("best/nll", "confirmed/mean_nll", "teachers/ensemble_nll", "best/accuracy", "trials/finished")
    columns = [f"metrics.`{name}`" for name in names] + ["tags.`best`", "tags.`preset`"]
    state = {
        "searchFilter": "tags.kind = 'study'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": ["attributes.`Created`", DATASET, *columns],
    }
    return json.dumps(COMMON | state)


def _columns(study: StudyConfig) -> list[str]:
    """Returns only a few columns, so that metrics and settings fit on the page; MLflow orders the columns by name."""
    wanted = [study.objective, *(name for name in COLUMNS if name != study.objective)]
    metrics = [final_metric(name) for name in wanted] + [confirmed_metric(study.objective, "mean")]
    metrics += [final_metric(name) for name in study.secondary_objectives if name not in wanted]
    columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in study.search]
    return ["attributes.`Created`", *columns, "tags.`outcome`", "tags.`baseline`", "tags.`result`"]


def _charts(study: StudyConfig, final: str) -> list[dict[str, Any]]:
    # the chart omits runs that lack a value for one of its axes
    always = [name for name, axis in study.search.items() if not axis.when]
    axes = [log_name(name) if name in study.logarithmic else name for name in always]
    scale = "linear" if study.mode == "max" else "log"
    return [
        _chart("PARALLEL", "settings", selectedParams=axes, selectedMetrics=[final], showAllRuns=False),
        _chart("LINE", "results", **_curve(study.objective, scale)),
        _chart("LINE", "results", **_curve(replicate_metric(study.objective), "linear")) | {"uuid": "replicates"},
    ]


def _curve(metric: str, scale: str) -> dict[str, Any]:
    """Returns the settings of a line chart over steps; the value axis starts at the lowest value."""
    axes = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": scale, "lineSmoothness": 0}
    return {"metricKey": metric, "selectedMetricKeys": [metric]} | axes


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
