"""Metrics of a trial after each epoch, stored in a tenth of the memory that a list of dictionaries requires."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

Metrics = dict[str, float]
_shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # tuples of metric names, which most epochs share


class EpochMetrics(Sequence[Metrics]):
    """The metrics after each epoch: the values in one array, the names in tuples that all trials share."""

    __slots__ = ("_ends", "_last", "_names", "_values")

    def __init__(self, epochs: Iterable[Metrics] = ()) -> None:
        """Stores the metrics of these epochs."""
        self._values, self._ends = array("d"), array("q")  # the values of epoch n end at position _ends[n]
        self._names: list[tuple[str, ...]] = []
        self._last: Metrics = {}
        for metrics in epochs:
            self.append(metrics)

    def append(self, metrics: Metrics) -> None:
        """Stores the metrics after the next epoch."""
        names = tuple(metrics)
        self._names.append(_shared.setdefault(names, names))
        self._values.extend(metrics.values())
        self._ends.append(len(self._values))
        self._last = metrics

    def forget_earlier(self) -> None:
        """Removes all epochs except the last one."""
        if len(self) > 1:
            del self._values[: self._ends[-2]], self._names[:-1]
            self._ends = array("q", [len(self._values)])

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, which: int) -> Metrics: ...
    @overload
    def __getitem__(self, which: slice) -> list[Metrics]: ...
    def __getitem__(self, which: int | slice) -> Metrics | list[Metrics]:
        places = range(len(self))[which]
        if isinstance(places, range):
            return [self._at(place) for place in places]
        return self._last if places == len(self) - 1 else self._at(places)

    def __iter__(self) -> Iterator[Metrics]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    __hash__ = None  # type: ignore[assignment]

    def _at(self, place: int) -> Metrics:
        start = self._ends[place - 1] if place else 0
        return dict(zip(self._names[place], self._values[start : self._ends[place]], strict=True))
