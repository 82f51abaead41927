"""Compares students on CIFAR-10 (JPEG) at 16x16 pixels; completed students are recorded, so the command can be resumed.

    python -m tests.benchmarks.photographs cifar10-jpeg.zip                         (one seed of every student)
    python -m tests.benchmarks.photographs cifar10-jpeg.zip --students kd dist --seeds 5
    python -m tests.benchmarks.photographs                                          (prints the tables)

All students have the same four teachers and the same images: 4,000 labeled training images, 2,000 validation images,
44,000 unlabeled images and 10,000 test images. `photographs.csv` contains one row per student and seed, and the rows of
the teachers; a student that diverges has no row. The best students are chosen by validation NLL. A student takes two to
ten CPU minutes.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

from ensdistill import distill, get_ensemble, load_config, load_data
from ensdistill.config import Config, presets
from ensdistill.data import DataSplits, load_test
from ensdistill.errors import DivergedError
from ensdistill.evaluation.evaluator import Evaluator
from ensdistill.evaluation.metric_values import Metrics, mean_metrics
from ensdistill.evaluation.tables import markdown_table
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.randomness import deterministic
from tests.benchmarks.all_presets import cell
from tests.benchmarks.csv_rows import append_row, read_rows

RECORDS = Path(__file__).with_suffix(".csv")
RECIPE = "epochs: 120, batch_size: 64, precision: bfloat16, augmentation: {pad: 2, flip: true}"
ALPHA_1 = "loss.alpha=1"
UNLABELED = [ALPHA_1, "training.unlabeled_batch_size=64"]
# Students that are no presets: their preset, and the changed settings.
VARIANTS = {
    "kd, alpha 1": ("kd", [ALPHA_1]),
    "kd, alpha 1, unlabeled images": ("kd", UNLABELED),
    "kd, alpha 1, unlabeled images, temperature 2": ("kd", [*UNLABELED, "loss.temperature=2"]),
    "dist, alpha 1": ("dist", [ALPHA_1]),
    "dist, alpha 1, unlabeled images": ("dist", UNLABELED),
}
STUDENTS = (*presets(), *VARIANTS)
ENSEMBLE, TEACHER = "ensemble of 4 teachers", "one teacher"
KEPT = ("accuracy", "nll", "ece", "cnll", "dee")  # metrics in the table
COLUMNS = ("student", "seed", "cpu_seconds", *(f"{part}_{name}" for part in ("val", "test") for name in KEPT))


def config_for(images: Path, student: str, seed: int) -> Config:
    """Returns the settings of a student; the seed determines only the student."""
    preset, changed = VARIANTS.get(student, (student, []))
    source = f"{{kind: image_folder, path: {images}, size: 16, train_size: 4000, val_size: 2000}}"
    first = [
        f"data={source}",
        "model.width=48",
        "teachers.model.width=48",
        f"training={{{RECIPE}}}",
        f"teachers.training={{{RECIPE}}}",
    ]
    return load_config(preset, [*first, *changed, f"seed={seed}"])


@cache
def inputs(images: Path, store: Path) -> tuple[DataSplits, TeacherEnsemble, dict[str, Evaluator]]:
    """Returns images, teachers, and evaluators for the validation and the test images; once per process."""
    disable_malloc_trim()
    config = config_for(images, "kd", 0)
    data = load_data(config.data)
    ensemble = get_ensemble(config, data, store)
    splits = {"val": data.validation, "test": load_test(config.data)}
    with deterministic(config.training.threads):
        return data, ensemble, {part: Evaluator(ensemble, data, split) for part, split in splits.items()}


def teachers(images: Path, store: Path) -> list[dict[str, str]]:
    """Returns the rows of the ensemble and of one teacher (mean)."""
    *_, evaluators = inputs(images, store)
    found = {part: evaluator.teachers() for part, evaluator in evaluators.items()}
    ensemble = row_of(ENSEMBLE, 0, 0, {part: known["ensemble"] for part, known in found.items()})
    return [ensemble, row_of(TEACHER, 0, 0, {part: mean_metrics(known["members"]) for part, known in found.items()})]


def one_student(images: Path, store: Path, student: str, seed: int) -> dict[str, str]:
    """Trains a student and returns its row."""
    data, ensemble, evaluators = inputs(images, store)
    config = config_for(images, student, seed)
    start = time.process_time()
    run = distill(config, ensemble, data)
    list(run)
    seconds = time.process_time() - start
    with deterministic(config.training.threads):
        found = {part: evaluator.student(run.student()) for part, evaluator in evaluators.items()}
    return row_of(student, seed, seconds, found)


def row_of(student: str, seed: int, seconds: float, found: dict[str, Metrics]) -> dict[str, str]:
    """Returns a row of the table."""
    values = {f"{part}_{name}": f"{metrics[name]:.4f}" for part, metrics in found.items() for name in KEPT}
    return {"student": student, "seed": str(seed), "cpu_seconds": f"{seconds:.0f}", **values}


def train(images: Path, store: Path, jobs: list[tuple[str, int]], processes: int) -> None:
    """Trains students and appends each row to the file as soon as the student is complete."""
    with ProcessPoolExecutor(processes) as pool:
        if ENSEMBLE not in {row["student"] for row in read_rows(RECORDS)}:
            for row in pool.submit(teachers, images, store).result():
                append_row(RECORDS, COLUMNS, row)
        work = {pool.submit(one_student, images, store, *job): job for job in jobs}
        for done in as_completed(work):
            try:
                append_row(RECORDS, COLUMNS, done.result())
            except DivergedError as error:
                print(f"{work[done]}: {error}", flush=True)
            else:
                print(", ".join(f"{name} {value}" for name, value in done.result().items()), flush=True)


def table(part: str) -> str:
    """Returns a table of all recorded students, best validation NLL first; mean and standard deviation over seeds."""
    known = dict[str, list[dict[str, str]]]()
    for row in read_rows(RECORDS):
        known.setdefault(row["student"], []).append(row)
    order = sorted(known, key=lambda who: statistics.fmean(float(row["val_nll"]) for row in known[who]))
    return markdown_table(("", "seeds", *KEPT, "CPU seconds"), [list(_cells(who, known[who], part)) for who in order])


def _cells(student: str, found: list[dict[str, str]], part: str) -> Iterator[str]:
    yield student
    yield str(len(found))
    for name in KEPT:
        yield cell([float(row[f"{part}_{name}"]) for row in found], 3)
    yield f"{statistics.fmean(float(row['cpu_seconds']) for row in found):.0f}"


def main() -> None:
    """Trains the missing students and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path, help="CIFAR-10 as JPEG files; if missing, nothing is trained")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("studies/teachers"), help="folder of the teachers")
    options = parser.parse_args()
    if options.images:
        known = {(row["student"], int(row["seed"])) for row in read_rows(RECORDS)}
        wanted = [(who, seed) for seed in range(options.seeds) for who in options.students]
        jobs = [job for job in wanted if job not in known]
        print(f"{len(jobs)} of {len(wanted)} students to train", flush=True)
        train(options.images.resolve(), options.store.resolve(), jobs, options.processes)
    for part, name in (("val", "validation images"), ("test", "test images")):
        print(f"\n{name}\n\n{table(part)}")


if __name__ == "__main__":
    main()
