"""The best students of a study as files that run elsewhere, with a model card that knows the study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensdistill.data import load_data
from ensdistill.errors import ConfigError, DataError
from ensdistill.export.exporter import ExportResult, export_student
from ensdistill.export.format_names import FORMATS
from ensdistill.export.model_card import Rows, StudyContext
from ensdistill.export.student_file import DistillationRun, load_run
from ensdistill.runtime.devices import pick_device
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.training.teachers import find_ensemble
from ensdistill_tune.analysis.replication import Candidate, verdict
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.analysis.trial_warnings import of_study
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.tracking.target import default_uri

WINNER = "winner"  # the folder of what ships


@dataclass(frozen=True)
class ExportItem:
    """One student that is taken away."""

    folder: str  # its name below `export/`
    trial: TrialRecord  # whose student it is: of a confirmed candidate the best repeat
    candidate: Candidate | None = None

    @property
    def ships(self) -> bool:
        """Whether this is the best student of the study."""
        return self.folder == WINNER


@dataclass(frozen=True)
class ExportRequest:
    """What is asked for."""

    top: int = 1  # so many, best first
    trial: int | None = None  # or this one
    out: Path | None = None  # instead of `<study>/export`
    device: str = "auto"
    license: str = ""
    formats: Sequence[str] = FORMATS
    register: str | None = None  # the name in MLflow's model registry
    champion: bool = False  # whether the best gets that alias there


OnExported = Callable[[ExportItem, ExportResult, int | None], None]  # the last is the version in the registry


def export_students(home: Path, wanted: ExportRequest, tell: OnExported) -> None:
    """Writes each student that is wanted into a folder of its own, and tells of it as soon as it is there.

    Raises ConfigError if there is no such student, DataError if data or files are not what they were, ExportError if a
    file would not do what the student does.
    """
    if wanted.register and "onnx" not in wanted.formats:
        raise ConfigError("--register: it is the ONNX file that is registered; add onnx to --formats")
    facts = read_facts(home)
    for choice in choose(facts, wanted.top, wanted.trial):
        run = _open(home, facts, choice.trial, wanted.device)
        folder = (wanted.out or home / "export") / choice.folder
        done = export_student(run, folder, wanted.license, findings(facts, choice), wanted.formats)
        tell(choice, done, _register(home, facts, choice, run, done, wanted) if wanted.register else None)


def choose(facts: StudyResults, top: int, number: int | None) -> list[ExportItem]:
    """The students of the best settings, or that of one trial. Of confirmed settings the best repeat stands for all."""
    if number is not None:
        return [_of_trial(facts, number)]
    best = [ExportItem(f"trial-{c.trial.number:03d}", _best(facts, c), c) for c in facts.confirmed]
    known = {c.trial.number for c in facts.confirmed}
    best += [ExportItem(f"trial-{t.number:03d}", t) for t in facts.order if t.number not in known]
    if not best:
        raise ConfigError(f"{facts.name}: no trial has run to its end yet, so there is no student to export")
    if not 0 < top <= len(best):
        raise ConfigError(f"--top {top}: {facts.name} has {len(best)} students of different settings")
    if why := facts.why_none_wins:
        raise ConfigError(f"{facts.name}: {why}. Export one all the same with --trial N.")
    return [ExportItem(WINNER, best[0].trial, best[0].candidate), *best[1:top]]


def _of_trial(facts: StudyResults, number: int) -> ExportItem:
    found = next((t for t in (*facts.trials, *facts.replicates) if t.number == number), None)
    if found is None:
        raise ConfigError(f"--trial {number}: {facts.name} has trials 1 to {len(facts.trials) + len(facts.replicates)}")
    if found.state != "finished":
        raise ConfigError(f"--trial {number}: is {found.state} and left no student; leaderboard.csv has those that did")
    candidate = next((c for c in facts.confirmed if c.trial.number in (number, found.replicate_of)), None)
    return ExportItem(f"trial-{number:03d}", found, candidate)


def _best(facts: StudyResults, candidate: Candidate) -> TrialRecord:
    return candidate.best(facts.study)


def _open(home: Path, facts: StudyResults, trial: TrialRecord, device: str) -> DistillationRun:
    config = facts.study.config_for(trial)
    data = load_data(config.data).to(pick_device(device))
    if data.identity != facts.summary["data_hash"]:
        raise DataError(f"{home}: the images are not those of this study any more; restore them")
    weights = home / "trials" / f"{trial.number:05d}" / STUDENT_FILE
    return load_run(config, data, weights, find_ensemble(config, data, home.parent / "teachers"))


def findings(facts: StudyResults, choice: ExportItem) -> StudyContext:
    """What the study knows of a student: its settings over all seeds, beside the others that were looked at."""
    tables: dict[str, Rows] = {}
    if choice.candidate is not None:
        seeds = len(choice.candidate.replicates)
        names = [name for name in choice.candidate.replicates[0].last if name.startswith("val/")]
        row = {name.removeprefix("val/"): choice.candidate.values(name) for name in names}
        tables[f"Validation images, the same settings with {seeds} seeds"] = {choice.candidate.label: row}
        if facts.tested_of(choice.candidate):
            tables[f"Test images, {facts.looked} after everything was decided"] = rows_on_test(facts)
    said = verdict(facts.confirmed, facts.study) if facts.confirmed else None
    told = f"Verdict of that study: {said}." if said else ""
    return StudyContext(facts.name, choice.trial.name, told, tables, of_study(facts.warnings) if choice.ships else [])


def rows_on_test(facts: StudyResults) -> Rows:
    """Everybody who was shown the test images."""
    return {
        who: {name: [row[name] for row in rows] if len(rows) > 1 else rows[0][name] for name in rows[0]}
        for who, rows in facts.tested_rows.items()
    }


def _register(
    home: Path, facts: StudyResults, choice: ExportItem, run: DistillationRun, done: ExportResult, wanted: ExportRequest
) -> int:
    """The version in MLflow's model registry, beside the run that made the student."""
    from ensdistill_tune.tracking.model_registry import register, run_of  # here: a slow import

    uri = facts.study.tracking.uri or default_uri(home.parent)
    source = run_of(uri, facts.study.tracking.experiment, facts.summary["study_id"], choice.trial.number)
    metrics: Mapping[str, float] = done.metrics["student"]
    tags = {"study": facts.name, "trial": choice.trial.name, "config_hash": run.config.hash}
    tags |= {"data_hash": run.data.identity, "ensemble_hash": run.learnt_from}
    tags |= {f"val/{name}": f"{metrics[name]:.4f}" for name in ("nll", "accuracy", "ece")}
    example = run.data.validation.images[:1].cpu().numpy()
    champion = wanted.champion and choice.folder == WINNER
    return register(
        uri, str(wanted.register), done.folder / "student.onnx", example, run=source, tags=tags, champion=champion
    )
