"""`ensdistill teachers | distill | evaluate CONFIG`: one ensemble, one student, by hand."""

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ensdistill.config import Config, load_config, presets, to_yaml
from ensdistill.data import Data, Split, fit_images, load_data, load_test
from ensdistill.distill import check_student, distill, new_student, read_checkpoint
from ensdistill.errors import ConfigError, DataError, EnsdistillError
from ensdistill.evaluation import Examiner, told_apart, under_corruption
from ensdistill.faults import settings_help
from ensdistill.files import writable_folder, write_json, write_text
from ensdistill.members import Ensemble
from ensdistill.progress import console, progress
from ensdistill.randomness import reproducibly
from ensdistill.tables import (
    Metrics,
    corruption_table,
    metrics_table,
    student_in_words,
    teacher_rows,
    teachers_in_words,
)
from ensdistill.teachers import Trainer, find_ensemble, get_ensemble, teacher_config, train_teachers
from ensdistill.version import __version__
from ensdistill.weights import STUDENT_FILE, load_weights, read_metadata, save_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the training failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: options.command(options))


def run_command(command: Callable[[], int]) -> int:
    """Runs a command; our own errors become one line a fault on standard error and an exit code."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        return command()
    except (ConfigError, DataError) as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except EnsdistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def load_everything(
    config: Config, studies: str, device: str, others: Sequence[Config] = (), train: Trainer = train_teachers
) -> tuple[Data, Ensemble]:
    """The data on the device and the trained ensemble, with a progress bar while teachers are trained.

    others: further settings that will be run on these data. What is wrong with any of them is told first (ConfigError).
    train: who trains the teachers that are missing.
    """
    data = load_data(config.data).to(pick_device(device))
    for one in (config, *others):
        check_student(one, data)
    if config.teachers.count:
        check_student(teacher_config(config, 0), data)
    count, done = config.teachers.count, dict[int, int]()
    with progress("teachers", count * config.teachers.training.epochs) as advance:

        def show(teacher: int, epochs: int) -> None:
            done[teacher] = epochs
            advance(sum(done.values()), f"teacher {teacher + 1} of {count}")

        ensemble = get_ensemble(config, data, Path(studies) / "teachers", show, train)
    return data, ensemble


def teacher_metrics(ensemble: Ensemble, data: Data, threads: int) -> dict[str, Any]:
    """Validation metrics of the ensemble and of each member, and what 1, 2, ..., M of them are worth."""
    with reproducibly(threads):
        return Examiner(ensemble, data, data.validation).teachers()


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one. Raises ConfigError for a device that torch cannot use here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: torch cannot use it here ({reason}); try --device cpu") from error


# --- the commands ----------------------------------------------------------------------------------------------------


def _teachers(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    data, ensemble = load_everything(config, options.studies, options.device)
    metrics = teacher_metrics(ensemble, data, config.training.threads)
    result = {"ensemble_hash": ensemble.identity, "data_hash": data.identity, "val": metrics}
    _print(options, result, "validation", teacher_rows(metrics), teachers_in_words(metrics))
    return 0


def _distill(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    out = _claim_folder(Path(options.out or Path(options.studies) / "runs" / config.hash), config)
    if options.resume:
        read_checkpoint(Path(options.resume))  # a bad one is told before teachers are trained
    data, ensemble = load_everything(config, options.studies, options.device)
    _check_same(out, data, ensemble)
    run = distill(config, ensemble, data, resume=options.resume)
    write_text(out / "config.yaml", to_yaml(config))
    epoch = None
    try:
        with progress("student", config.training.epochs) as advance:
            for epoch in run:
                if epoch.last:
                    metadata = {"settings": config.hash, "data": data.identity, "ensemble": ensemble.identity}
                    save_weights(out / STUDENT_FILE, epoch.student(), metadata)
                epoch.save(out / "checkpoint.pt")
                advance(epoch.number, f"validation NLL {epoch.val['nll']:.4f}")
    except KeyboardInterrupt:
        if (out / "checkpoint.pt").exists():
            again = [*([] if options.out is None else ["--out", options.out]), "--resume", str(out / "checkpoint.pt")]
            print(f"to go on: {_command('distill', options)} {shlex.join(again)}", file=sys.stderr)
        raise
    if epoch is None:
        raise ConfigError(f"{options.resume}: this run is already at its last epoch; its student lies beside it")
    with reproducibly(config.training.threads):
        examiner = Examiner(ensemble, data, data.validation)
        student, teachers = examiner.student(epoch.student()), examiner.teachers()
    result = {
        "config_hash": config.hash,
        "ensemble_hash": ensemble.identity,
        "data_hash": data.identity,
        "epochs": epoch.number,
        "loss": epoch.loss,
        "val": student,
        "subnetworks": epoch.subnetworks,
        "teachers": teachers,
        "student": str(out / STUDENT_FILE),
        "version": __version__,
        "torch": torch.__version__,
        "device": data.train.images.device.type,
    }
    write_json(out / "result.json", result)
    several = {"its subnetworks' mean": epoch.subnetworks} if epoch.subnetworks != epoch.val else {}
    rows = {"student": student} | several | teacher_rows(teachers)
    last = f"{student_in_words(student)}\nstudent, settings and checkpoint: {out}"
    _print(options, result, "validation", rows, last)
    return 0


def _claim_folder(out: Path, config: Config) -> Path:
    """The folder of a run. Raises DataError if another run lies there: nothing is overwritten."""
    if (out / STUDENT_FILE).exists() or (out / "config.yaml").exists():
        theirs = load_config(out / "config.yaml").hash if (out / "config.yaml").exists() else "unknown"
        if theirs != config.hash:
            raise DataError(f"{out}: another student is there (settings {theirs}); choose another folder with --out")
    return writable_folder(out)


def _check_same(out: Path, data: Data, ensemble: Ensemble) -> None:
    """Raises DataError if the folder has a student of the same settings from other images or other teachers."""
    if not (out / STUDENT_FILE).exists():
        return
    theirs = read_metadata(out / STUDENT_FILE)
    for what, mine in (("data", data.identity), ("ensemble", ensemble.identity)):
        if theirs.get(what) != mine:
            raise DataError(
                f"{out}: a student of the same settings is there, made with other {what} "
                f"({theirs.get(what)}, now {mine}); choose another folder with --out"
            )


def _evaluate(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    data = load_data(config.data).to(pick_device(options.device))
    path, network, learnt_from = _open_student(options, config, data)
    split = data.validation if options.split == "validation" else load_test(config.data).to(data.train.images.device)
    other = _other_images(options, split) if options.ood else None
    found = find_ensemble(config, data, Path(options.studies) / "teachers")
    ensemble = found if found is not None and found.identity == learnt_from else None
    networks: dict[str, nn.Module] = {"student": network} | ({"ensemble": ensemble} if ensemble else {})
    with reproducibly(config.training.threads):
        examiner = Examiner(ensemble, data, split)
        metrics, teachers = examiner.student(network), examiner.teachers()
        outside = {who: told_apart(n, split, other) for who, n in networks.items() if other is not None}
        worse = {who: under_corruption(n, split) for who, n in networks.items() if options.corruptions}
    result = {"config_hash": config.hash, "student": str(path), "split": options.split, options.split: metrics}
    result |= {"teachers": teachers, "ood_auroc": outside, "corruptions": worse}
    rows = {f"student ({len(split)} images)": metrics} | teacher_rows(teachers)
    words = [student_in_words(metrics)]
    words += [f"OOD AUROC of the {who} against {options.ood}: {value:.4f}" for who, value in outside.items()]
    if found is None:
        words.append(f"dee and agreement need the teachers: `{_command('teachers', options)}` trains them")
    elif ensemble is None:
        words.append("no dee and agreement: the teachers that are there are not those that this student learnt from")
    _print(options, result, options.split, rows, "\n".join(words))
    if worse and not options.json:
        console().print(corruption_table(worse))
    return 0


def _open_student(options: argparse.Namespace, config: Config, data: Data) -> tuple[Path, nn.Module, str | None]:
    """The file of a student, its network, and the identity of the ensemble it learnt from.

    Raises DataError if there is none, or one of other settings or other images.
    """
    path = Path(options.student) if options.student else _student_beside(options, config)
    network = new_student(config, data).merged().eval()
    metadata = load_weights(path, network, data.train.images.device)
    if metadata.get("settings") != config.hash:
        raise DataError(
            f"{path}: this student was made with other settings ({metadata.get('settings')}, now {config.hash})"
        )
    if metadata.get("data") != data.identity:
        raise DataError(
            f"{path}: this student was made with other images ({metadata.get('data')}, now {data.identity}); "
            "restore them or distil again"
        )
    return path, network, metadata.get("ensemble")


def _other_images(options: argparse.Namespace, like: Split) -> Split:
    """The images of the second data set: of the same kind of split, in the shape of the first."""
    nobody_trains = ["training.batch_size=1", "teachers.training.batch_size=1"]
    settings = load_config(options.ood, nobody_trains).data
    images = load_data(settings).validation if options.split == "validation" else load_test(settings)
    channels, height, width = like.images.shape[1:]
    return fit_images(images, (channels, height, width)).to(like.images.device)


def _command(name: str, options: argparse.Namespace) -> str:
    """Another command on the same settings and the same folder of results, to be typed as it stands."""
    words = ["ensdistill", name, options.config]
    words += [word for change in options.set for word in ("--set", change)]
    words += ["--studies", options.studies] if options.studies != "studies" else []
    return shlex.join(words)


def _student_beside(options: argparse.Namespace, config: Config) -> Path:
    places = [Path(options.config).parent / STUDENT_FILE] if Path(options.config).is_file() else []
    places.append(Path(options.studies) / "runs" / config.hash / STUDENT_FILE)
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{places[-1]}: no student there yet; run `{_command('distill', options)}` or give --student FILE")


def _print(
    options: argparse.Namespace, result: Mapping[str, Any], split: str, rows: Mapping[str, Metrics], last: str = ""
) -> None:
    """The result as one JSON object, or its rows as a table and a last word."""
    if options.json:
        print(json.dumps(result, allow_nan=False))
        return
    screen = console()
    screen.print(metrics_table(split, rows))
    if last:
        screen.print(last, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ensdistill", description="Ensemble distillation: one student network from an ensemble of teachers."
    )
    parser.add_argument("--version", action="version", version=f"ensdistill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], sentence: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=sentence,
            description=sentence,
            epilog=settings_help(Config, "settings (for --set and YAML files):"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        sub.add_argument("config", metavar="CONFIG", help=f"a preset ({', '.join(presets())}) or a YAML file")
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override one setting")
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        sub.add_argument("--studies", default="studies", metavar="DIR", help="where all results go (studies)")
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (auto)")
        return sub

    add("teachers", _teachers, "Train the teacher ensemble, or load it, and show how good it is.")
    one = add("distill", _distill, "Train one student from the ensemble.")
    one.add_argument("--out", metavar="DIR", help="where the student goes (studies/runs/<hash of the settings>)")
    one.add_argument("--resume", metavar="FILE", help="go on from a checkpoint of the same settings")
    two = add("evaluate", _evaluate, "Evaluate a distilled student.")
    two.add_argument("--student", metavar="FILE", help="its weights (student.safetensors beside CONFIG, or of its run)")
    two.add_argument("--split", choices=["validation", "test"], default="validation", help="which images (validation)")
    two.add_argument("--ood", metavar="CONFIG", help="AUROC of telling these images from those of CONFIG's data")
    two.add_argument("--corruptions", action="store_true", help="accuracy and NLL under corruptions of severity 1 to 5")
    return parser


if __name__ == "__main__":
    sys.exit(main())
