"""Commands of `ensdistill`: each function receives the options of one command and returns the exit code."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ensdistill.cli.predict import classify
from ensdistill.cli.prediction_inputs import (
    STDIN,
    PredictionLog,
    find_images,
    images_in_list,
    protect,
    protected,
    watched,
)
from ensdistill.cli.prediction_writers import write_predictions
from ensdistill.config import Config, load_config
from ensdistill.data import Split, fit_images, load_data, load_test
from ensdistill.data.image_files import ImageFile
from ensdistill.errors import ConfigError, ConfigIssue
from ensdistill.evaluation.evaluator import Evaluator, evaluate_corruptions, ood_auroc_of
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.own_metrics import metric_directions
from ensdistill.evaluation.plausibility import teacher_warnings
from ensdistill.evaluation.tables import (
    corruption_table,
    file_table,
    metrics_table,
    price_table,
    student_in_words,
    teacher_rows,
    teachers_in_words,
)
from ensdistill.export.classifier import open_classifier
from ensdistill.export.exporter import export_student
from ensdistill.export.run_locator import locate_run, next_command
from ensdistill.pipeline import distill_to_directory, load_inputs, metric_warnings, teacher_metrics
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.progress_bar import console, show_warnings
from ensdistill.runtime.randomness import deterministic


def teachers(options: argparse.Namespace) -> int:
    """Trains or loads the teachers and prints their metrics."""
    config = load_config(options.config, options.set)
    data, ensemble = load_inputs(config, options.studies_dir, options.device)
    metrics = teacher_metrics(ensemble, data, config)
    suspicious = teacher_warnings(metrics, len(data.class_names))
    show_warnings(suspicious)
    result = {
        "ensemble_hash": ensemble.identity,
        "data_hash": data.identity,
        "val": metrics,
        "warnings": [warning.as_row() for warning in (*suspicious, *ensemble.warnings, *data.warnings)],
    }
    _print(options, result, "validation", teacher_rows(metrics), teachers_in_words(metrics), config)
    return 0


def distill(options: argparse.Namespace) -> int:
    """Distills one student and prints its metrics."""
    config = load_config(options.config, options.set)

    def show_command(checkpoint: Path) -> None:
        again = [] if options.out is None else [("--out", options.out)]
        print(f"to resume: {next_command('distill', options, *again, ('--resume', checkpoint))}", file=sys.stderr)

    run = distill_to_directory(
        config,
        options.out,
        studies=options.studies_dir,
        device=options.device,
        resume=options.resume,
        on_interrupt=show_command,
    )
    student, epoch = run.result["val"], run.epoch
    several = {"mean of its subnetworks": epoch.subnetworks} if epoch.subnetworks != epoch.val else {}
    rows = {"student": student} | several | teacher_rows(run.teachers)
    weights = f"weights: {config.training.selected_epoch(epoch.selected)}"
    last = f"{student_in_words(student)}\n{weights}\nstudent, settings and checkpoint: {run.folder}"
    _print(options, run.result, "validation", rows, last, config)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Prints the metrics of a student."""
    found = locate_run(options)
    run, config, data = found.run, found.run.config, found.run.data
    split, where = data.validation, options.studies_dir
    if options.split == "test":
        split = load_test(config.data, where).to(data.train.images.device)
    other = _other_images(options, split) if options.ood else None
    with deterministic(config.training.threads):
        evaluator = Evaluator(run.ensemble, data, split, config.metrics)
        metrics, teachers = evaluator.student(run.network), evaluator.teachers()
        outside = {name: ood_auroc_of(n, split, other) for name, n in run.networks.items() if other is not None}
        worse = {name: evaluate_corruptions(n, split) for name, n in run.networks.items() if options.corruptions}
    result = {"config_hash": config.hash, "student": str(found.student), "split": options.split, options.split: metrics}
    known = (*(run.ensemble.warnings if run.ensemble is not None else ()), *data.warnings)
    show_warnings(known)
    suspicious = (*metric_warnings(data, metrics, teachers), *known)
    result |= {"teachers": teachers, "ood_auroc": outside, "corruptions": worse}
    result |= {"warnings": [warning.as_row() for warning in suspicious]}
    rows = {f"student ({len(split)} images)": metrics} | teacher_rows(teachers)
    words = [student_in_words(metrics)]
    words += [f"OOD AUROC of the {name} against {options.ood}: {value:.4f}" for name, value in outside.items()]
    words += [found.alone] if found.alone else []
    _print(options, result, options.split, rows, "\n".join(words), config)
    if worse and not options.json:
        console().print(corruption_table(worse))
    return 0


def export(options: argparse.Namespace) -> int:
    """Exports a student to deployable formats; prints file sizes and inference cost."""
    found = locate_run(options)
    with console(stderr=True).status("writing and verifying the files"):
        done = export_student(
            found.run, options.out or found.student.parent / "export", options.license, None, options.formats
        )
    show_warnings(map(ConfigIssue.from_row, done.warnings))
    if options.json:
        print(json.dumps(asdict(done) | {"folder": str(done.folder)}, allow_nan=False))
        return 0
    console().print(file_table(done.sizes, done.differences), price_table(done.prices))
    words = [done.in_words(), *([found.alone] if found.alone else [])]
    words += [f"export: {done.folder}", f"try it: {command_line('ensdistill', 'predict', done.folder)} IMAGES"]
    console().print("\n".join(words), soft_wrap=True)
    return 0


def predict(options: argparse.Namespace) -> int:
    """Classifies images with an exported student; returns 1 if some images cannot be read."""
    classifier, log = open_classifier(options.model), PredictionLog()
    files, total = _images(options, log)
    answers = classify(classifier, watched(files, total, log), log.skip, log.remark)
    write_predictions(answers, classifier, options.format, options.top, options.out)
    return log.close()


def _images(options: argparse.Namespace, log: PredictionLog) -> tuple[Iterable[ImageFile], int | None]:
    """Returns the images named on the command line, and their number (None if they come from standard input)."""
    out, model = Path(options.out) if options.out else None, Path(options.model)
    protect(out, model, *(model.iterdir() if model.is_dir() else ()))
    if STDIN in options.images:
        if len(options.images) > 1:
            raise ConfigError(f"IMAGES: {STDIN} (standard input) must be the only argument; omit the others")
        return protected(out, images_in_list(sys.stdin.buffer, log)), None
    protect(out, *map(Path, options.images))
    images = find_images(options.images)
    log.leave_out(images)
    return list(protected(out, images.files)), len(images.files)


def _other_images(options: argparse.Namespace, like: Split) -> Split:
    """Returns the validation or test split of the data set given by `--ood`, in the image shape of `like`."""
    without_training = ["training.batch_size=1", "teachers.training.batch_size=1"]  # a batch of 1 fits any data set
    settings = load_config(options.ood, without_training).data
    where = options.studies_dir
    images = load_data(settings, where).validation if options.split == "validation" else load_test(settings, where)
    channels, height, width = like.images.shape[1:]
    return fit_images(images, (channels, height, width)).to(like.images.device)


def _print(
    options: argparse.Namespace,
    result: Mapping[str, Any],
    split: str,
    rows: Mapping[str, Metrics],
    last: str,
    config: Config,
) -> None:
    """Prints the result as one JSON object, or prints `rows` as a table followed by the text `last`."""
    if options.json:
        print(json.dumps(result, allow_nan=False))
        return
    screen = console()
    screen.print(metrics_table(split, rows, list(metric_directions(config))))
    if last:
        screen.print(last, soft_wrap=True)
