"""Records reference results: a tiny study with one slot, its event log, and one run of each preset.

    python -m tests.golden.record        (or: make golden)

The command writes the results into this folder; they contain no times. Later results must be equal bit for bit on the
CPU model that recorded them, and within 1e-4 on other CPU models; test_golden.py compares them. A commit that records
results again states the reason.
"""

import csv
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ensdistill import distill, get_ensemble, load_config, load_data
from ensdistill.config import presets
from ensdistill_tune.records.event_log import read_journal
from ensdistill_tune.records.events import FORMAT, Event
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS, Trials, apply_event
from tests.tiny import launched

HERE = Path(__file__).parent
LOG = HERE / f"log-format-{FORMAT}.jsonl"
TOLERANCE = 1e-4  # tolerance on another CPU model
SMALL = (
    "data.train_size=60",
    "data.val_size=100",
    "model.width=4",
    "model.blocks=2",
    "teachers.count=2",
    "teachers.model.width=4",
    "teachers.training.epochs=2",
    "teachers.training.batch_size=20",
    "training.epochs=3",
    "training.batch_size=10",
)


def cpu_model() -> str:
    """Returns the CPU model name of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def of_presets(store: Path) -> dict[str, Any]:
    """Returns the metrics of every epoch of one short run per preset.

    Args:
        store: Folder of the teachers.
    """
    found: dict[str, Any] = {}
    for preset in presets():
        config = load_config(preset, SMALL)
        data = load_data(config.data)
        run = distill(config, get_ensemble(config, data, store), data)
        found[preset] = [{"loss": e.loss, "val": dict(e.val), "subnetworks": dict(e.subnetworks)} for e in run]
    return found


def of_study(home: Path) -> dict[str, Any]:
    """Returns trials, decisions, leaderboard and confirmation of the tiny study."""
    trials = [
        {
            "trial": trial.number,
            "baseline": trial.baseline,
            "sampled": trial.sampled,
            "replicate_of": trial.replicate_of,
            "seed": trial.seed,
            "state": trial.state,
            "val/nll": [epoch["val/nll"] for epoch in trial.epochs],
            "last": {name: value for name, value in trial.last.items() if not name.endswith("_seconds")},
        }
        for trial in StudyDirectory(home).read_trials()
    ]
    rows = [row for row in csv.DictReader((home / "leaderboard.csv").open()) if row["rank"]]
    kept = json.loads((home / "confirmation.json").read_text())
    return {
        "trials": trials,
        "leaderboard": [[int(row["trial"]), *(float(row[name]) for name in METRICS)] for row in rows],
        "confirmed": [[row["trial"], row["seeds"], row["validation"]] for row in kept["candidates"]],
        "test": [row["metrics"] for row in kept["test"]],
    }


def differences(recorded: Any, now: Any, tolerance: float, path: str = "") -> Iterator[str]:
    """Yields differences above a tolerance between two trees of numbers and strings; 0 means exact equality."""
    if isinstance(recorded, Mapping) and isinstance(now, Mapping) and recorded.keys() == now.keys():
        for name, value in recorded.items():
            yield from differences(value, now[name], tolerance, f"{path}/{name}")
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for n, value in enumerate(recorded):
            yield from differences(value, now[n], tolerance, f"{path}/{n}")
    elif isinstance(recorded, float) and isinstance(now, float):
        if not abs(recorded - now) <= tolerance:
            yield f"{path}: {recorded!r} was recorded, now {now!r}"
    elif recorded != now:
        yield f"{path}: {recorded!r} was recorded, now {now!r}"


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((HERE / f"{name}.json").read_text()))


def _write(name: str, numbers: dict[str, Any]) -> None:
    tree = {"cpu": cpu_model(), "numbers": numbers}
    (HERE / f"{name}.json").write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n")


def trials_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Returns the records of all trials after these events."""
    trials: Trials = {}
    for event in events:
        apply_event(trials, event)
    return [asdict(trials[number]) | {"epochs": list(trials[number].epochs)} for number in sorted(trials)]


def _write_log(home: Path) -> None:
    """Writes the event log of a study once per format: later versions must read it in the same way."""
    if LOG.exists():
        return
    shutil.copyfile(home / "events.jsonl", LOG)
    study = StudyDirectory(home).read_summary()["study"]
    known = {"study": study, "trials": trials_of(read_journal(LOG))}
    LOG.with_suffix(".json").write_text(json.dumps(known) + "\n")


def main() -> None:
    """Records all reference files."""
    with tempfile.TemporaryDirectory() as temporary:
        _write("presets", of_presets(Path(temporary) / "teachers"))
        home = launched(Path(temporary) / "tiny").home
        _write("study", of_study(home))
        _write_log(home)


if __name__ == "__main__":
    main()
