"""Memory shares, out-of-memory errors, and memory that is freed between trials of one process."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ensdistill import DataSplits, TeacherEnsemble, distill, load_config, load_data
from ensdistill.errors import DivergedError, OutOfMemoryError
from ensdistill_tune.execution import memory
from ensdistill_tune.execution.memory import free_memory, memory_limit, of_gpu, of_machine, share_that_fits

MIB, GIB = 2**20, 2**30


# --- suggested shares ---


@pytest.mark.parametrize(
    ("need", "total", "share"),
    [
        (1 * GIB, 12 * GIB, 0.09),  # eleven trials with a share of 0.09, 1.08 GiB each
        (3 * GIB, 12 * GIB, 0.25),
        (3 * GIB + 1, 12 * GIB, 0.33),  # four do not fit, but three do
        (4 * GIB, 12 * GIB, 0.5),  # a third is more than 0.33, and with 0.34 three trials do not fit
        (6 * GIB, 12 * GIB, 0.5),
        (6 * GIB + 1, 12 * GIB, 1.0),
        (12 * GIB, 12 * GIB, 1.0),
        (12 * GIB + 1, 12 * GIB, None),
        (1, 80 * GIB, 0.01),
    ],
)
def test_the_suggested_gpu_share_allows_the_maximum_number_of_parallel_trials(
    need: int, total: int, share: float | None
) -> None:
    assert share_that_fits(need, total) == share


@pytest.mark.parametrize("percent", range(1, 101))
def test_the_suggested_share_is_sufficient_and_one_more_trial_would_not_fit(percent: int) -> None:
    need, total = percent * GIB, 100 * GIB
    share = share_that_fits(need, total)
    assert share is not None
    beside = int(1 / share + 1e-9)
    assert share * total >= need
    assert int(100 / (beside + 1)) * GIB < need


def test_a_shortage_of_gpu_memory_is_reported_with_sizes_and_a_sufficient_share() -> None:
    words = of_gpu(int(2.9 * GIB), 512 * MIB, 12 * GIB, 5 * GIB, 0.25, "training")
    assert words == (
        "out of GPU memory: the process used 2.9 GiB and requested 512 MiB more; the GPU has 12.0 GiB, other processes "
        "use 5.0 GiB, and resources.gpus 0.25 corresponds to 3.0 GiB; give trials a larger share (resources.gpus: 0.33 "
        "instead of 0.25) or lower training.batch_size"
    )


@pytest.mark.parametrize(
    ("held", "share", "advice"),
    [
        (13 * GIB, 0.5, "does not fit even if it runs alone: lower teachers.training.batch_size"),
        (7 * GIB, 0.5, "(resources.gpus: 1 instead of 0.5) or lower teachers.training.batch_size"),
        (7 * GIB, 1, "but other processes use too much memory: stop them, give trials a larger share, or lower"),
    ],
)
def test_the_suggested_setting_avoids_the_shortage(held: int, share: float, advice: str) -> None:
    assert advice in of_gpu(held, 0, 12 * GIB, 5 * GIB, share, "teachers.training")


def test_the_error_about_exhausted_main_memory_suggests_fewer_trials_or_smaller_batches() -> None:
    assert of_machine(9 * GIB, GIB, 24 * GIB, "training") == (
        "out of memory: the process used 9.0 GiB and requested 1.0 GiB more; the machine has 24.0 GiB; run fewer "
        "trials in parallel (increase resources.cpus) or lower training.batch_size"
    )
    assert "does not fit even if it runs alone: lower training.batch_size" in of_machine(
        9 * GIB, 16 * GIB, 24 * GIB, "training"
    )


# --- out-of-memory errors of this project ---


def test_a_failed_allocation_of_torch_is_reported_with_its_size() -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"requested 1048576\.0 GiB more; the machine has .*: lower training"),
        memory_limit(0),
    ):
        torch.empty(2**50, dtype=torch.uint8)


def test_a_failed_allocation_of_numpy_is_reported() -> None:
    with pytest.raises(OutOfMemoryError, match="out of memory"), memory_limit(0):
        np.empty(2**50, dtype=np.uint8)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not fit"), DivergedError(1, 2, 3.0), SystemExit(0)], ids=repr
)
def test_errors_unrelated_to_memory_are_not_changed(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, memory_limit(0):
        raise error
    assert caught.value is error


class Gpu:
    """A GPU of 12 GiB that records calls; other processes use 5 GiB of it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def put_in_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (4 * GIB, 12 * GIB))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3 * GIB)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2 * GIB)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.calls.append("empty_cache"))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: self.calls.append("reset"))
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share: self.calls.append(share))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    fake = Gpu()
    fake.put_in_place(monkeypatch)
    return fake


