"""Learning curves of any settings, from those that digits_curves.py trained: a smooth mean and luck on top of it.

The mean is a Gaussian process over the axes on the principal components of log NLL by epoch. Luck is a whole curve
too: what a real training had beside the mean of its settings and the mean of its seed. (A study trains all with one
seed, so what that seed does to all of them is no luck.) It is chosen by a hash of the settings. So a search sees
curves that cross each other as real ones do, and the same settings give the same curve again.
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
KEPT = 0.995  # of the variance of curves, by the components that are kept


class Curves:
    """`val/nll` after each epoch, as a function of settings."""

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
        """The curve of these settings."""
        words = json.dumps(settings, sort_keys=True).encode()
        luck = int.from_bytes(hashlib.sha256(words).digest()[:8], "big") % len(self.residuals)
        curve: Array = np.exp(self._mean(self._model, np.array([self._point(settings)]))[0] + self.residuals[luck])
        return curve

    @cached_property
    def residuals(self) -> Array:
        """What luck adds to log NLL, by epoch: one curve for each training of settings with several seeds."""
        seeds = len(set(self._seeds))
        apart = [self._logs[members] - self._logs[members].mean(0) for members in self._repeated]
        found: Array = np.concatenate(apart) * np.sqrt(seeds / (seeds - 1))
        return found

    @property
    def _repeated(self) -> list[list[int]]:
        return [members for members in self._groups.values() if len(members) == len(set(self._seeds))]

    def _as_of_one_seed(self, logs: Array) -> Array:
        """Without what each seed does to all settings alike, by epoch."""
        both = np.array([logs[members] for members in self._repeated])  # settings, seeds, epochs
        effect = both.mean(0) - both.mean((0, 1))
        return logs - effect[self._seeds]

    def held_out_correlation(self, folds: int = 5) -> float:
        """Spearman's rank correlation of predicted and real last values of points that the model has not seen."""
        said = np.zeros(len(self.real))
        of_point = {n: place for place, members in self._groups.items() for n in members}
        fold = np.array([int(of_point[n]) % folds for n in range(len(self.real))])
        scores = (self._logs - self._center) @ self._components.T / self._scale
        for f in range(folds):
            model = self._fitted(self.points[fold != f], scores[fold != f], self._model.kernel_)
            said[fold == f] = self._mean(model, self.points[fold == f])[:, -1]
        return float(spearmanr(said, self._logs[:, -1]).statistic)

    def foresight(self, epoch: int) -> float:
        """Spearman's rank correlation of values after an epoch with those after the last."""
        return float(spearmanr(self._logs[:, epoch - 1], self._logs[:, -1]).statistic)

    @property
    def spread(self) -> float:
        """Of the last value, standard deviation of log NLL over all trainings."""
        return float(self._logs[:, -1].std())

    def _point(self, settings: Mapping[str, Any]) -> list[float]:
        """Every axis between 0 and 1, in its logarithm if it is drawn so; one that is not there lies in the middle."""
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
        """A new kernel is fitted too, with a length for each axis."""
        new = ConstantKernel() * RBF(np.ones(points.shape[1]), (0.05, 1000)) + WhiteKernel(0.1)
        model = GaussianProcessRegressor(kernel or new, optimizer=None if kernel else "fmin_l_bfgs_b", random_state=0)
        return model.fit(points, scores)

    def _mean(self, model: GaussianProcessRegressor, points: Array) -> Array:
        scores = np.asarray(model.predict(points)).reshape(len(points), -1) * self._scale
        mean: Array = self._center + scores @ self._components
        return mean
