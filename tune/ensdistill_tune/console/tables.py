"""Tables at the end of a session, at most 100 columns wide; leaderboard.csv contains all metrics of all trials."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich import box
from rich.table import Table

from ensdistill.evaluation.plausibility import is_shown
from ensdistill.runtime.formatting import mean_and_spread
from ensdistill_tune.analysis.labels import trial_label
from ensdistill_tune.analysis.leaderboard import format_metric, mark_of, metric_cell, pareto_front
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

TOP = 5  # number of trials in the leaderboard, in addition to the baselines and the Pareto front
COMMON = ("val/nll", "val/accuracy", "val/ece", "val/cnll")  # shown after objectives and constraints, in this order
IN_LEADERBOARD, OVER_SEEDS = 3, 4  # number of metrics that fit in the leaderboard and in `seeds_table`


def shown_metrics(study: StudyConfig, most: int) -> list[str]:
    """Returns the names of the metrics in a table: every objective and constraint, then common metrics.

    Args:
        study: The settings.
        most: Maximum number of metrics; all objectives and constraints are included, even if there are more.
    """
    own = list(dict.fromkeys([*study.objectives, *study.constraints]))
    return [*own, *(name for name in COMMON if name not in own)][: max(most, len(own))]


def leaderboard_table(
    study: StudyConfig, trials: Sequence[TrialRecord], teachers: Mapping[str, Mapping[str, float]], top: int = TOP
) -> Table:
    """Returns a table of the best trials, every baseline, the Pareto front (with several objectives) and the teachers.

    Args:
        study: The settings.
        trials: Trials of the search, including baselines.
        teachers: Metrics of the ensemble and mean metrics of the individual teachers, keyed by label.
        top: Number of best trials.
    """
    order, names = study.rank(trials), shown_metrics(study, IN_LEADERBOARD)
    front = pareto_front(order, study)
    table = _table(_leaderboard_title(study, order, front))
    table.add_column("rank", justify="right")
    _add_columns(table, "trial", names)
    table.add_column("settings", overflow="fold")
    for rank, trial in enumerate(order, 1):
        if rank <= top or trial.baseline or trial in front:
            label = trial_label(trial) + mark_of(trial, study, front)
            style = "bold" if rank == 1 else ("cyan" if trial.baseline else "")
            table.add_row(str(rank), label, *(metric_cell(n, trial.last) for n in names), trial.settings, style=style)
    table.add_section()
    for label, metrics in teachers.items():
        table.add_row("", label, *(_teacher_cell(name, metrics) for name in names), "")
    return table


def seeds_table(
    title: str, rows: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str], head: str
) -> Table:
    """Returns a table of means and standard deviations over seeds, with the number of seeds.

    Args:
        title: Title of the table.
        rows: Metrics of each seed, keyed by label.
        names: The metrics.
        head: Header of the first column.
    """
    table = _table(title)
    _add_columns(table, f"{head} (seeds)", names)
    for label, seeds in rows.items():
        cells = [_over_seeds(name, [row[name] for row in seeds]) if is_shown(name, *seeds) else "" for name in names]
        table.add_row(f"{label} ({len(seeds)})" if len(seeds) > 1 else label, *cells)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _add_columns(table: Table, head: str, names: Sequence[str]) -> None:
    table.add_column(head, no_wrap=True)
    for name in names:
        table.add_column(name.split("/")[-1], justify="right", no_wrap=True)


def _leaderboard_title(study: StudyConfig, order: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> str:
    marks = ["* on the Pareto front"] if front else []
    marks += ["! breaks a constraint"] if len(study.feasible(order)) < len(order) else []
    return f"leaderboard ({'; '.join(['validation', *marks])})"


def _teacher_cell(name: str, metrics: Mapping[str, float]) -> str:
    key = name.removeprefix("val/")
    return format_metric(name, metrics[key]) if key in metrics and is_shown(name, metrics) else ""


def _over_seeds(name: str, values: Sequence[float]) -> str:
    return format_metric(name, fmean(values)) if name.startswith("cost/") else mean_and_spread(values)
