"""Names of metrics and parameters that are derived from others, as MLflow and the files of a study have them."""


def final_metric(objective: str) -> str:
    """The metric that only trials have that ran to their end: `val/nll` -> `final/nll`."""
    return objective.replace("val/", "final/")


def confirmed_metric(metric: str, figure: str) -> str:
    """The metric that only confirmed trials have: mean or sd of `val/nll` over seeds -> `confirmed/mean_nll`."""
    return metric.replace("val/", f"confirmed/{figure}_")


def replicate_metric(metric: str) -> str:
    """Returns the curve of a candidate over seeds, one point for each replicate: `val/nll` -> `replicates/nll`."""
    return f"replicates/{metric.removeprefix('val/')}"


def log_name(setting: str) -> str:
    """The parameter that holds the logarithm of a setting; the axes of charts are linear."""
    return f"{setting}.log10"
