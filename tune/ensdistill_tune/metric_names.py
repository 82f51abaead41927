"""Names of derived metrics and parameters, in MLflow and in the files of a study."""

SELECTED_EPOCH = "selected_epoch"  # epoch whose weights are exported; missing if `select_epoch` is `last`


def final_metric(objective: str) -> str:
    """Returns the name of a metric that is logged only for completed trials: `final/nll` for `val/nll`."""
    return objective.replace("val/", "final/")


def confirmed_metric(metric: str, figure: str) -> str:
    """Returns the name of a metric that is logged only for confirmed trials, such as `confirmed/mean_nll`.

    Args:
        metric: The metric, such as `val/nll`.
        figure: The statistic over seeds, `mean` or `sd`.
    """
    return metric.replace("val/", f"confirmed/{figure}_")


def metric_on_test(metric: str) -> str:
    """Returns the name of a metric on the test set: `test/nll` for `nll`."""
    return f"test/{metric}"


def replicate_metric(metric: str) -> str:
    """Returns the name under which a candidate's run logs a metric of its replicates, such as `replicates/nll`."""
    return f"replicates/{metric.removeprefix('val/')}"


def log_name(setting: str) -> str:
    """Returns the name of the MLflow parameter that contains the logarithm of a setting.

    The logarithm is logged in addition to the setting, because MLflow's charts have only linear axes.
    """
    return f"{setting}.log10"
