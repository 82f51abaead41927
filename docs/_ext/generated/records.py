"""Descriptions of study events and network metrics, generated from the event classes and the metric functions."""

from typing import get_args

import torch
from pydantic import BaseModel

from ensdistill.data import DataSplits, Split
from ensdistill.evaluation import calibration, ensemble_metrics, evaluator
from ensdistill.evaluation import metrics as plain
from ensdistill.methods.members import TeacherEnsemble
from ensdistill_tune.records.events import Event
from generated.docstrings import summary
from generated.markdown import code, escaped, table

DESCRIBED_BY = {  # functions whose summaries describe metrics with other names
    "temperature": calibration.fit,
    "temperature_identified": calibration.fit,
    "dee": ensemble_metrics.deep_ensemble_equivalent,
    "top1_agreement": ensemble_metrics.top_1_agreement,
    "kl_to_ensemble": ensemble_metrics.predictive_kl,
    "diversity": ensemble_metrics.pairwise_kl,
    "parameters": evaluator.model_complexity,
    "flops": evaluator.model_complexity,
}


def measured() -> list[str]:
    """Returns the names of all metrics, found by evaluating a very small ensemble and one of its networks."""
    networks = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)) for _ in range(2)]
    split = Split(torch.arange(0, 240, dtype=torch.uint8).reshape(15, 1, 4, 4), torch.arange(15) % 3)
    data = DataSplits(split, split, split, ("a", "b", "c"), "")
    teachers = evaluator.Evaluator(TeacherEnsemble(networks, 3, ""), data, split)
    names = dict.fromkeys(teachers.student(networks[0])) | dict.fromkeys(teachers.teachers()["ensemble"])
    return [*names, "ood_auroc"]


def description(name: str) -> str:
    """Returns the summary of the function that computes a metric; calibrated metrics share one summary.

    Raises:
        KeyError: No function has the name of this metric; add the metric to DESCRIBED_BY.
    """
    if name in DESCRIBED_BY:
        return summary(DESCRIBED_BY[name])
    for module in (plain, ensemble_metrics, evaluator):
        if callable(function := getattr(module, name, None)):
            return summary(function)
    if name.startswith("c") and hasattr(plain, name[1:]):
        return summary(calibration.calibrated_metrics)
    raise KeyError(f"{name}: no function has the name of this metric; add it to DESCRIBED_BY")


def metrics(_: str = "") -> str:
    """Returns a table of all metrics of a network on a split."""
    return table(["metric", "definition"], [[code(name), escaped(description(name))] for name in measured()])


def events(_: str = "") -> str:
    """Returns one section for each kind of event, with its fields."""
    union = get_args(Event)[0]
    return "\n\n".join(_event(kind) for kind in get_args(union))


def _event(kind: type[BaseModel]) -> str:
    name = kind.model_fields["event"].default
    rows = [
        [code(field), code(_type(info.annotation)), "required" if info.is_required() else "optional"]
        for field, info in kind.model_fields.items()
        if field not in ("event", "at")
    ]
    parts = [f"## {code(name)}", escaped(summary(kind)), table(["field", "type", ""], rows) if rows else ""]
    return "\n\n".join(part for part in parts if part)


def _type(annotation: object) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    for prefix in ("typing.", "ensdistill_tune.records.result_rows."):
        text = text.replace(prefix, "")
    return text.replace("Annotated[float, AllowInfNan(allow_inf_nan=False)]", "float").replace("NoneType", "None")
