"""A search space file: what is tried, by whom, for how long. (`tune.load` reads one and finds its faults.)

preset: latentbe                    # where every trial starts
config: {training: {epochs: 30}}    # fixed settings on top of it
search:
  transfer.temperature: {log_uniform: [1, 10]}
  averaging.kind: {choice: [none, ema]}
  averaging.decay: {uniform: [0.8, 0.99], when: {averaging.kind: ema}}
"""

from collections.abc import Mapping
from typing import Any, Literal

from ensdistill.config import Config, build_config
from ensdistill.settings import Settings, setting
from tune.axis import Axis, as_list
from tune.confirm import Confirm
from tune.schedulers import Asha, Scheduler
from tune.searchers import Searcher, Tpe

SHARED = ("seed", "data", "model", "teachers", "training")  # what baselines take over from the study's own settings


class Budget(Settings):
    """How much is tried."""

    trials: int = setting(24, "Searched trials, baselines not counted.", ge=1, le=1_000_000)
    minutes: float | None = setting(None, "No trial goes on after so many minutes.", gt=0)


class Resources(Settings):
    """What one trial is given; as many run side by side as fit."""

    cpu: float = setting(1, "CPU cores.", ge=0.01)
    gpu: float = setting(0, "GPUs; a fraction lets several trials share one, each with that share of its memory.", ge=0)
    retries: int = setting(1, "How often a trial whose process died goes on from its last checkpoint.", ge=0, le=100)


class Study(Settings):
    """A whole search space file."""

    preset: str = setting("latentbe", "The preset every trial starts from.")
    config: dict[str, Any] = setting({}, "Settings on top of the preset, the same in all trials.")
    search: dict[str, Axis] = setting(..., "The axes, by the dotted names of settings.", min_length=1)
    baselines: list[str] = setting([], "Presets that run first as published, on the study's own data and training.")
    objective: Literal["val/nll", "val/cnll", "val/accuracy", "val/brier", "val/ece"] = setting(
        "val/nll", "The validation metric that decides; accuracy is maximised, the others minimised."
    )
    searcher: Searcher = setting(Tpe(), "Who suggests settings.")
    scheduler: Scheduler = setting(Asha(), "Who stops hopeless trials early.")
    budget: Budget = setting(Budget(), "How much is tried.")
    confirm: Confirm = setting(Confirm(), "How the winner is held against luck.")
    trial: Resources = setting(Resources(), "What one trial is given.")

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less or more of the objective is better."""
        return "max" if self.objective == "val/accuracy" else "min"

    @property
    def total(self) -> int:
        """How many trials there will be, baselines included."""
        return self.budget.trials + len(self.baselines)

    @property
    def order(self) -> list[str]:
        """The axes, each after those that its condition names."""
        return ordered(self.search)

    @property
    def epochs(self) -> int:
        """How long a trial is, in epochs."""
        return self.fixed_config.training.epochs

    @property
    def fixed_config(self) -> Config:
        """The settings of one possible trial; data, teachers and length are the same in all of them."""
        return self.trial_config(example(self, {}))

    @property
    def specimens(self) -> list[Config]:
        """Every baseline and a trial for every choice of every axis, without those alike in what their students are."""
        searched = [(name, value) for name, axis in self.search.items() for value in axis.values]
        samples = [example(self, {name: value}) for name, value in searched]
        configs = [self.trial_config(sample) for sample in samples]
        configs += [self.baseline_config(name) for name in self.baselines]
        return list({(repr(c.model), repr(c.student), repr(c.training)): c for c in configs}.values())

    def config_of(self, baseline: str | None, sampled: Mapping[str, Any], seed: int | None = None) -> Config:
        """The settings of a baseline or of a searched trial, with another seed of the student if one is given."""
        config = self.baseline_config(baseline) if baseline else self.trial_config(sampled)
        return config if seed is None else config.model_copy(update={"seed": seed})

    def trial_config(self, sampled: Mapping[str, Any]) -> Config:
        """The settings of one trial from the values of its axes."""
        return build_config({"preset": self.preset, **self.config}, sampled)

    def baseline_config(self, preset: str) -> Config:
        """A preset's published method on the study's own data, model, teachers and training."""
        shared = {name: self.config[name] for name in SHARED if name in self.config}
        return build_config({"preset": preset, **shared})


def example(study: Study, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """One full sample in which these axes have these values and their conditions are met."""
    wanted = dict(wanted)
    for name in reversed(study.order):
        if name in wanted:
            for other, values in study.search[name].when.items():
                wanted.setdefault(other, as_list(values)[0])
    sampled: dict[str, Any] = {}
    for name in study.order:
        if study.search[name].holds(sampled):
            sampled[name] = wanted.get(name, study.search[name].values[0])
    return sampled


def ordered(search: Mapping[str, Axis]) -> list[str]:
    """The axes, each after those that its condition names; those that wait for each other are left out."""
    order: list[str] = []
    while ready := [n for n in search if n not in order and all(o in order or o not in search for o in search[n].when)]:
        order += ready
    return order
