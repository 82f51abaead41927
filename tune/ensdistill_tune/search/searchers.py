"""Searchers, which suggest settings. To add a searcher, write a class and list it in `Searcher`.

The n-th suggestion is a function of n, the searcher's seed and the results so far: every suggestion has a separate
random stream. A searcher therefore has no state to save; given the same results, it continues identically.
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
    uses_constraints: ClassVar[bool] = False  # True if suggestions avoid regions in which constraints were broken
    uses_conditional: ClassVar[bool] = True  # False if the model ignores conditional hyperparameters
    fitted_trials: ClassVar[int | None] = None  # number of ended trials above which the model uses only some of them
    seed: int = setting(0, "Seed of the suggestions.", ge=0)

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Returns Optuna's sampler for one suggestion.

        Args:
            seed: Seed of this suggestion.
        """
        import optuna  # imported here and below, because it loads slowly and is rarely used

        return optuna.samplers.RandomSampler(seed=seed)

    def fixed_values(self, space: SearchSpace, place: int) -> Sampled | None:
        """Returns the values of a suggestion that the sampler does not choose.

        Args:
            space: The search space.
            place: Index of the suggestion; 0 is the first.

        Returns:
            Values, keyed by name; None if the searcher has no further suggestion.
        """
        return {}


class ModelBasedSearcher(SearcherSettings):
    uses_constraints: ClassVar[bool] = True
    startup_trials: int = setting(8, "Number of random trials before the model is used.", ge=1)


class Tpe(ModelBasedSearcher):
    """Tree-structured Parzen estimator, for one or several objectives.

    With one objective and over 500 ended trials, the model uses the best 25 and an evenly spaced sample of the rest.

    References:
        Bergstra et al. 2011. Watanabe 2023.
    """

    # Optuna counts the best 10 % of the trials as good, but at most 25. At least 250 trials stay selected, so the good
    # ones are the best 25.
    fitted_trials: ClassVar[int | None] = 500
    kind: Literal["tpe"] = "tpe"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Returns Optuna's sampler; running trials count as bad, so that concurrent suggestions differ."""
        import optuna

        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.startup_trials, constant_liar=True, multivariate=False
        )


class Random(SearcherSettings):
    """Random search: draws each trial independently."""

    kind: Literal["random"] = "random"


class Gp(ModelBasedSearcher):
    """Gaussian process with expected improvement (Optuna's GPSampler), for few hyperparameters and few, long trials."""

    kind: Literal["gp"] = "gp"
    uses_conditional: ClassVar[bool] = False

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Returns Optuna's sampler; the objective is treated as noisy, because results depend on the seed."""
        import optuna

        return optuna.samplers.GPSampler(
            seed=seed,
            n_startup_trials=self.startup_trials,
            deterministic_objective=False,
            warn_independent_sampling=False,  # the study warns once
        )


class Nsga2(SearcherSettings):
    """Genetic algorithm with non-dominated sorting, for several objectives.

    References:
        Deb et al. 2002 (NSGA-II).
    """

    uses_constraints: ClassVar[bool] = True
    kind: Literal["nsga2"] = "nsga2"
    population: int = setting(16, "Population size: number of completed trials per generation.", ge=2)

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Returns Optuna's sampler."""
        import optuna

        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.population)


class Qmc(SearcherSettings):
    """Quasi-random search with scrambled Sobol points, which cover the space more evenly than random points.

    References:
        Bergstra and Bengio 2012, section 2.
    """

    kind: Literal["qmc"] = "qmc"

    def fixed_values(self, space: SearchSpace, place: int) -> Sampled | None:
        """Returns the Sobol point at an index, with its coordinates mapped to the values of all hyperparameters."""
        from scipy.stats.qmc import Sobol  # imported here, because it loads slowly and is rarely used

        points = Sobol(len(space.order), scramble=True, rng=np.random.default_rng(self.seed))
        if place:
            points.fast_forward(place)
        coordinates = dict(zip(space.order, points.random(1)[0], strict=True))
        return space.draw(lambda name, axis: axis.from_unit_interval(coordinates[name]))


class Grid(SearcherSettings):
    """Grid search: tries each combination of values once; requires hyperparameters with finitely many values."""

    kind: Literal["grid"] = "grid"

    def fixed_values(self, space: SearchSpace, place: int) -> Sampled | None:
        """Returns the combination at an index; None after the last one."""
        return next(itertools.islice(space.combinations(), place, None), None)


Searcher = Annotated[Tpe | Gp | Nsga2 | Qmc | Random | Grid, Field(discriminator="kind")]
