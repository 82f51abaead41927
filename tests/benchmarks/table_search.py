"""A search over the rows of a table of learning curves, with the searchers and schedulers of the package."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import TrialState

from ensdistill_tune.records.events import SettingsEnqueued
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.schedulers import StoppingRule
from ensdistill_tune.search.search_space import Sampled
from ensdistill_tune.search.suggester import OptunaSearcher, _seed, _suggest
from ensdistill_tune.study.study_config import StudyConfig
from tests.benchmarks.curve_table import CurveTable

SLOTS = 2
INDEPENDENT = 1_000_000  # added to the seed, so that `random again` differs from the random search of the same seed
Story = list[tuple[int, int]]  # for each trial that completed: epochs trained by all trials so far, and its row


@dataclass(frozen=True)
class Way:
    """A combination of searcher and scheduler.

    Attributes:
        searcher: Settings of the searcher.
        scheduler: Settings of the scheduler; if empty, those of the study file are used.
        searcher_class: Class that suggests rows.
    """

    searcher: dict[str, Any]
    scheduler: dict[str, Any] | None = None
    searcher_class: type["TableSearcher"] | None = None


NONE = {"kind": "none"}
WAYS = {
    "tpe + asha": Way({"kind": "tpe"}),
    "tpe": Way({"kind": "tpe"}, NONE),
    "random + asha": Way({"kind": "random"}),
    "random again": Way({"kind": "random"}, NONE),
    "tpe + hyperband": Way({"kind": "tpe"}, {"kind": "hyperband"}),
    "tpe + median": Way({"kind": "tpe"}, {"kind": "median"}),
    "gp + asha": Way({"kind": "gp"}),
    "qmc + asha": Way({"kind": "qmc"}),
    "nsga2 + asha": Way({"kind": "nsga2"}),
}


class TableSearcher(OptunaSearcher):
    """The searcher of a study, restricted to the rows of a table.

    Attributes:
        rows: Row of each trial, by trial number.
    """

    def __init__(self, study: StudyConfig, table: CurveTable) -> None:
        super().__init__(study.space, study.searcher, study.objectives, study.modes)
        self.table, self.rows = table, dict[int, int]()

    def suggest(self, number: int, enqueued: SettingsEnqueued | None = None) -> tuple[Sampled, dict[str, Any]] | None:
        """Suggests the settings of the nearest row that no trial has used; None if all rows are used."""
        if len(self.rows) == len(self.table.settings):
            return None
        row = self.rows[number] = self.choose(len(self._trials))
        return super().suggest(number, SettingsEnqueued(request=str(number), settings=self.table.settings[row]))

    def choose(self, place: int) -> int:
        """Returns the row of the trial with this index; the first trial has the index 0."""
        used = set(self.rows.values())
        if self._settings.kind == "random":
            free = [row for row in range(len(self.table.settings)) if row not in used]
            return int(np.random.default_rng([self._settings.seed, place]).choice(free))
        sampled = self._settings.fixed_values(self._space, place) or self._sampled(place)
        return self.table.points.nearest(sampled, used)

    def _sampled(self, place: int) -> Sampled:
        """Returns the suggestion of the sampler itself. Its trial counts as failed, so the sampler ignores it later."""
        self._optuna.sampler = self._settings.sampler(_seed(self._settings.seed, place))
        trial = self._optuna.ask()
        sampled = self._space.draw(lambda name, axis: _suggest(trial, name, axis))
        self._optuna.tell(trial, state=TrialState.FAIL)
        return sampled


class Search:
    """One search with the searcher and the scheduler of the package, but without files; trials are rows of the table.

    Attributes:
        story: Trials that completed.
        trained: Epochs of all trials so far.
    """

    def __init__(self, way: Way, table: CurveTable, seed: int, trials: int) -> None:
        self._study, self._curves, self._epochs = (
            study_of(way, table, seed, trials),
            table.curves[:, seed % table.curves.shape[1]],
            table.epochs,
        )
        self._searcher = (way.searcher_class or TableSearcher)(self._study, table)
        self._rules = defaultdict[str, StoppingRule](self._study.make_stopping_rule)
        self._running: list[TrialRecord] = []
        self.story: Story = []
        self.trained, self._started = 0, 0

    def run(self) -> Story:
        """Trains all trials in parallel, one epoch each in turn."""
        while self._start() or self._running:
            for trial in list(self._running):
                self._train(trial)
        return self.story

    def _start(self) -> bool:
        """Starts trials in free slots; returns whether one was started."""
        before = self._started
        while len(self._running) < SLOTS and self.trained < (self._study.budget.epochs or 0):
            suggestion = self._searcher.suggest(self._started + 1)
            if suggestion is None:
                break
            self._started += 1
            self._running.append(TrialRecord(self._started, None, suggestion[0], "", memory=suggestion[1]))
        return self._started > before

    def _train(self, trial: TrialRecord) -> None:
        """Trains one epoch of a trial, and ends the trial after its last epoch."""
        epoch, row = len(trial.epochs) + 1, self._searcher.rows[trial.number]
        value = float(self._curves[row, epoch - 1])
        trial.epochs.append({"epoch": epoch, "epochs": self._epochs} | dict.fromkeys(METRICS, value))
        self.trained += 1
        self._searcher.report(trial)
        if epoch == self._epochs:
            trial.state = "finished"
            self.story.append((self.trained, row))
        elif self._rule_of(trial).decide(trial.number, epoch, [value]) is Decision.STOP:
            trial.state = "pruned"
        if trial.state != "running":
            self._running.remove(trial)
            self._searcher.tell(trial)

    def _rule_of(self, trial: TrialRecord) -> StoppingRule:
        names = getattr(self._study.scheduler, "group_by", [])
        return self._rules[repr([trial.sampled.get(name) for name in names])]


def search(way: Way, table: CurveTable, seed: int, trials: int) -> Story:
    """Returns the completed trials of one search."""
    return Search(way, table, seed, trials).run()


def study_of(way: Way, table: CurveTable, seed: int, trials: int) -> StudyConfig:
    """Returns the study of a search space with this searcher; the budget is the epochs of `trials` complete trials."""
    study, epochs = table.task.study, trials * table.epochs
    changed = {
        "searcher": {**way.searcher, "seed": seed + INDEPENDENT},
        "scheduler": way.scheduler or study.scheduler.model_dump(mode="json"),
        "budget": {"trials": len(table.settings), "epochs": epochs},
        "confirmation": {"top_k": 0},
    }
    return StudyConfig.model_validate(study.model_dump(mode="json") | changed)


def random_search(table: CurveTable, seed: int, trials: int) -> Story:
    """Returns rows in random order, each trained to its last epoch."""
    order = np.random.default_rng(seed).permutation(len(table.settings))[:trials]
    return [((n + 1) * table.epochs, int(row)) for n, row in enumerate(order)]
