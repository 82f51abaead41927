"""Model card of an exported student in Hugging Face format: front matter, then Markdown."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from ensdistill.config import Config, flatten
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.inference_cost import BATCHES, InferenceCost
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.own_metrics import metric_directions
from ensdistill.evaluation.tables import SHOWN, as_text, markdown_table
from ensdistill.export.classifier import ONNX_FILE
from ensdistill.export.student_file import DistillationRun, resize_of
from ensdistill.runtime.formatting import mean_and_spread
from ensdistill.runtime.text import counted
from ensdistill.settings.yaml_loader import to_yaml_text
from ensdistill.version import __version__

Rows = Mapping[str, Mapping[str, float | Sequence[float]]]  # metrics keyed by network; one value, or one value per seed


@dataclass(frozen=True)
class StudyContext:
    """Information from a study for a model card, in addition to the student's validation metrics.

    Attributes:
        study: Name of the study.
        trial: Name of the trial.
        verdict: Result of the confirmation, as text.
        tables: Tables of metrics, keyed by heading, such as "Test images, 5 seeds".
        warnings: Warnings about the students in the study.
    """

    study: str = ""
    trial: str = ""
    verdict: str = ""
    tables: Mapping[str, Rows] = field(default_factory=dict)
    warnings: Sequence[ConfigIssue] = ()


def model_card(
    run: DistillationRun,
    metrics: Mapping[str, Metrics],
    costs: Mapping[str, InferenceCost],
    differences: Mapping[str, float],
    resized: float,
    weights_license: str = "",
    findings: StudyContext | None = None,
    warnings: Sequence[ConfigIssue] = (),
) -> str:
    """Returns the model card as Markdown.

    Args:
        run: The student, its settings and its data.
        metrics: Metrics on validation images, keyed by network; the student has the key `student`.
        costs: Inference cost, keyed by network.
        differences: Largest difference from the student's logits, keyed by file.
        resized: Largest difference from the student's probabilities on images that the exported networks must resize.
        weights_license: License of the weights, as an SPDX identifier; empty if not stated.
        findings: Information from a study.
        warnings: Warnings about images, teachers and student.
    """
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
        "## Files\n\n" + _files(differences, resized),
        "## License\n\n" + _license(weights_license),
    ]
    return "\n\n".join(parts) + "\n"


_WITH_ONNX = """\
With ONNX Runtime and NumPy (and Pillow to read the image):

```python
import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("student.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")  # of any height and width
images = np.asarray(image).reshape(1, image.height, image.width, {channels})  # uint8 (N,H,W,C), 0 to 255
logits, probabilities = session.run(None, {{"images": images}})
print(classes[probabilities[0].argmax()], probabilities[0].max())
```

