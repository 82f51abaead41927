"""A search among the rows of a table of learning curves, with the planner, searcher and scheduler of the package."""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.execution.trial_planner import TrialPlanner
from ensdistill_tune.records.events import SettingsEnqueued
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_record import METRICS
from ensdistill_tune.search.decision import Decision
from ensdistill_tune.search.schedulers import StoppingRule
from ensdistill_tune.search.search_space import Sampled
from ensdistill_tune.search.suggester import OptunaSearcher, _seed, _suggest
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from tests.benchmarks.curve_table import CurveTable

SLOTS = 2
MEMORY = Path("/dev/shm")  # noqa: S108 - the log of a simulated study needs no disk
INDEPENDENT = 1_000_000  # added to the seed, so that `random again` differs from the random search of the same seed
Story = list[tuple[int, int]]  # for each trial that completed: epochs trained by all trials so far, and its row
Wrap = Callable[[StoppingRule], StoppingRule]


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        searcher: Settings of the searcher.
        scheduler: Settings of the scheduler; those of the study file if there are none.
        searcher_class: Class that suggests rows.
        wrap: Returns the stopping rule that is used in place of the scheduler's own.
    """

    searcher: dict[str, Any]
    scheduler: dict[str, Any] | None = None
    searcher_class: type["TableSearcher"] | None = None
    wrap: Wrap | None = None


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
        """Suggests the settings of the nearest row that no trial has; None if all rows are used."""
        if len(self.rows) == len(self.table.settings):
            return None
        row = self.rows[number] = self.choose(len(self._trials))
        return super().suggest(number, SettingsEnqueued(request=str(number), settings=self.table.settings[row]))

    def choose(self, place: int) -> int:
        """Returns the row of the next trial, the first of which has the place 0."""
        used = set(self.rows.values())
        if self._settings.kind == "random":
            free = [row for row in range(len(self.table.settings)) if row not in used]
            return int(np.random.default_rng([self._settings.seed, place]).choice(free))
        sampled = self._settings.fixed_values(self._space, place) or self._sampled(place)
        return self.table.points.nearest(sampled, used)

    def _sampled(self, place: int) -> Sampled:
        """Returns the sampler's own suggestion. Its trial fails, so the sampler ignores it from then on."""
        self._optuna.sampler = self._settings.sampler(_seed(self._settings.seed, place))
        trial = self._optuna.ask()
        sampled = self._space.draw(lambda name, axis: _suggest(trial, name, axis))
        self._optuna.tell(trial, state=TrialState.FAIL)
        return sampled


def search(way: Way, table: CurveTable, seed: int, trials: int) -> Story:
    """Runs one search, trials side by side, one epoch each in turn."""
    study, story, trained = study_of(way, table, seed, trials), Story(), 0
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as home:
        progress = StudyState(study, StudyDirectory(Path(home)), {}, trial_warnings)
        planner, running = TrialPlanner(progress, SLOTS), dict[int, Any]()
        chosen = planner._suggester = (way.searcher_class or TableSearcher)(study, table)
        if way.wrap:
            planner._rules = defaultdict(lambda wrap=way.wrap: wrap(study.make_stopping_rule()))
        while not planner.done:
            while isinstance(request := planner.next(), dict):
                running[request["number"]] = table.curves[chosen.rows[request["number"]], seed % 2]
            for number, curve in list(running.items()):
                epoch, trained = len(progress.trials[number].epochs) + 1, trained + 1
                metrics = {"epoch": epoch, "epochs": table.epochs} | dict.fromkeys(METRICS, float(curve[epoch - 1]))
                decision = planner.report(number, metrics)
                if decision is Decision.CONTINUE and epoch < table.epochs:
                    continue
                del running[number]
                planner.end(number, "finished" if epoch == table.epochs else "pruned")
                if epoch == table.epochs:
                    story.append((trained, chosen.rows[number]))
    return story


def study_of(way: Way, table: CurveTable, seed: int, trials: int) -> StudyConfig:
    """Returns the study of a search space, with this searcher and the epochs of so many complete trials."""
    study, epochs = table.task.study, trials * table.epochs
    changed = {
        "searcher": {**way.searcher, "seed": seed + INDEPENDENT},
        "scheduler": way.scheduler or study.scheduler.model_dump(mode="json"),
        "budget": {"trials": len(table.settings), "epochs": epochs},
        "confirmation": {"top_k": 0},
    }
    return StudyConfig.model_validate(study.model_dump(mode="json") | changed)


def random_search(table: CurveTable, seed: int, trials: int) -> Story:
    """Returns rows in random order, each trained to its end."""
    order = np.random.default_rng(seed).permutation(len(table.settings))[:trials]
    return [((n + 1) * table.epochs, int(row)) for n, row in enumerate(order)]