TORCH_SAYS = (
    "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 12.00 GiB of which 4.00 GiB is "
    "free. 3.00 GiB allowed; Of the allocated memory 2.00 GiB is allocated by PyTorch."
)


def test_a_full_gpu_is_reported_with_all_memory_sizes(gpu: Gpu) -> None:
    with pytest.raises(OutOfMemoryError) as caught, memory_limit(0.25):
        raise torch.OutOfMemoryError(TORCH_SAYS)
    assert str(caught.value) == of_gpu(3 * GIB, 512 * MIB, 12 * GIB, 5 * GIB, 0.25, "training")


def test_an_out_of_memory_error_of_a_cuda_library_is_reported_like_one_of_torch(gpu: Gpu) -> None:
    with pytest.raises(OutOfMemoryError, match=r"the process used 3\.0 GiB; the GPU has 12\.0 GiB"), memory_limit(0.25):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def test_a_gpu_without_enough_memory_for_cuda_itself_is_reported(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: float) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", refuse)
    with (
        pytest.raises(OutOfMemoryError, match=r"too little memory is free for CUDA to start; .*resources\.gpus"),
        memory_limit(0.05),
    ):
        raise AssertionError


@pytest.mark.parametrize(("share", "capped"), [(0.25, [0.25]), (1, []), (2, [])])
def test_a_trial_can_use_only_its_share_of_gpu_memory(gpu: Gpu, share: float, capped: list[float]) -> None:
    with memory_limit(share):
        assert [call for call in gpu.calls if isinstance(call, float)] == capped
        assert "reset" in gpu.calls
        gpu.calls.clear()
    assert gpu.calls == ["empty_cache"]


def test_a_trial_without_a_gpu_makes_no_gpu_calls(gpu: Gpu) -> None:
    with memory_limit(0):
        assert gpu.calls == []


# --- memory is freed ---


@pytest.mark.parametrize("error", [MemoryError(), DivergedError(1, 2, 3.0), SystemExit(0)], ids=repr)
def test_tensors_of_an_aborted_step_are_freed_before_memory_is_released(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    gone: list[bool] = []
    monkeypatch.setattr(memory, "free_memory", lambda: gone.append(seen[0]() is None))

    def step() -> None:
        held = torch.ones(10)
        seen.append(weakref.ref(held))
        raise error

    with pytest.raises((OutOfMemoryError, type(error))), memory_limit(0):
        step()
    assert gone == [True]


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data(SETTINGS.data)


SETTINGS = load_config(
    "latentbe",
    [
        "data.train_size=60",
        "data.val_size=100",
        "model.width=8",
        "training.epochs=2",
        "training.batch_size=10",
        "averaging.kind=ema",
        "averaging.decay=0.9",
        "perturbation.kind=none",
        "student.subnetworks=2",
    ],
)


def train(data: DataSplits, ended_early: bool = False) -> None:
    """Runs one small trial in this process."""
    ensemble = TeacherEnsemble([nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2)], 10, "random")
    try:
        with memory_limit(0):
            run = distill(SETTINGS, ensemble, data)
            for _ in run:
                run.student()
                if ended_early:
                    raise SystemExit  # as Ray ends a trial that a scheduler stops
    except SystemExit:
        pass


def tensors() -> int:
    """Returns the number of tensors that the garbage collector can reach if no objects are frozen."""
    gc.unfreeze()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("ended_early", [False, True])
def test_no_tensor_of_a_trial_is_kept_after_the_trial_ends(digits: DataSplits, ended_early: bool) -> None:
    train(digits)
    before = tensors()
    gc.disable()
    try:
        train(digits, ended_early)
        assert tensors() == before
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_the_memory_of_a_process_does_not_grow_from_trial_to_trial(digits: DataSplits) -> None:
    sizes = []
    for trial in range(30):
        train(digits, ended_early=trial % 3 == 0)
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB)
    assert sizes[-1] - sizes[9] < 30


def test_reference_cycles_are_collected() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    one.other, two.other = [two], [one]
    gone = weakref.ref(one)
    del one, two
    free_memory()
    assert gone() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_trial_that_exceeds_its_share_fails_alone_and_frees_its_memory() -> None:
    def take_15_percent(share: float) -> None:
        with memory_limit(share):
            assert torch.empty(15 * total // 100, dtype=torch.uint8, device="cuda").is_cuda

    torch.zeros(1, device="cuda")
    free_memory()
    total, before = torch.cuda.mem_get_info()[1], torch.cuda.memory_reserved()
    try:
        take_15_percent(0.2)
        assert torch.cuda.memory_reserved() <= before
        with pytest.raises(OutOfMemoryError, match=r"resources\.gpus: 0\.16 instead of 0\.1\)"):
            take_15_percent(0.1)
        assert torch.cuda.memory_reserved() <= before
        take_15_percent(0.16)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
