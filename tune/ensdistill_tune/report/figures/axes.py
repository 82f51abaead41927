"""Axes that stay readable on a phone: outliers do not stretch the range, and ticks are a few round numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensdistill_tune.formatting import short_value
from ensdistill_tune.search.hyperparameter import Hyperparameter

ROUND = (1.0, 2.0, 5.0)
CLOSER = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
SPARE = 0.06  # margin at both ends, as a share of the range


@dataclass(frozen=True)
class Scale:
    """A numeric axis. `low` and `high` are base-10 logarithms if `log` is true."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, values: Iterable[float], *, log: bool, always: Sequence[float] = ()) -> "Scale":
        """Returns a scale that excludes outliers, which would hide differences between the other values.

        Outliers are values more than three interquartile ranges outside the quartiles (Tukey). `log` has an effect only
        if all values are positive. The values in `always` are on the scale even if they are outliers.
        """
        known = np.array([*always, *(value for value in values if math.isfinite(value))], dtype=np.float64)
        if not known.size:
            return cls(0, 1, log=False)
        log = log and bool(known.min() > 0)
        seen = np.log10(known) if log else known
        near, far = np.quantile(seen, [0.25, 0.75])
        fence = 3 * (far - near)
        inside = [*seen[: len(always)], *seen[(seen >= near - fence) & (seen <= far + fence)]]
        spare = SPARE * float(np.ptp(inside)) or 0.05
        return cls(float(min(inside)) - spare, float(max(inside)) + spare, log)

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value of the scale."""
        return (10**self.low, 10**self.high) if self.log else (self.low, self.high)

    def clip(self, value: float) -> float:
        """Returns the value itself or, if it is off the scale, the nearest position just inside the scale."""
        low, high = self._inside(0.035)
        return short(min(max(value, low), high))

    def share(self, value: float) -> float:
        """Returns the position of a value, from 0 at the low end to 1 at the high end."""
        clipped = self.clip(value)
        return ((math.log10(clipped) if self.log else clipped) - self.low) / (self.high - self.low)

    def worst(self, mode: str) -> float:
        """Returns the position at which a trial without a value is drawn: the worse end of the scale."""
        return short(self._inside(0.01)[0 if mode == "max" else 1])

    def _inside(self, share: float) -> tuple[float, float]:
        """Returns the ends, moved inward by `share`, so that rounding cannot move a mark off the axis."""
        little = share * (self.high - self.low)
        return Scale(self.low + little, self.high - little, self.log).ends

    def axis(self, title: str) -> dict[str, Any]:
        """Returns the axis as a Plotly layout setting."""
        made: dict[str, Any] = {"title": {"text": title}, "range": [self.low, self.high]}
        if not self.log:
            return made | {"nticks": 5}
        ticks = log_ticks(*self.ends)
        return made | {"type": "log", "tickvals": ticks, "ticktext": [in_digits(tick) for tick in ticks]}


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Returns round numbers in a range: powers of ten, and also their multiples if the range has fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0,), ROUND, CLOSER):
        round_numbers = [float(f"{step * 10.0**power:.3g}") for power in powers for step in steps]
        inside = [number for number in round_numbers if low * 0.999 <= number <= high * 1.001]
        if len(inside) >= 3:
            return inside[:: math.ceil(len(inside) / most)]
    return linear_ticks(low, high)


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns evenly spaced round numbers in a range."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [short(n * step) for n in range(first, last + 1)]


def setting_ticks(axis: Hyperparameter, most: int = 5) -> tuple[list[float], list[str]]:
    """Returns the tick positions (see `place`) and the tick labels of a searched setting."""
    if axis.is_categorical:
        return [float(n) for n in range(len(axis.values))], [_cut(short_value(value)) for value in axis.values]
    low, high = axis.values
    if axis.kind == "integer":
        ticks = [float(n) for n in range(low, high + 1, math.ceil((high - low + 1) / most))]
    else:
        ticks = log_ticks(low, high, most) if axis.kind == "log_uniform" else linear_ticks(low, high, most)
    return ticks, [in_digits(tick) for tick in ticks]


def setting_axis(axis: Hyperparameter, title: str) -> dict[str, Any]:
    """Returns the axis of a searched setting as a Plotly layout setting."""
    ticks, words = setting_ticks(axis)
    low, high = (-0.5, len(ticks) - 0.5) if axis.is_categorical else map(float, axis.values)
    log = axis.kind == "log_uniform"
    if log:
        low, high = math.log10(low), math.log10(high)
    spare = 0 if axis.is_categorical else SPARE * (high - low)
    made = {"title": {"text": title}, "range": [low - spare, high + spare], "tickvals": ticks, "ticktext": words}
    return made | ({"type": "log"} if log else {})


def place(axis: Hyperparameter, value: Any) -> float:
    """Returns the position of a value on the axis of a setting: the number itself, or the index of the choice."""
    return float(axis.values.index(value)) if axis.is_categorical else short(float(value))


def short(value: float) -> float:
    """Rounds to five significant digits, because more digits would be invisible and would increase the file size."""
    return float(f"{value:.5g}")


def in_digits(value: float) -> str:
    """Returns a number in short form: 0.0025, 12, 315k, 3M."""
    for least, unit, one in ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e4, "k", 1e3)):
        if abs(value) >= least:
            return f"{value / one:.3g}{unit}"
    return f"{value:.3g}"


def _cut(word: str, most: int = 18) -> str:
    return word if len(word) <= most else word[: most - 1] + "…"
