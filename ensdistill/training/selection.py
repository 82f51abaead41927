"""Early stopping, and selection of the epoch to evaluate and export; both are based on validation metrics."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ensdistill.methods.recipe import Training

Metrics = dict[str, float]


class EpochSelection:
    """State of the epoch selection during one run.

    Attributes:
        epoch: Number of the selected epoch; 0 before the first epoch.
        val: Validation metrics of the selected epoch.
        subnetworks: Validation metrics of the subnetworks in the selected epoch.
        weights: State dict of the network to export; empty if the last epoch is always selected.
    """

    def __init__(self, training: Training) -> None:
        self._select, self._patience = training.select_epoch, training.patience
        self.epoch, self.val, self.subnetworks = 0, Metrics(), Metrics()
        self.weights: dict[str, Tensor] = {}
        self._best, self._best_epoch, self._done = -math.inf, 0, 0

    @property
    def ends(self) -> bool:
        """Whether none of the last `patience` epochs improved the metric."""
        return self._patience is not None and self._done - self._best_epoch >= self._patience

    def selects(self, val: Mapping[str, float]) -> bool:
        """Returns whether an epoch with these metrics replaces the selected epoch; on a tie, it does not."""
        return self._select == "last" or self._score(val) > self._best

    def add(self, epoch: int, val: Metrics, subnetworks: Metrics, network: nn.Module) -> None:
        """Adds an epoch to the selection.

        Args:
            epoch: Epoch number, from 1.
            val: Validation metrics of the epoch.
            subnetworks: Validation metrics of the subnetworks; used only if the epoch is selected.
            network: Network of the epoch, in its exported form.
        """
        if self.selects(val):
            self.epoch, self.val, self.subnetworks = epoch, val, subnetworks
            if self._select != "last":
                self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if self._score(val) > self._best:
            self._best, self._best_epoch = self._score(val), epoch
        self._done = epoch

    def _score(self, val: Mapping[str, float]) -> float:
        """Returns the metric by which the epoch is selected, negated if lower is better."""
        return val["accuracy"] if self._select == "best_accuracy" else -val["nll"]

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that `load_state_dict` restores."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state of a run with the same settings."""
        vars(self).update(state)
