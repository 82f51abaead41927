"""Predicts learning curves of any settings from the trainings of digits_curves.py: a smooth mean plus residuals.

The mean is a Gaussian process over the hyperparameters, fitted to the principal components of log NLL by epoch. A
residual is also a complete curve: the difference between a real training and the mean of its settings and of its seed.
(All trials of a study share one seed, so the effect of the seed on all of them is not random.) The residual is selected
by a hash of the settings. Predicted curves therefore cross each other as real curves do, and the same settings always
give the same curve.
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from ensdistill_tune.study.study_config import StudyConfig
from tests.benchmarks.digits_curves import FILE

Array = NDArray[np.float64]
KEPT = 0.995  # share of the variance of the curves that the kept components explain


class Curves:
    """`val/nll` after each epoch, as a function of the settings."""

    def __init__(self, study: StudyConfig, file: Path = FILE) -> None:
        self._axes = study.search
        rows = list(csv.DictReader(file.open()))
        self.epochs = study.epochs
        self.real = np.array([[float(row[str(epoch)]) for epoch in range(1, self.epochs + 1)] for row in rows])
        self.points = np.array([self._point(row) for row in rows])
        self._groups = defaultdict[str, list[int]](list)
        for n, row in enumerate(rows):
            self._groups[row["place"]].append(n)
        self._seeds = np.array([int(row["seed"]) for row in rows])
        logs = self._logs = self._as_of_one_seed(np.log(self.real))
        self._center = logs.mean(0)
        _, spread, components = np.linalg.svd(logs - self._center, full_matrices=False)
        kept = 1 + int(np.argmax(np.cumsum(spread**2) / np.sum(spread**2) >= KEPT))
        self._components = components[:kept]
        scores = (logs - self._center) @ self._components.T
        self._scale = scores.std(0)
        self._model = self._fitted(self.points, scores / self._scale)

    def __call__(self, settings: Mapping[str, Any]) -> Array:
        """Returns the predicted curve of the given settings."""
        words = json.dumps(settings, sort_keys=True).encode()
        luck = int.from_bytes(hashlib.sha256(words).digest()[:8], "big") % len(self.residuals)
        curve: Array = np.exp(self._mean(self._model, np.array([self._point(settings)]))[0] + self.residuals[luck])
        return curve

    @cached_property
    def residuals(self) -> Array:
        """Residuals of log NLL by epoch: one curve for each training of settings trained with several seeds."""
        seeds = len(set(self._seeds))
        apart = [self._logs[members] - self._logs[members].mean(0) for members in self._repeated]
        found: Array = np.concatenate(apart) * np.sqrt(seeds / (seeds - 1))
        return found

    @property
    def _repeated(self) -> list[list[int]]:
        return [members for members in self._groups.values() if len(members) == len(set(self._seeds))]

    def _as_of_one_seed(self, logs: Array) -> Array:
        """Returns log NLL by epoch without the effect that each seed has on all settings."""
        both = np.array([logs[members] for members in self._repeated])  # settings, seeds, epochs
        effect = both.mean(0) - both.mean((0, 1))
        return logs - effect[self._seeds]

    def held_out_correlation(self, folds: int = 5) -> float:
        """Returns Spearman's rank correlation of predicted and real final values on held-out points."""
        said = np.zeros(len(self.real))
        of_point = {n: place for place, members in self._groups.items() for n in members}
        fold = np.array([int(of_point[n]) % folds for n in range(len(self.real))])
        scores = (self._logs - self._center) @ self._components.T / self._scale
        for f in range(folds):
            model = self._fitted(self.points[fold != f], scores[fold != f], self._model.kernel_)
            said[fold == f] = self._mean(model, self.points[fold == f])[:, -1]
        return float(spearmanr(said, self._logs[:, -1]).statistic)

    def foresight(self, epoch: int) -> float:
        """Returns Spearman's rank correlation between the values after an epoch and the final values."""
        return float(spearmanr(self._logs[:, epoch - 1], self._logs[:, -1]).statistic)

    @property
    def spread(self) -> float:
        """Standard deviation of the final log NLL over all trainings."""
        return float(self._logs[:, -1].std())

    def _point(self, settings: Mapping[str, Any]) -> list[float]:
        """Returns the coordinates of settings between 0 and 1, logarithmic where sampled so; missing values are 0.5."""
        point = []
        for name, axis in self._axes.items():
            value = settings.get(name)
            if axis.is_categorical:
                point += [float(str(value) == str(choice)) for choice in axis.values[1:]]
            elif value in (None, ""):
                point.append(0.5)
            else:
                low, high, here = (np.log(v) if axis.kind == "log_uniform" else v for v in (*axis.values, float(value)))
                point.append((here - low) / (high - low))
        return point

    def _fitted(self, points: Array, scores: Array, kernel: Any = None) -> GaussianProcessRegressor:
        """Returns a fitted Gaussian process; a new kernel is fitted too, with one length scale per hyperparameter."""
        new = ConstantKernel() * RBF(np.ones(points.shape[1]), (0.05, 1000)) + WhiteKernel(0.1)
        model = GaussianProcessRegressor(kernel or new, optimizer=None if kernel else "fmin_l_bfgs_b", random_state=0)
        return model.fit(points, scores)

    def _mean(self, model: GaussianProcessRegressor, points: Array) -> Array:
        scores = np.asarray(model.predict(points)).reshape(len(points), -1) * self._scale
        mean: Array = self._center + scores @ self._components
        return mean
