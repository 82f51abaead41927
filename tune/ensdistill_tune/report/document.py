"""The report as Markdown: first the answers, then the tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ensdistill.config import to_yaml
from ensdistill.evaluation.metric_values import Metrics
from ensdistill.evaluation.plausibility import is_shown
from ensdistill.evaluation.tables import as_text, markdown_table
from ensdistill.runtime.command_line import command_line
from ensdistill.runtime.formatting import mean_and_spread
from ensdistill.runtime.secrets import without_credentials
from ensdistill.runtime.text import counted
from ensdistill_tune.analysis.importance import Importance
from ensdistill_tune.analysis.labels import trial_label
from ensdistill_tune.analysis.leaderboard import format_metric, mark_of, metric_cell, pareto_front
from ensdistill_tune.analysis.rank_correlation import RungCorrelation
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.results import StudyResults
from ensdistill_tune.analysis.verdict import (
    PairedComparison,
    best_baseline,
    compare,
    correction,
    searched_among,
    why_dropped,
)
from ensdistill_tune.records.trial_record import count_states
from ensdistill_tune.report import findings
from ensdistill_tune.report.recommendations import advice
from ensdistill_tune.report.summary import answers, shipped, winner_rows
from ensdistill_tune.study.objectives import spoken

TOP = 10  # number of trials in the leaderboard
COLUMNS = ("accuracy", "nll", "cnll", "ece", "dee", "flops", "top1_agreement", "brier")


@dataclass(frozen=True)
class ReportSection:
    """A section of the report."""

    title: str
    text: str  # Markdown


def first_lines(facts: StudyResults, found: Sequence[Importance], seen: Sequence[RungCorrelation]) -> str:
    """Returns the list at the top of a report, in Markdown.

    The list contains, in this order: general warnings, the three answers, next steps, other warnings, findings.
    """
    next_steps = [f"Next: {step}" for step in advice(facts, found)]
    lines = [
        findings.incomplete(facts),
        *findings.what_counts_most(facts),
        *answers(facts),
        *next_steps,
        *findings.warnings(facts),
        *([] if facts.why_none_wins else _about_the_winner(facts)),
        findings.what_mattered(facts, found),
        findings.stopping(facts, seen),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _about_the_winner(facts: StudyResults) -> list[str | None]:
    files = (
        f"Files: `{facts.command('export')}` exports the student to deployable formats; its settings are in "
        "`best/config.yaml`, all trials are in `leaderboard.csv`, and the figures are in `report.html`."
    )
    return [
        findings.winner(facts),
        findings.selected_epoch(facts),
        findings.metrics_beside_teachers(facts),
        findings.on_the_front(facts),
        findings.selection_bias(facts),
        files if facts.order else None,
    ]


def sections(facts: StudyResults) -> list[ReportSection]:
    """Returns the sections that follow the summary; empty sections are omitted."""
    parts = [
        ReportSection("Winner and ensemble", _beside(facts)),
        ReportSection("Confirmation", _confirmation(facts)),
        ReportSection("Leaderboard", _leaderboard(facts)),
        ReportSection("Export and reproduce", _take_away(facts)),
        ReportSection("Provenance", _made(facts)),
        ReportSection("All warnings", _warnings(facts)),
    ]
    return [part for part in parts if part.text]


def summary_line(facts: StudyResults) -> str:
    """Returns one line with the numbers of trials and replicates, the duration and the objective."""
    states = ", ".join(f"{n} {state}" for state, n in sorted(count_states(facts.trials).items()))
    replicates = f", {counted(len(facts.replicates), 'replicate')} with fresh seeds" if facts.replicates else ""
    seconds = float(facts.summary.get("seconds", 0))
    trials = counted(len(facts.trials), "trial")
    hours = f" ({facts.hours} of trials)" if str(facts.hours) else ""
    return f"{trials} ({states}){replicates}, {seconds:,.0f} s{hours}. Objective: {facts.study.objective}."


def _beside(facts: StudyResults) -> str:
    """Returns a table of metrics on test images or, before the test evaluation, on validation images."""
    rows: Mapping[str, Sequence[Metrics]] = facts.tested_rows
    where = (
        f"Test images, {facts.looked}, after the winner was selected. Values are means ± standard deviations over "
        "seeds."
    )
    if not (facts.tested and facts.confirmed):
        own, _ = winner_rows(facts)
        candidate = next(iter(facts.confirmed or (Candidate(trial, [trial]) for trial in facts.order)), None)
        rows = ({candidate.label: own} if candidate else {}) | {who: [dict(row)] for who, row in facts.teachers.items()}
        where = (
            "Validation images, which were also used to select trials; the values are therefore slightly optimistic."
        )
        if facts.confirmed and facts.looks:
            where += " Other students were already evaluated on the test images (`earlier_test` in confirmation.json)."
    if not rows:
        return ""
    shown = [name for name in COLUMNS if any(name in row for some in rows.values() for row in some)]
    lines = [[who, *[_cell(name, some) for name in shown]] for who, some in rows.items()]
    return f"{where}\n\n{markdown_table(['', *shown], lines)}"


def _cell(name: str, rows: Sequence[Metrics]) -> str:
    values = [row[name] for row in rows if name in row]
    if not values or not is_shown(name, *rows):
        return ""
    return format_metric("cost/flops", fmean(values)) if name == "flops" else mean_and_spread(values)


def _confirmation(facts: StudyResults) -> str:
    """Returns two tables: one of candidates (means over seeds, differences from the best baseline), one of stages."""
    if not facts.confirmed:
        return ""
    baseline, among = best_baseline(facts.confirmed), searched_among(facts.confirmed)
    rows, names = [], [name for name in facts.study.display_metrics if name in facts.confirmed[0].replicates[0].last]
    for c in facts.confirmed:
        lasts = [replicate.last for replicate in c.replicates]
        row = [c.label, str(len(lasts)), *[mean_and_spread(c.values(n)) if is_shown(n, *lasts) else "" for n in names]]
        row.append(_minus(compare(c, baseline, facts.study, among)) if baseline and c is not baseline else "")
        row += ["; ".join(c.broken(facts.study))] if facts.study.constraints else []
        rows.append([*row, why_dropped(c, facts.confirmed)])
    head = ["", "seeds", *[name.split("/")[1] for name in names], f"minus `{baseline.label}`" if baseline else ""]
    notes = [*(["constraints that the mean violates"] if facts.study.constraints else []), "dropped"]
    parts = [_about_the_confirmation(facts, among), markdown_table([*head, *notes], rows, notes), _stages(facts)]
    return "\n\n".join(filter(None, parts))


def _minus(c: PairedComparison) -> str:
    """Returns a difference, with its confidence interval if there are enough seeds to compute it."""
    low, high = c.interval
    return f"{c.difference:+.4f}" + (f" ({low:+.4f} to {high:+.4f})" if math.isfinite(low + high) else "")


def _about_the_confirmation(facts: StudyResults, among: int) -> str:
    out = ", ".join(f"`{trial.name}`" for trial in facts.fell_out)
    return (
        "The best trials of the search and all baselines were trained again with fresh seeds until a verdict was "
        "reached or the budget was spent. Candidates that were clearly behind were dropped. All metrics are computed "
        "on validation images. The column `minus` contains the mean difference in "
        f"{spoken(facts.study.objective)} over pairs with the same seed. The 90 % confidence interval of this "
        f"difference (5 % at each end, {correction(among)}) is in parentheses. If it is missing, there are too few "
        "seeds for a decision." + (f" Omitted because a replicate failed: {out}." if out else "")
    )


def _stages(facts: StudyResults) -> str:
    """Returns a table with one row for each stage of the confirmation."""
    names = {c.trial.number: c.label for c in facts.confirmed}

    def name(number: int | None) -> str:
        return "" if number is None else names.get(number, str(number))

    rows = [
        [
            str(stage.seeds),
            name(stage.leader),
            "" if stage.difference is None else f"{stage.difference:+.4f}",
            ", ".join(map(name, stage.dropped)),
            stage.outcome,
        ]
        for stage in facts.stages
    ]
    head = ["seeds so far", "best mean", "minus the best baseline", "dropped", "test"]
    return markdown_table(head, rows, head[1:2] + head[3:]) if rows else ""


def _leaderboard(facts: StudyResults) -> str:
    order, front = facts.order, pareto_front(facts.order, facts.study)
    rows = []
    for rank, trial in enumerate(order, 1):
        if rank <= TOP or trial.baseline or trial in front:
            values = [metric_cell(n, trial.last) for n in facts.study.display_metrics]
            rows.append(
                [trial_label(trial) + mark_of(trial, facts.study, front), str(rank), *values, findings.in_code(trial)]
            )
    if not rows:
        return ""
    head = ["trial", "rank", *[name.split("/")[1] for name in facts.study.display_metrics], "settings"]
    stars = " `*`: on the Pareto front." if front else ""
    stars += " `!`: breaks a constraint." if len(facts.study.feasible(order)) < len(order) else ""
    text = (
        f"Metrics on validation images, with one seed per trial.{stars} `leaderboard.csv` contains all "
        f"{counted(len(facts.trials), 'trial')}."
    )
    return f"{text}\n\n{markdown_table(head, rows, ['set'])}"


def _take_away(facts: StudyResults) -> str:
    """Returns the settings of the winner and the commands that export and reproduce it."""
    _, trial = shipped(facts)
    if trial is None:
        return ""
    settings = to_yaml(facts.study.config_for(trial)).strip()
    again = command_line(
        "ensdistill", "distill", facts.studies / facts.name / "best" / "config.yaml", studies=facts.studies
    )
    return (
        f"{_own_figures(facts)}```bash\n"
        f"# ONNX, torch.export and safetensors files\n{facts.command('export')}\n"
        f"# trains the same student again\n{again}\n"
        "```\n\n"
        f"All settings of the student in `best/` (trial {trial.name}):\n\n```yaml\n{settings}\n```"
    )


def _own_figures(facts: StudyResults) -> str:
    """Returns the test metrics of the student in `best/`."""
    candidate, replicate = shipped(facts)
    if not (facts.tested and candidate and replicate):
        return ""
    row = facts.tested_of(candidate)[[r.seed for r in candidate.replicates].index(replicate.seed)]
    names = [name for name in ("accuracy", "nll", "cnll", "ece") if is_shown(name, row)]
    figures = ", ".join(f"{spoken(name)} {row[name]:.4f}" for name in names)
    return (
        f"`best/` contains the student trained with seed {replicate.seed}, the best seed on validation images. On test "
        f"images: {figures}.\n\n"
    )


def _warnings(facts: StudyResults) -> str:
    """Returns the list of all warnings; empty if the summary already contains every warning."""
    if len(facts.warnings) <= findings.WARNINGS:
        return ""
    return "\n".join(f"- {as_text(str(warning))}" for warning in facts.warnings)


def _made(facts: StudyResults) -> str:
    """Returns a table of the versions and hashes that are required to reproduce the study."""
    known = facts.summary
    versions = ", ".join(f"{name} {version}" for name, version in known.get("versions", {}).items())
    study = facts.study
    rows: list[tuple[str, Any]] = [
        ("searcher and scheduler", f"{study.searcher.kind}, {study.scheduler.kind}"),
        ("data", known.get("data_hash")),
        ("teachers", known.get("ensemble_hash")),
        ("study", known.get("study_hash")),
        ("git commit", known.get("git_commit")),
        ("versions", versions),
        ("device", known.get("device")),
        ("machine used for latency measurements", "; ".join(facts.latency_machines)),
        ("MLflow", without_credentials(known["tracking_uri"]) if known.get("tracking_uri") else None),
    ]
    return markdown_table(["", "value"], [[name, f"{value}"] for name, value in rows if value], ["value"])


def as_markdown(facts: StudyResults, lead: str, parts: Sequence[ReportSection], folder: Path) -> str:
    """Returns the content of report.md."""
    body = "\n\n".join(f"## {part.title}\n\n{part.text}" for part in parts)
    where = f"Figures: `{folder.name}/report.html` (one file, works offline)."
    return f"# Study {facts.name}\n\n{summary_line(facts)}\n\n{lead}\n\n{where}\n\n{body}\n"
