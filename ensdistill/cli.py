"""`ensdistill teachers | distill | evaluate CONFIG`: one ensemble, one student, by hand."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ensdistill.config import Config, load_config, presets, to_yaml
from ensdistill.data import Data, load_data, load_test
from ensdistill.distill import distill, evaluate, new_student, read_checkpoint, reproducibly
from ensdistill.errors import ConfigError, DataError, EnsdistillError
from ensdistill.faults import settings_help
from ensdistill.files import writable_folder, write_json, write_text
from ensdistill.members import Ensemble
from ensdistill.progress import console, progress
from ensdistill.teachers import get_ensemble
from ensdistill.version import __version__
from ensdistill.weights import STUDENT_FILE, load_weights, save_weights

Metrics = Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the training failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: options.command(options))


def run_command(command: Callable[[], int]) -> int:
    """Runs a command; our own errors become one line a fault on standard error and an exit code."""
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


def load_everything(config: Config, studies: str, device: str) -> tuple[Data, Ensemble]:
    """The data on the device and the trained ensemble, with a progress bar while teachers are trained."""
    data = load_data(config.data).to(pick_device(device))
    count, epochs = config.teachers.count, config.teachers.training.epochs
    with progress(f"{config.teachers.total} teachers", count * epochs) as advance:
        ensemble = get_ensemble(
            config,
            data,
            Path(studies) / "teachers",
            lambda teacher, epoch: advance(teacher * epochs + epoch, f"teacher {teacher + 1} of {count}"),
        )
    return data, ensemble


def teacher_metrics(ensemble: Ensemble, data: Data, threads: int) -> dict[str, Any]:
    """Validation metrics of the ensemble and of each member."""
    with reproducibly(threads):
        members = [evaluate(network, data.validation) for network in ensemble.networks]
        return {"ensemble": evaluate(ensemble, data.validation), "members": members}


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one. Raises ConfigError for a device that torch cannot use here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: torch cannot use it here ({reason}); try --device cpu") from error


def mean_metrics(rows: Sequence[Metrics]) -> dict[str, float]:
    """The mean of each metric over several networks."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


# --- the commands ----------------------------------------------------------------------------------------------------


def _teachers(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    data, ensemble = load_everything(config, options.studies, options.device)
    metrics = teacher_metrics(ensemble, data, config.training.threads)
    result = {"ensemble_hash": ensemble.identity, "data_hash": data.identity, "val": metrics}
    _print(options, result, "validation", teacher_rows(metrics))
    return 0


def _distill(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    out = _claim_folder(Path(options.out or Path(options.studies) / "runs" / config.hash), config)
    if options.resume:
        read_checkpoint(Path(options.resume))  # a bad one is told before teachers are trained
    data, ensemble = load_everything(config, options.studies, options.device)
    run = distill(config, ensemble, data, resume=options.resume)
    write_text(out / "config.yaml", to_yaml(config))
    epoch = None
    with progress("student", config.training.epochs) as advance:
        for epoch in run:
            if epoch.last:
                save_weights(out / STUDENT_FILE, epoch.student(), {"settings": config.hash, "data": data.identity})
            epoch.save(out / "checkpoint.pt")
            advance(epoch.number, f"validation NLL {epoch.val['nll']:.4f}")
    if epoch is None:
        raise ConfigError(f"{options.resume}: this run is already at its last epoch; its student lies beside it")
    teachers = teacher_metrics(ensemble, data, config.training.threads)
    result = {
        "config_hash": config.hash,
        "ensemble_hash": ensemble.identity,
        "data_hash": data.identity,
        "epochs": epoch.number,
        "loss": epoch.loss,
        "val": epoch.val,
        "subnetworks": epoch.subnetworks,
        "teachers": teachers,
        "student": str(out / STUDENT_FILE),
        "version": __version__,
        "torch": torch.__version__,
        "device": data.train.images.device.type,
    }
    write_json(out / "result.json", result)
    rows = {"student": epoch.val, "its subnetworks' mean": epoch.subnetworks} | teacher_rows(teachers)
    _print(options, result, "validation", rows, f"student, settings and checkpoint: {out}")
    return 0


def _claim_folder(out: Path, config: Config) -> Path:
    """The folder of a run. Raises DataError if another run lies there: nothing is overwritten."""
    if (out / STUDENT_FILE).exists() or (out / "config.yaml").exists():
        theirs = load_config(out / "config.yaml").hash if (out / "config.yaml").exists() else "unknown"
        if theirs != config.hash:
            raise DataError(f"{out}: another student is there (settings {theirs}); choose another folder with --out")
    return writable_folder(out)


def _evaluate(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.set)
    path = Path(options.student) if options.student else _student_beside(options.config, config, options.studies)
    data = load_data(config.data).to(pick_device(options.device))
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
    split = data.validation if options.split == "validation" else load_test(config.data).to(data.train.images.device)
    with reproducibly(config.training.threads):
        metrics = evaluate(network, split)
    result = {"config_hash": config.hash, "student": str(path), "split": options.split, options.split: metrics}
    _print(options, result, options.split, {f"student ({len(split)} images)": metrics})
    return 0


def _student_beside(source: str, config: Config, studies: str) -> Path:
    places = [Path(source).parent / STUDENT_FILE] if Path(source).is_file() else []
    places.append(Path(studies) / "runs" / config.hash / STUDENT_FILE)
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"{places[-1]}: no student there yet; run `ensdistill distill {source}` or give --student FILE")


# --- what they print -------------------------------------------------------------------------------------------------


def teacher_rows(metrics: Mapping[str, Any]) -> dict[str, Metrics]:
    """The rows of a table for what `teacher_metrics` gives: the ensemble, and one teacher in the mean."""
    count = len(metrics["members"])
    return {
        f"ensemble of {count} teachers": metrics["ensemble"],
        "one teacher (mean)": mean_metrics(metrics["members"]),
    }


def _print(
    options: argparse.Namespace, result: Mapping[str, Any], split: str, rows: Mapping[str, Metrics], last: str = ""
) -> None:
    if options.json:
        print(json.dumps(result, allow_nan=False))
        return
    table = Table(title=f"on {split} images", title_justify="left")
    table.add_column("")
    names = list(next(iter(rows.values())))
    for name in names:
        table.add_column(name, justify="right")
    for row, metrics in rows.items():
        table.add_row(row, *[f"{metrics[name]:.4f}" for name in names])
    screen = console()
    screen.print(table)
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
