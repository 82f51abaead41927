"""Result rows, one for each subject: a candidate of the study, the ensemble, or the mean of the teachers.

A row identifies its subject by kind and trial. `ensdistill_tune.analysis.labels` creates labels for display.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, StringConstraints

PngUri = Annotated[str, StringConstraints(pattern=r"^data:image/png;base64,[A-Za-z0-9+/]+=*$", max_length=40_000)]


class Subject(BaseModel):
    """Subject of a result row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["candidate", "ensemble", "teacher_mean"]
    trial: int | None = None  # trial number of a candidate; None for other subjects


class TestMetrics(Subject):
    """Metrics on the test set."""

    __test__ = False  # without this, pytest would treat the class as a test because of its name

    metrics: list[dict[str, float]]  # one mapping per seed, in the order of `seeds` in confirmation.json


class NetworkDiagnostics(Subject):
    """Diagnostics of one network or of the ensemble, for figures."""

    ece: FiniteFloat
    reliability: list[tuple[FiniteFloat, FiniteFloat, int]]  # confidence, accuracy and number of images of each bin
    entropy: list[FiniteFloat] = []  # mean entropy in nats of each image group in `Diagnostics.teachers`
    class_accuracy: list[FiniteFloat | None] = []  # accuracy by class; None for a class without images
    confusion: list[list[int]] = []  # rows: true classes; columns: predicted classes; last column: other classes


class ImageDiagnostics(BaseModel):
    """One image that the student misclassifies, or on which it disagrees with the ensemble, with a thumbnail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int  # index in the split
    label: int
    value: FiniteFloat  # value in nats by which the images are ordered
    student: tuple[int, FiniteFloat]  # predicted class and its probability
    ensemble: tuple[int, FiniteFloat] | None = None
    thumbnail: PngUri


class Diagnostics(BaseModel):
    """The content of diagnostics.json: calibration, disagreement, classes and images of the evaluated networks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["test", "validation"]
    images: int
    teachers: list[FiniteFloat] = []  # mean mutual information in nats of each of ten image groups, ascending
    class_names: list[str] = []
    confused: list[int] = []  # classes in the rows and columns of `confusion`, ascending
    wrong: list[ImageDiagnostics] = []  # images that the exported student misclassifies, largest NLL first
    disputed: list[ImageDiagnostics] = []  # images, by KL divergence from ensemble to exported student, largest first
    networks: list[NetworkDiagnostics] = []  # the winning candidate, then baselines, then the ensemble
