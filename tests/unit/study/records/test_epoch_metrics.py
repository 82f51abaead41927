"""The compact metrics of a trial behave like a list of dictionaries."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from ensdistill_tune.records.epoch_metrics import EpochMetrics

VALUES = st.floats(allow_nan=False, allow_infinity=False)
EPOCHS = st.lists(st.dictionaries(st.sampled_from(["epoch", "val/nll", "cost/latency_ms", "x"]), VALUES), max_size=6)


@given(EPOCHS, st.integers(-8, 8), st.integers(-8, 8))
def test_epoch_metrics_behave_like_the_list_of_their_rows(rows: list[dict[str, float]], start: int, stop: int) -> None:
    compact = EpochMetrics(rows)
    assert compact == rows
    assert list(compact) == rows
    assert compact[start:stop] == rows[start:stop]
    assert len(compact) == len(rows)
    for place in range(-len(rows), len(rows)):
        assert compact[place] == rows[place]
        assert list(compact[place]) == list(rows[place])  # the order of the names, too
    assert compact != [*rows, {}]
    compact.forget_earlier()
    assert compact == rows[-1:]


def test_epoch_metrics_use_less_than_a_fifth_of_the_memory_that_dictionaries_use() -> None:
    def rows() -> list[dict[str, float]]:
        return [{f"val/{name}": epoch + name / 7 for name in range(22)} for epoch in range(2000)]

    def memory(work: type) -> int:
        tracemalloc.start()
        kept = work(rows())
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(kept) == 2000
        return used

    assert memory(EpochMetrics) < memory(list) / 5
