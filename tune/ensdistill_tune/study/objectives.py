"""Metrics that can be objectives or have constraints, and the direction of each metric."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ensdistill.evaluation.metrics import BUILT_IN
from ensdistill.methods.metrics import Metric, OwnMetric

COSTS = {"cost/flops": "operations per image (FLOP)", "cost/parameters": "parameters"}  # of the exported network
LATENCY = "cost/latency_ms"  # of the exported network, on the machine that runs the study
PHOTO_LATENCY = "cost/photo_latency_ms"  # the same, including resizing a photo of 500x375 pixels
_OWN: TypeAdapter[list[Metric]] = TypeAdapter(list[OwnMetric])
_IN_FIGURES = {"cnll": "calibrated NLL (nats)", "nll": "validation NLL (nats)"}


def metric_directions(config: Mapping[str, Any]) -> dict[str, bool]:
    """Returns whether each validation metric is maximized, keyed by `val/<metric>`; includes custom metrics.

    Args:
        config: The `config` of a study file.
    """
    known = {f"val/{name}": metric.higher_is_better for name, metric in BUILT_IN.items()}
    try:
        own = _OWN.validate_python(config.get("metrics", []))
    except ValidationError:  # `check` reports this error, together with all other issues
        return known
    return known | {f"val/{metric.name}": getattr(metric, "higher_is_better", False) for metric in own}


def spoken(metric: str) -> str:
    """Returns the name of a metric for use in sentences, such as `calibrated NLL` for `val/cnll`."""
    name = metric.split("/")[-1]
    return BUILT_IN[name].label if name in BUILT_IN else name


def axis_title(metric: str) -> str:
    """Returns the title of a figure axis for a metric, such as `validation ECE` for `val/ece`."""
    name = metric.split("/")[-1]
    if metric in COSTS:
        return COSTS[metric]
    return _IN_FIGURES.get(name) or (f"validation {spoken(metric)}" if metric.startswith("val/") else name)


def directions_in_words() -> str:
    """Returns a help sentence that lists all validation metrics by direction."""
    known = metric_directions({})
    up, down = ([name for name, higher in known.items() if higher is way] for way in (True, False))
    return f"Maximized: {', '.join(up)}; minimized: {', '.join(down)}"
