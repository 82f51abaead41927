"""Exports the best students of a study, with a model card that describes the study."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensdistill.data import load_data
from ensdistill.errors import ConfigError, DataError
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.export.exporter import ExportResult, export_student
from ensdistill.export.format_names import FORMATS
from ensdistill.export.model_card import Rows, StudyContext
from ensdistill.export.student_file import DistillationRun, load_run
from ensdistill.runtime.devices import pick_device
from ensdistill.runtime.weights import STUDENT_FILE
from ensdistill.training.teachers import find_ensemble
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.analysis.trial_warnings import of_study
from ensdistill_tune.analysis.verdict import verdict
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.tracking.provenance import dataset_input
from ensdistill_tune.tracking.run_index import PARENT
from ensdistill_tune.tracking.target import default_uri

WINNER = "winner"  # folder of the winner


@dataclass(frozen=True)
class ExportItem:
    """One student to export.

    Attributes:
        folder: Name of the folder in `export/`.
        trial: The trial that trained the student; for a confirmed candidate, the best replicate.
        candidate: The confirmed candidate; None if there was no confirmation.
    """

    folder: str
    trial: TrialRecord
    candidate: Candidate | None = None

    @property
    def ships(self) -> bool:
        """Whether this is the best student of the study."""
        return self.folder == WINNER


@dataclass(frozen=True)
class ExportRequest:
    """Request to export students.

    Attributes:
        top: Number of best students to export.
        trial: Number of the single trial to export instead; None to export the best students.
        out: Folder of the exported students; None for `<study>/export`.
        device: Device on which the exported files are verified and timed.
        license: License of the weights, for the model card.
        formats: Formats to write.
        register: Name in MLflow's model registry; None to register nothing.
        champion: Whether the best student gets the alias `champion` in the registry.
    """

    top: int = 1
    trial: int | None = None
    out: Path | None = None
    device: str = "auto"
    license: str = ""
    formats: Sequence[str] = FORMATS
    register: str | None = None
    champion: bool = False


OnExported = Callable[[ExportItem, ExportResult, int | None], None]  # the last argument is the registered version


def export_students(home: Path, wanted: ExportRequest, tell: OnExported) -> None:
    """Exports each requested student to a separate folder.

    Args:
        home: The folder of the study.
        wanted: The request.
        tell: Function that is called after each export with the item, the result and the registered version.

    Raises:
        ConfigError: The student does not exist.
        DataError: The images, settings or weights are not those of the study, a file is missing, or MLflow refuses the
            model.
        ExportError: An exported file does not reproduce the student's outputs.
    """
    if wanted.register and "onnx" not in wanted.formats:
        raise ConfigError("--register: requires the ONNX file; add onnx to --formats")
    facts = read_facts(home)
    for choice in choose(facts, wanted.top, wanted.trial):
        run = _open(home, facts, choice.trial, wanted.device)
        folder = (wanted.out or home / "export") / choice.folder
        done = export_student(run, folder, wanted.license, findings(facts, choice), wanted.formats)
        tell(choice, done, _register(home, facts, choice, run, done, wanted) if wanted.register else None)


def choose(facts: StudyResults, top: int, number: int | None) -> list[ExportItem]:
    """Returns the students of the best settings, or the student of one trial.

    For a confirmed candidate, the student of the best replicate is returned.

    Args:
        facts: Results of the study.
        top: Number of best students to return.
        number: Number of the one trial whose student is returned instead; None to return the best students.

    Raises:
        ConfigError: The student does not exist, or there is no winner.
    """
    if number is not None:
        return [_of_trial(facts, number)]
    best = [ExportItem(f"trial-{c.trial.number:03d}", _best(facts, c), c) for c in facts.confirmed]
    known = {c.trial.number for c in facts.confirmed}
    best += [ExportItem(f"trial-{t.number:03d}", t) for t in facts.order if t.number not in known]
    if not best:
        raise ConfigError(f"{facts.name}: no trial has completed yet; there is no student to export")
    if not 0 < top <= len(best):
        raise ConfigError(f"--top: must be from 1 to {len(best)}, the number of settings with a student, got {top}")
    if why := facts.why_none_wins:
        raise ConfigError(f"{facts.name}: {why}. Use --trial N to export a student anyway.")
    return [ExportItem(WINNER, best[0].trial, best[0].candidate), *best[1:top]]


def _of_trial(facts: StudyResults, number: int) -> ExportItem:
    found = next((t for t in (*facts.trials, *facts.replicates) if t.number == number), None)
    if found is None:
        raise ConfigError(f"--trial {number}: {facts.name} has trials 1 to {len(facts.trials) + len(facts.replicates)}")
    if found.state != "finished":
        raise ConfigError(
            f"--trial {number}: must be finished, got {found.state}; leaderboard.csv lists the finished trials"
        )
    candidate = next((c for c in facts.confirmed if c.trial.number in (number, found.replicate_of)), None)
    return ExportItem(f"trial-{number:03d}", found, candidate)


def _best(facts: StudyResults, candidate: Candidate) -> TrialRecord:
    return candidate.best(facts.study)


def _open(home: Path, facts: StudyResults, trial: TrialRecord, device: str) -> DistillationRun:
    config = facts.study.config_for(trial)
    data = load_data(config.data, home.parent).to(pick_device(device))
    if data.identity != facts.summary["data_hash"]:
        raise DataError(f"{home}: the images must be the same as during the study, but have changed; restore them")
    weights = home / "trials" / f"{trial.number:05d}" / STUDENT_FILE
    return load_run(config, data, weights, find_ensemble(config, data, home.parent / "teachers"))


def findings(facts: StudyResults, choice: ExportItem) -> StudyContext:
    """Returns the study results that the model card of a student contains.

    Args:
        facts: Results of the study.
        choice: The student.

    Returns:
        Metrics of the student's settings over all seeds, metrics of all evaluated students, verdict and warnings.
    """
    tables: dict[str, Rows] = {}
    if choice.candidate is not None:
        seeds = len(choice.candidate.replicates)
        names = [name for name in choice.candidate.replicates[0].last if name.startswith("val/")]
        row = {name.removeprefix("val/"): choice.candidate.values(name) for name in names}
        tables[f"Validation images, same settings with {seeds} seeds"] = {choice.candidate.label: row}
        if facts.tested_of(choice.candidate):
            tables[f"Test images, {facts.looked} after the winner was selected"] = rows_on_test(facts)
    result = verdict(facts.confirmed, facts.study) if facts.confirmed else None
    text = f"Verdict of the study: {result}." if result else ""
    return StudyContext(facts.name, choice.trial.name, text, tables, of_study(facts.warnings) if choice.ships else [])


def rows_on_test(facts: StudyResults) -> Rows:
    """Returns the test metrics of all evaluated students and teachers, keyed by label.

    Args:
        facts: Results of the study.

    Returns:
        For each label and metric, one value; with several seeds, a list with one value per seed.
    """
    return {
        label: {name: [row[name] for row in rows] if len(rows) > 1 else rows[0][name] for name in rows[0]}
        for label, rows in facts.tested_rows.items()
    }


def _register(
    home: Path, facts: StudyResults, choice: ExportItem, run: DistillationRun, done: ExportResult, wanted: ExportRequest
) -> int:
    """Registers a student in MLflow's model registry, links it to the run of its trial, and returns the version."""
    from ensdistill_tune.tracking.logged_model import ExportedModel  # imported here, because it is slow
    from ensdistill_tune.tracking.model_registry import register, run_of

    uri = facts.study.tracking.uri or default_uri(home.parent)
    experiment, study_id = facts.study.tracking.experiment, facts.summary["study_id"]
    tags = {"study": facts.name, "trial": choice.trial.name, "config_hash": run.config.hash}
    tags |= {"data_hash": run.data.identity, "ensemble_hash": run.learnt_from}
    model = ExportedModel(
        f"{facts.name}-{choice.folder}",
        done.folder / "student.onnx",
        run.data.validation.images[0].cpu().numpy(),
        f"{'Best student' if choice.ships else 'Student'} of the study `{facts.name}`: trial `{choice.trial.name}`.",
        tags,
        _on_test(facts, choice),
        dataset_input(facts.study, run.data.identity).dataset,
    )
    source = run_of(uri, experiment, study_id, choice.trial.number)
    also = [run_of(uri, experiment, study_id, PARENT)] if choice.ships else []
    return register(uri, str(wanted.register), model, run=source, also=also, champion=wanted.champion and choice.ships)


def _on_test(facts: StudyResults, choice: ExportItem) -> Metrics:
    """Returns the test metrics of a replicate's student; empty if this student was not evaluated."""
    if choice.candidate is None:
        return {}
    numbers = [replicate.number for replicate in choice.candidate.replicates]
    rows = dict(zip(numbers, facts.tested_of(choice.candidate), strict=False))  # no rows without a test evaluation
    return rows.get(choice.trial.number, {})
