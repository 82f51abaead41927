"""The model card of an exported student, in the form that Hugging Face reads: front matter, then plain words."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from ensdistill.config import Config, flatten
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.evaluator import Metrics
from ensdistill.evaluation.latency import InferenceCost
from ensdistill.evaluation.own_metrics import metric_directions
from ensdistill.evaluation.tables import SHOWN, as_text, markdown_table
from ensdistill.export.classifier import ONNX_FILE
from ensdistill.export.student_file import DistillationRun
from ensdistill.runtime.formatting import mean_and_spread
from ensdistill.runtime.text import counted
from ensdistill.settings.yaml_loader import to_yaml_text
from ensdistill.version import __version__

Rows = Mapping[str, Mapping[str, float | Sequence[float]]]  # metrics by who, one value or one for each seed


@dataclass(frozen=True)
class StudyContext:
    """What a study knows of a student beside its own validation metrics."""

    study: str = ""
    trial: str = ""  # which of its trials it is
    verdict: str = ""
    tables: Mapping[str, Rows] = field(default_factory=dict)  # by heading, such as "Test images, 5 seeds"
    warnings: Sequence[ConfigIssue] = ()  # what seems wrong with its students


def model_card(
    run: DistillationRun,
    metrics: Mapping[str, Metrics],
    costs: Mapping[str, InferenceCost],
    differences: Mapping[str, float],
    weights_license: str = "",
    findings: StudyContext | None = None,
    warnings: Sequence[ConfigIssue] = (),
) -> str:
    """The card as Markdown. metrics: on validation images, by who, the student's under `student`."""
    findings = findings or StudyContext()
    tables = {"Validation images, this student": metrics, **findings.tables}
    own = metric_directions(run.config)
    parts = [
        f"---\n{to_yaml_text(_front_matter(run, metrics['student'], weights_license, differences))}---",
        f"# {_words(run.config.model)}, {_origin(run)}\n\n{_what(run, findings)}",
        *(["## Warnings\n\n" + "\n".join(f"- {as_text(str(warning))}" for warning in warnings)] if warnings else []),
        "## How to use it\n\n" + _use(run, differences),
        "## Data\n\n" + _data(run),
        "## Teachers and settings\n\n" + _settings(run),
        "## Metrics\n\n" + "\n\n".join(f"{heading}:\n\n{_table(rows, own)}" for heading, rows in tables.items()),
        _METRICS + _own_metrics(own),
        "## Cost\n\n" + _costs(costs),
        "## Limits\n\n" + _limits(run),
        "## Files\n\n" + _files(differences),
        "## License\n\n" + _license(weights_license),
    ]
    return "\n\n".join(parts) + "\n"


_WITH_ONNX = """\
With ONNX Runtime and NumPy alone (Pillow to read the image):

```python
import json
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("student.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = Image.open("image.png").convert("{mode}").resize(({width}, {height}), Image.Resampling.BILINEAR)
images = np.asarray(image).reshape(1, {height}, {width}, {channels}).transpose(0, 3, 1, 2)  # uint8 (N,C,H,W), 0 to 255
logits, probabilities = session.run(None, {{"images": images}})
print(classes[probabilities[0].argmax()], probabilities[0].max())
```

"""

_WITH_US = """\
With this project: `ensdistill predict . my-images/`. Normalization is inside; any number of images goes at a time."""

_METRICS = """\
`nll` is in nats; `brier` lies in [0, 2]; `ece` uses 15 bins; `cnll` and `cece` are NLL and ECE after one temperature,
fitted on the validation images; `dee` is the size of an ensemble of these teachers that is as good by `cnll`;
`agreement` is the share of images that get the ensemble's class. Settings may have been chosen on the validation
images."""


def _use(run: DistillationRun, files: Collection[str]) -> str:
    return (_WITH_ONNX.format(**_placeholders(run)) if ONNX_FILE in files else "") + _WITH_US


def _front_matter(run: DistillationRun, student: Metrics, weights_license: str, files: Iterable[str]) -> dict[str, Any]:
    data = {"name": run.config.data.kind, "type": run.config.data.kind, "split": "validation"}
    figures = [{"type": name, "value": round(student[name], 6)} for name in ("accuracy", "nll", "brier", "ece")]
    named = {"license": weights_license} if weights_license else {"license": "other", "license_name": "not-stated"}
    formats = [ending for file in files if (ending := file.rpartition(".")[2]) != "pt2"]
    result = {"task": {"type": "image-classification"}, "dataset": data, "metrics": figures}
    return named | {
        "library_name": "ensdistill",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "ensemble-distillation", *formats],
        "metrics": [figure["type"] for figure in figures],
        "model-index": [{"name": f"{run.config.model.kind}-{run.config.hash}", "results": [result]}],
    }


def _what(run: DistillationRun, findings: StudyContext) -> str:
    channels, height, width = run.shape
    color = {1: "gray", 3: "RGB"}.get(channels, f"{channels}-channel")
    lines = [
        f"Classifies {color} images of {width}x{height} pixels into {len(run.data.class_names)} classes, as it learnt "
        f"from {_source(run)}. Made by ensdistill {__version__}."
    ]
    lines += [f"It is trial `{findings.trial}` of the study `{findings.study}`."] if findings.study else []
    return "\n\n".join(lines + ([findings.verdict] if findings.verdict else []))


def _learns_from_labels(run: DistillationRun) -> bool:
    return run.config.loss.kind == "labels"


