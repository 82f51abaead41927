"""User-defined metrics, computed in addition to the built-in metrics."""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ensdistill.config import Config
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.evaluation.metrics import all_metrics
from ensdistill.methods.metrics import Metric
from ensdistill.runtime.boundary import cause_of
from ensdistill.settings.calls import misfit

# Names of other metrics that the evaluator computes; user-defined metrics must not use these names.
OTHERS = {"cnll", "cbrier", "cece", "dee", "top1_agreement", "kl_to_ensemble", "diversity", "mutual_information"}
OTHERS |= {"temperature", "temperature_identified", "at_chance", "parameters", "flops"}


def metric_directions(config: Config) -> dict[str, bool]:
    """Returns a mapping from the name of each user-defined metric to whether higher values are better."""
    return {metric.name: metric.higher_is_better for metric in config.metrics}


def own_metrics(metrics: Sequence[Metric], log_p: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns the values of metrics, keyed by name.

    Args:
        metrics: The metrics.
        log_p: Log-probabilities (N,c).
        labels: Class indices (N,).

    Raises:
        ConfigError: A metric raises an exception, or does not return a finite number.
    """
    log_p, labels = log_p.detach().cpu().double(), labels.cpu()
    return {metric.name: _value(metric, log_p.clone(), labels.clone()) for metric in metrics}


def check_metrics(metrics: Sequence[Metric], classes: int) -> None:
    """Computes metrics for uniform predictions, to detect errors before training.

    Args:
        metrics: The metrics.
        classes: Number of classes.

    Raises:
        ConfigError: A metric has a reserved name or fails.
    """
    images = 4 * classes
    log_p = torch.full((images, classes), 1 / classes, dtype=torch.float64).log()
    labels = torch.arange(images) % classes
    taken: Collection[str] = OTHERS | all_metrics(log_p, labels).keys()
    for metric in metrics:
        if metric.name in taken:
            hint = "define another name in the class"
            raise ConfigError(ConfigIssue(("metrics",), "{value} is the name of a built-in metric", metric.name, hint))
    own_metrics(metrics, log_p, labels)


def _value(metric: Metric, log_p: Tensor, labels: Tensor) -> float:
    """Returns the value of a metric; raises ConfigError if the metric fails or its value is not finite."""
    if rule := misfit(metric, log_p, labels):
        raise ConfigError(ConfigIssue(("metrics",), rule, hint="fix this metric"))
    try:
        number = float(metric(log_p, labels))
    except Exception as error:  # user code can raise any exception
        rule = f"{metric.kind} fails on predictions of shape {tuple(log_p.shape)} ({cause_of(error)})"
        raise ConfigError(ConfigIssue(("metrics",), rule, hint="fix this metric")) from error
    if not math.isfinite(number):
        rule = f"{metric.kind} must return a finite number"
        raise ConfigError(ConfigIssue(("metrics",), rule, number, "fix or remove this metric"))
    return number
