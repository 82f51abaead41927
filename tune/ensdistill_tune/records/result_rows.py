"""Rows of results, each about one subject: a candidate of the study, the ensemble, or the mean over its teachers.

A row identifies its subject by kind and trial. `ensdistill_tune.analysis.labels` makes labels for display.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat


class Subject(BaseModel):
    """Subject of a row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["candidate", "ensemble", "teacher_mean"]
    trial: int | None = None  # only for a candidate: the trial with its settings


class TestMetrics(Subject):
    """Metrics on the test set."""

    __test__ = False  # pytest would collect the class because of its name

    metrics: list[dict[str, float]]  # one mapping per seed, in the order of `seeds` in confirmation.json


class NetworkDiagnostics(Subject):
    """Diagnostics of one network or of the ensemble, for figures."""

    ece: FiniteFloat
    reliability: list[tuple[FiniteFloat, FiniteFloat, int]]  # confidence, accuracy and number of images of each bin
    entropy: list[FiniteFloat] = []  # mean over each part of the images, in nats


class Diagnostics(BaseModel):
    """Content of diagnostics.json: calibration and disagreement of the evaluated networks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["test", "validation"]
    images: int
    teachers: list[FiniteFloat] = []  # mean mutual information in ten parts of the images, least first
    networks: list[NetworkDiagnostics] = []  # first the candidate that ships, then baselines, then the ensemble
