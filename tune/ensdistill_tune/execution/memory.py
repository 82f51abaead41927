"""Each training keeps to its share of a GPU's memory, says what would fit if that was too little, and gives it back."""

import gc
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ensdistill.errors import OutOfMemoryError, teacher_name
from ensdistill.runtime.formatting import memory_size

_UNITS = {unit: 1024**power for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))}
_ASKED = re.compile(rf"ried to allocate ([\d.]+) ?({'|'.join(_UNITS)})")  # as torch says it of a GPU and of the machine


@contextmanager
def memory_limit(share: float, teacher: int | None = None) -> Iterator[None]:
    """The block is one training: it has its share of a GPU's memory, and leaves nothing behind in this process.

    share: of a GPU, `resources.gpus`; 0 for none. teacher: which one is trained, if it is no trial.
    Raises OutOfMemoryError if the memory does not suffice, with what was needed and what would fit.
    """
    shortage = None
    try:
        _claim(share)
        yield
    except BaseException as error:
        shortage = _shortage(error, share, "training" if teacher is None else "teachers.training")
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that was broken off
        if shortage is None:
            raise
    finally:
        free_memory()
        gc.freeze()  # what is left is not looked through again, or this would take 0.2 s after every trial
    if shortage is not None:
        raise OutOfMemoryError(shortage if teacher is None else f"{teacher_name(teacher)}: {shortage}")


def free_memory() -> None:
    """Gives back what is no longer in use. A training leaves tensors in cycles of objects, which must be collected."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _claim(share: float) -> None:
    """Nobody can take what the others on the same GPU were promised; how much is used at most is counted anew."""
    if not share or not torch.cuda.is_available():
        return
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    torch.cuda.empty_cache()  # of what the arguments of the one before still held at its end
    torch.cuda.reset_peak_memory_stats()


def _shortage(error: BaseException, share: float, training: str) -> str | None:
    """What was held, what there is, what would fit; None if the error is about something else."""
    text = str(error)
    found = _ASKED.search(text)
    asked = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in text:
        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()  # with the gaps between tensors, which are its own too
        held = max(torch.cuda.max_memory_allocated(), reserved)
        return of_gpu(held, asked, total, total - free - reserved, share, training)
    if "CUDA error: out of memory" in text:  # nobody can be asked for figures then
        return (
            "out of GPU memory: too full for CUDA to start; "
            "give trials a larger share (resources.gpus) or end what uses it"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return of_machine(held, asked, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), training)
    return None


def of_gpu(held: int, asked: int, total: int, others: int, share: float, training: str) -> str:
    """A shortage in words, from sizes in bytes. held: at the peak; others: what is in use beside that."""
    wanted = share_that_fits(held + asked, total)
    if wanted is None:
        advice = "even alone it does not fit: "
    elif wanted > share:
        advice = f"give trials a larger share (resources.gpus: {wanted:g} instead of {share:g}) or "
    else:
        advice = "its share would do, but others hold too much: end them, give trials a larger share, or "
    return (
        f"out of GPU memory: it held {memory_size(held)}{_more(asked)}; the GPU has {memory_size(total)}, of which "
        f"others hold {memory_size(others)} and resources.gpus {share:g} is "
        f"{memory_size(round(min(share, 1) * total))}; {advice}lower {training}.batch_size"
    )


def of_machine(held: int, asked: int, total: int, training: str) -> str:
    """The same of the machine's own memory. held: by the process, at its peak."""
    fits = held + asked <= total
    advice = (
        "let fewer trials run side by side (a larger resources.cpus) or " if fits else "even alone it does not fit: "
    )
    return (
        f"out of memory: its process held {memory_size(held)}{_more(asked)}; the machine has {memory_size(total)}; "
        f"{advice}lower {training}.batch_size"
    )


def share_that_fits(need: int, total: int) -> float | None:
    """The share of a GPU, in hundredths, with which as many trainings of this need as possible fit side by side.

    None if not even one fits.
    """
    hundredths = max(1, -(-100 * need // total))
    return None if hundredths > 100 else 100 // (100 // hundredths) / 100


def _more(asked: int) -> str:
    return f" and asked for {memory_size(asked)} more" if asked else ""