def _origin(run: DistillationRun) -> str:
    return "trained on labels alone" if _learns_from_labels(run) else "distilled from an ensemble"


def _source(run: DistillationRun) -> str:
    if _learns_from_labels(run):
        return "the labels alone (no distillation)"
    stored = run.config.teachers.predictions
    return f"an ensemble of {counted(run.config.teachers.total, 'network')}" if not stored else "stored predictions"


def _data(run: DistillationRun) -> str:
    data, names = run.data, run.data.class_names
    shown = ", ".join(map(as_text, names[:100])) + (
        f" and {len(names) - 100} more (in the files' metadata)" if len(names) > 100 else ""
    )
    seen = "some" if run.config.training.unlabeled_batch_size else "none"
    return (
        f"`{run.config.data.kind}`: {len(data.train)} training images, {len(data.validation)} for choosing settings, "
        f"{len(data.unlabeled)} left over, of which {seen} were seen "
        f"without their labels. Content hash `{data.identity}`.\n\nClasses, in the order of the outputs: {shown}."
    )


def _settings(run: DistillationRun) -> str:
    config = run.config
    teachers = [_words(config.teachers.model_of(m)) for m in range(config.teachers.count)]
    teachers += [f"{_words(file.model)} from a file" for file in config.teachers.checkpoints]
    teachers += ["a network of the program that made it"] * bool(config.teachers.networks)
    teachers += ["teachers whose predictions are stored"] * bool(config.teachers.predictions)
    told = {"teachers": "; ".join(dict.fromkeys(teachers)), "network": _words(config.model)}
    axes = ("student", "perturbation", "loss", "averaging", "training")
    told |= {axis: _words(getattr(config, axis)) for axis in axes}
    count = "Stored predictions" if config.teachers.predictions else counted(config.teachers.total, "teacher")
    return (
        f"{count}, ensemble hash `{run.learnt_from}`. All settings, hash `{config.hash}`, are "
        "in `config.yaml`; `ensdistill distill config.yaml` makes this student again where the data are."
        f"{_plugins(config)}\n\n{markdown_table(['', 'what'], list(told.items()), ['what'])}"
    )


def _plugins(config: Config) -> str:
    """What has to be installed for it, as the end of a paragraph."""
    code = [f"`{name}` ({as_text(what)})" for name, what in config.plugins.items()]
    return f" It needs code that is no part of ensdistill: {', '.join(code)}." if code else ""


def _limits(run: DistillationRun) -> str:
    _, height, width = run.shape
    return (
        f"It knows these classes only and gives every image one of them. Images of other sizes are to be resized to "
        f"{width}x{height}; what does not look like the training images (other cameras, crops, styles) was not "
        "measured here. Probabilities are as reliable as `ece` says, on images like those of validation. Faults and "
        "biases of the data and of the teachers are passed on to the student."
    )


def _files(differences: Mapping[str, float]) -> str:
    rows = [[f"`{name}`", f"{difference:.1e}"] for name, difference in differences.items()]
    return (
        "Each was read back and compared with the student on validation images before it got its name. Of a `.pt2` "
        "file torch may run what is in it: take one only from those you trust.\n\n"
        f"{markdown_table(['file', 'largest difference of a logit'], rows)}"
    )


def _license(weights_license: str) -> str:
    stated = (
        f"These weights are published under `{weights_license}`."
        if weights_license
        else "No license of these weights was stated."
    )
    return (
        f"{stated} What weights may be used for depends on the license of the images that they, and the teachers, were "
        "trained on: look there first. The code of ensdistill is under the Apache License 2.0."
    )


# --- small things -----------------------------------------------------------------------------------------------------


def _words(piece: BaseModel) -> str:
    """`resnet (depth 20, width 16)`."""
    values = flatten(piece.model_dump(mode="json"))
    kind = values.pop("kind", "")
    told = ", ".join(f"{name} {json.dumps(value).strip(chr(34))}" for name, value in values.items() if value != "")
    return f"{kind} ({told})" if kind and told else kind or told


def _placeholders(run: DistillationRun) -> dict[str, Any]:
    channels, height, width = run.shape
    return {"mode": "L" if channels == 1 else "RGB", "channels": channels, "height": height, "width": width}


def _table(rows: Rows, own: Iterable[str]) -> str:
    names = [name for name in (*SHOWN, *own) if any(name in metrics for metrics in rows.values())]
    lines = [[who, *(_figure(metrics.get(name)) for name in names)] for who, metrics in rows.items()]
    return markdown_table(["", *names], lines)


def _own_metrics(own: Mapping[str, bool]) -> str:
    """What the metrics of the user's own are, as the end of a paragraph."""
    told = [f"`{name}` ({'higher' if higher else 'lower'} is better)" for name, higher in own.items()]
    return f" Not built in: {', '.join(told)}." if told else ""


def _figure(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    return f"{mean_and_spread(value)} (n={len(value)})" if isinstance(value, Sequence) else f"{value:.4f}"


def _costs(costs: Mapping[str, InferenceCost]) -> str:
    batches = next(iter(costs.values())).milliseconds
    head = ["", "weights", "parameters", "MFLOP an image", *(f"ms, batch {batch}" for batch in batches)]
    return (
        f"{markdown_table(head, [[who, *price.in_words()] for who, price in costs.items()])}\n\n"
        "BatchNorms are folded into convolutions; median times in PyTorch on one thread, networks in turns."
    )