"""

_WITH_US = """\
With ensdistill: `ensdistill predict . my-images/`. The exported networks resize and normalize the images, and
accept batches of any size. `labels.json` lists the classes in the order of the outputs."""

_METRICS = """\
`nll` is in nats; `brier` is in [0, 2]; `ece` uses 15 bins. `cnll` and `cece` are NLL and ECE after temperature scaling,
with the temperature fitted on the validation images. `dee` is the number of these teachers whose ensemble has the same
`cnll` as the network. `top1_agreement` is the fraction of images for which the network and the ensemble predict the
same class. The settings may have been selected on the validation images."""


def _use(run: DistillationRun, files: Collection[str]) -> str:
    """Returns the instructions for use."""
    return (_WITH_ONNX.format(**_placeholders(run)) if ONNX_FILE in files else "") + _WITH_US


def _front_matter(run: DistillationRun, student: Metrics, weights_license: str, files: Iterable[str]) -> dict[str, Any]:
    """Returns the metadata that Hugging Face reads."""
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
    """Returns the description of the student."""
    channels, height, width = run.shape
    color = {1: "gray", 3: "RGB"}.get(channels, f"{channels}-channel")
    lines = [
        f"Classifies {color} images of {width}x{height} pixels into {len(run.data.class_names)} classes. Training "
        f"targets: {_source(run)}. Trained by ensdistill {__version__}."
    ]
    lines += (
        [f"The student is from trial `{findings.trial}` of the study `{findings.study}`."] if findings.study else []
    )
    return "\n\n".join(lines + ([findings.verdict] if findings.verdict else []))


def _learns_from_labels(run: DistillationRun) -> bool:
    """Returns whether the student was trained without distillation."""
    return run.config.loss.kind == "labels"


def _origin(run: DistillationRun) -> str:
    """Returns the origin of the student for the title."""
    return "trained on labels only" if _learns_from_labels(run) else "distilled from an ensemble"


def _source(run: DistillationRun) -> str:
    """Returns the source of the training targets."""
    if _learns_from_labels(run):
        return "labels only (no distillation)"
    stored = run.config.teachers.predictions
    return f"an ensemble of {counted(run.config.teachers.total, 'network')}" if not stored else "stored predictions"


def _data(run: DistillationRun) -> str:
    """Returns the section about the data."""
    data, names = run.data, run.data.class_names
    shown = ", ".join(map(as_text, names[:100])) + (
        f" and {len(names) - 100} more (in the metadata of the files)" if len(names) > 100 else ""
    )
    used = "used" if run.config.training.unlabeled_batch_size else "not used"
    return (
        f"`{run.config.data.kind}`: {len(data.train)} training images, {len(data.validation)} validation images, "
        f"{len(data.unlabeled)} other images, which were {used} as unlabeled training images. "
        f"Content hash `{data.identity}`.\n\n"
        f"Classes, in the order of the outputs: {shown}."
    )


def _settings(run: DistillationRun) -> str:
    """Returns the section about the teachers and settings."""
    config = run.config
    teachers = [_words(config.teachers.model_of(m)) for m in range(config.teachers.count)]
    teachers += [f"{_words(file.model)} from a file" for file in config.teachers.checkpoints]
    teachers += ["a network passed in Python"] * bool(config.teachers.networks)
    teachers += ["teachers with stored predictions"] * bool(config.teachers.predictions)
    rows = {"teachers": "; ".join(dict.fromkeys(teachers)), "network": _words(config.model)}
    sections = ("student", "perturbation", "loss", "averaging", "training")
    rows |= {section: _words(getattr(config, section)) for section in sections}
    count = "Stored predictions" if config.teachers.predictions else counted(config.teachers.total, "teacher")
    return (
        f"{count} (ensemble hash `{run.learnt_from}`). All settings (hash `{config.hash}`) are "
        f"in `config.yaml`; `ensdistill distill config.yaml` reproduces this student, given the data{_start(config)}."
        f" The weights are from {config.training.selected_epoch()}."
        f"{_plugins(config)}\n\n{markdown_table(['', 'settings'], list(rows.items()), ['settings'])}"
    )


def _start(config: Config) -> str:
    """Returns a sentence ending that names the initial weights; empty if the settings name no weights file."""
    return f" and the initial weights with SHA-256 `{config.model.weights_hash}`" if config.model.weights else ""


def _plugins(config: Config) -> str:
    """Returns a sentence that lists the required code from outside this package; empty if none is required."""
    code = [f"`{name}` ({as_text(what)})" for name, what in config.plugins.items()]
    return f" These settings require code outside of ensdistill: {', '.join(code)}." if code else ""


def _limits(run: DistillationRun) -> str:
    """Returns the section about the limits of the student."""
    _, height, width = run.shape
    return (
        "The student assigns one of these classes to every image, including images of other classes. Images of other "
        f"sizes are resized to {width}x{height} ({resize_of(run.config)}). The student was not evaluated on "
        "images unlike the training images, for example from other cameras or in other styles. `ece` is the "
        "calibration error on images like the validation images; on other images, it can be larger. The student "
        "inherits errors and biases from the data and the teachers."
    )


def _files(differences: Mapping[str, float], resized: float) -> str:
    """Returns the section about the files."""
    rows = [[f"`{name}`", f"{difference:.1e}"] for name, difference in differences.items()]
    return (
        "Each file was loaded and compared with the student on validation images before it was published. torch can "
        "execute code from a `.pt2` file: open such a file only if its source is trusted. On images of other "
        f"sizes, which are resized first, probabilities differ by at most {resized:.1e}.\n\n"
        f"{markdown_table(['file', 'largest logit difference'], rows)}"
    )


def _license(weights_license: str) -> str:
    """Returns the section about the license."""
    stated = (
        f"These weights are published under `{weights_license}`."
        if weights_license
        else "No license was stated for these weights."
    )
    return (
        f"{stated} The permitted use also depends on the license of the images on which the student and the teachers "
        "were trained; check that license first. The code of ensdistill is under the Apache License 2.0."
    )


# --- helpers ----------------------------------------------------------------------------------------------------------


def _words(piece: BaseModel) -> str:
    """Returns settings as text, such as `resnet (depth 20, width 16)`."""
    values = flatten(piece.model_dump(mode="json"))
    kind = values.pop("kind", "")
    text = ", ".join(f"{name} {json.dumps(value).strip(chr(34))}" for name, value in values.items() if value != "")
    return f"{kind} ({text})" if kind and text else kind or text


def _placeholders(run: DistillationRun) -> dict[str, Any]:
    """Returns the values for the placeholders in the ONNX Runtime example."""
    channels = run.shape[0]
    return {"mode": "L" if channels == 1 else "RGB", "channels": channels}


def _table(rows: Rows, own: Iterable[str]) -> str:
    """Returns a table with one row per network."""
    names = [name for name in (*SHOWN, *own) if any(name in metrics for metrics in rows.values())]
    lines = [[network, *(_figure(metrics.get(name)) for name in names)] for network, metrics in rows.items()]
    return markdown_table(["", *names], lines)


def _own_metrics(own: Mapping[str, bool]) -> str:
    """Returns a sentence that lists the user-defined metrics; empty if there are none."""
    listed = [f"`{name}` ({'higher' if higher else 'lower'} is better)" for name, higher in own.items()]
    return f" User-defined metrics: {', '.join(listed)}." if listed else ""


def _figure(value: float | Sequence[float] | None) -> str:
    """Returns a metric as text; for several seeds, the mean and standard deviation."""
    if value is None:
        return ""
    return f"{mean_and_spread(value)} (n={len(value)})" if isinstance(value, Sequence) else f"{value:.4f}"


def _costs(costs: Mapping[str, InferenceCost]) -> str:
    """Returns the section about the inference cost."""
    head = ["", "weights", "parameters", "MFLOP per image", *(f"ms, batch {batch}" for batch in BATCHES)]
    return (
        f"{markdown_table(head, [[network, *cost.in_words()] for network, cost in costs.items()])}\n\n"
        "BatchNorm is folded into convolutions. Times are medians in PyTorch on one thread. In the row that names an "
        "image size, the time includes resizing one uint8 image of this size."
    )
