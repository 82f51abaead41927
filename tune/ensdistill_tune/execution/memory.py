"""Memory management of one training run: a limit on GPU memory, cleanup after the run, and clear error messages."""

import gc
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ensdistill.errors import OutOfMemoryError, teacher_name
from ensdistill.runtime.formatting import memory_size
from ensdistill.runtime.lazy import torch

_UNITS = {unit: 1024**power for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))}
_ASKED = re.compile(rf"ried to allocate ([\d.]+) ?({'|'.join(_UNITS)})")  # torch's messages for GPU and CPU


@contextmanager
def memory_limit(share: float, teacher: int | None = None) -> Iterator[None]:
    """Limits the training run inside the block to its share of GPU memory, and frees its memory afterwards.

    Args:
        share: Share of a GPU, as in `resources.gpus`; 0 for no GPU.
        teacher: Number of the teacher that is trained; None for a trial.

    Raises:
        OutOfMemoryError: There is not enough memory. The message states how much memory is required, and suggests
            settings that would fit.
    """
    shortage = None
    try:
        _claim(share)
        yield
    except BaseException as error:
        shortage = _shortage(error, share, "training" if teacher is None else "teachers.training")
        traceback.clear_frames(error.__traceback__)  # the frames would keep the tensors of the aborted step alive
        if shortage is None:
            raise
    finally:
        free_memory()
        gc.freeze()  # later collections skip the remaining objects, which saves 0.2 s after every trial
    if shortage is not None:
        raise OutOfMemoryError(shortage if teacher is None else f"{teacher_name(teacher)}: {shortage}")


def free_memory() -> None:
    """Frees unused memory; collects garbage first, because a training run leaves tensors in reference cycles."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _claim(share: float) -> None:
    """Limits the process to its share of GPU memory and resets the peak-memory counter."""
    if not share or not torch.cuda.is_available():
        return
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    torch.cuda.empty_cache()  # until now, arguments of the previous training run referenced this memory
    torch.cuda.reset_peak_memory_stats()


def _shortage(error: BaseException, share: float, training: str) -> str | None:
    """Returns the message for an out-of-memory error; None for any other error."""
    text = str(error)
    found = _ASKED.search(text)
    asked = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in text:
        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()  # includes gaps between tensors, which no other process can use
        held = max(torch.cuda.max_memory_allocated(), reserved)
        return of_gpu(held, asked, total, total - free - reserved, share, training)
    if "CUDA error: out of memory" in text:  # in this case CUDA reports no sizes
        return (
            "out of GPU memory: too little memory is free for CUDA to start; "
            "give trials a larger share (resources.gpus) or stop other processes on the GPU"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return of_machine(held, asked, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), training)
    return None


def of_gpu(held: int, asked: int, total: int, others: int, share: float, training: str) -> str:
    """Returns the message for insufficient GPU memory.

    Args:
        held: Peak memory of this process in bytes.
        asked: Size of the failed allocation in bytes; 0 if unknown.
        total: Memory of the GPU in bytes.
        others: Memory that other processes use, in bytes.
        share: GPU share of this process.
        training: Name of the settings section that contains the batch size.
    """
    wanted = share_that_fits(held + asked, total)
    if wanted is None:
        advice = "the training does not fit even if it runs alone: "
    elif wanted > share:
        advice = f"give trials a larger share (resources.gpus: {wanted:g} instead of {share:g}) or "
    else:
        advice = (
            "its share is sufficient, but other processes use too much memory: stop them, give trials a larger share, "
            "or "
        )
    return (
        f"out of GPU memory: the process used {memory_size(held)}{_more(asked)}; the GPU has {memory_size(total)}, "
        f"other processes use {memory_size(others)}, and resources.gpus {share:g} corresponds to "
        f"{memory_size(round(min(share, 1) * total))}; {advice}lower {training}.batch_size"
    )


def of_machine(held: int, asked: int, total: int, training: str) -> str:
    """Returns the message for insufficient main memory.

    Args:
        held: Peak memory of this process in bytes.
        asked: Size of the failed allocation in bytes; 0 if unknown.
        total: Memory of the machine in bytes.
        training: Name of the settings section that contains the batch size.
    """
    fits = held + asked <= total
    advice = (
        "run fewer trials in parallel (increase resources.cpus) or "
        if fits
        else "the training does not fit even if it runs alone: "
    )
    return (
        f"out of memory: the process used {memory_size(held)}{_more(asked)}; the machine has {memory_size(total)}; "
        f"{advice}lower {training}.batch_size"
    )


def share_that_fits(need: int, total: int) -> float | None:
    """Returns the GPU share that lets as many training runs of this size as possible fit on one GPU.

    Args:
        need: Memory of one training run in bytes.
        total: Memory of the GPU in bytes.

    Returns:
        The share, a multiple of 0.01; None if not even one training run fits.
    """
    hundredths = max(1, -(-100 * need // total))
    return None if hundredths > 100 else 100 // (100 // hundredths) / 100


def _more(asked: int) -> str:
    return f" and requested {memory_size(asked)} more" if asked else ""
