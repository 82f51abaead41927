"""Rows of results, each about one subject: a candidate of the study, the ensemble, or its teachers one by one.

A row names its subject by kind and trial. What people read is made where it is shown, by
`ensdistill_tune.analysis.labels`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat


class Subject(BaseModel):
    """What a row is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["candidate", "ensemble", "teacher_mean"]
    trial: int | None = None  # of a candidate: the trial whose settings it has


class TestMetrics(Subject):
    """Metrics on the test images."""

    __test__ = False  # no class of tests

    metrics: list[dict[str, float]]  # one mapping a seed, in the order of `seeds` in confirmation.json


class NetworkDiagnostics(Subject):
    """What a figure shows of one network or of the ensemble."""

    ece: FiniteFloat
    reliability: list[tuple[FiniteFloat, FiniteFloat, int]]  # confidence, accuracy and number of images of each bin
    entropy: list[FiniteFloat] = []  # mean over each part of the images, in nats


class Diagnostics(BaseModel):
    """The content of diagnostics.json: calibration and disagreement of the networks that were looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["test", "validation"]
    images: int
    teachers: list[FiniteFloat] = []  # mean mutual information in ten parts of the images, least first
    networks: list[NetworkDiagnostics] = []  # first the candidate that ships, then baselines, then the ensemble
