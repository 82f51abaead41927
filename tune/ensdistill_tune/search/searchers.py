"""Who suggests settings. To add one: one class, one line in `Searcher`.

What is suggested to the n-th trial is a function of the searcher's seed, of n, and of what is known by then: every
suggestion has a random stream of its own. So a searcher has no state to save; told again what is known, it goes on.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ensdistill.runtime.lazy import np
from ensdistill.settings.base import Settings, setting
from ensdistill_tune.search.search_space import Sampled, SearchSpace

if TYPE_CHECKING:
    import optuna


class SearcherSettings(Settings):
    uses_constraints: ClassVar[bool] = False  # whether suggestions keep away from where constraints were broken
    seed: int = setting(0, "Seed of the suggestions.", ge=0)

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler for one suggestion, by a seed of its own."""
        import optuna  # here and below: a slow import that few commands need

        return optuna.samplers.RandomSampler(seed=seed)

    def fixed_values(self, space: SearchSpace, place: int) -> Sampled | None:
        """Values that are not left to the sampler for the suggestion at a place (0 is the first); None: no more."""
        return {}


class ModelBasedSearcher(SearcherSettings):
    uses_constraints: ClassVar[bool] = True
    startup_trials: int = setting(8, "Random trials before the model is asked.", ge=1)


class Tpe(ModelBasedSearcher):
    """Tree-structured Parzen estimator, for one objective or several. Bergstra et al. 2011; Watanabe 2023."""

    kind: Literal["tpe"] = "tpe"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; running trials count as bad, so that neighbors in time do not suggest the same."""
        import optuna

        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup_trials, constant_liar=True, multivariate=False
        )


class Random(SearcherSettings):
    """Independent draws."""

    kind: Literal["random"] = "random"


class Gp(ModelBasedSearcher):
    """Gaussian process with expected improvement: for few, long trials of few settings. Optuna's GPSampler."""

    kind: Literal["gp"] = "gp"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the same settings twice may give other values, as they do between seeds."""
        import optuna

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup_trials, deterministic_objective=False)


class Nsga2(SearcherSettings):
    """Genetic algorithm with non-dominated sorting, for several objectives. Deb et al. 2002 (NSGA-II)."""

    uses_constraints: ClassVar[bool] = True
    kind: Literal["nsga2"] = "nsga2"
    population: int = setting(16, "Trials that ran to their end before a generation is bred from them.", ge=2)

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler."""
        import optuna

        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.population)


class Qmc(SearcherSettings):
    """Scrambled Sobol points: random search that leaves no holes. Bergstra and Bengio 2012, section 2."""

    kind: Literal["qmc"] = "qmc"

    def fixed_values(self, space: SearchSpace, place: int) -> Sampled | None:
        """The point at this place, its coordinates turned into values of all axes."""
        from scipy.stats.qmc import Sobol  # here: a slow import that few commands need

        points = Sobol(len(space.order), scramble=True, rng=np.random.default_rng(self.seed))
        if place:
            points.fast_forward(place)
        coordinates = dict(zip(space.order, points.random(1)[0], strict=True))
        return space.draw(lambda name, axis: axis.from_unit_interval(coordinates[name]))


class Grid(SearcherSettings):
    """Every combination of values once: for axes whose values can be listed."""

    kind: Literal["grid"] = "grid"

    def fixed_values(self, space: SearchSpace, place: int) -> Sampled | None:
        """The combination at this place; None after the last."""
        return next(itertools.islice(space.combinations(), place, None), None)


Searcher = Annotated[Tpe | Gp | Nsga2 | Qmc | Random | Grid, Field(discriminator="kind")]
