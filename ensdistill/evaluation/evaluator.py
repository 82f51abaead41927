"""What there is to say of a student and its teachers on one split, as plain numbers."""

from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ensdistill.data import DataSplits, Split
from ensdistill.evaluation.calibration import calibrated_metrics, fit
from ensdistill.evaluation.class_diagnostics import (
    class_accuracies,
    confusion_matrix,
    hardest_images,
    most_confused,
    part_of,
)
from ensdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ensdistill.evaluation.ensemble_metrics import (
    deep_ensemble_equivalent,
    disagreement,
    ensemble_curve,
    mutual_information,
    pairwise_kl,
    predictive_kl,
    top_1_agreement,
)
from ensdistill.evaluation.metrics import (
    all_metrics,
    at_chance,
    ece,
    entropy,
    log_mean_probability,
    ood_auroc,
    reliability,
)
from ensdistill.evaluation.own_metrics import own_metrics
from ensdistill.evaluation.predict import evaluate, predict
from ensdistill.methods.members import CombinedClassifier, TeacherEnsemble
from ensdistill.methods.metrics import Metric
from ensdistill.models.fusion import inference_form
from ensdistill.models.stored_predictions import StoredTeacher
from ensdistill.runtime.modes import evaluating

Metrics = dict[str, float]
T = TypeVar("T")


class Evaluator:
    """Judges networks on one split, with the teachers' predictions at hand. Temperatures are fitted on validation."""

    def __init__(
        self, ensemble: TeacherEnsemble | None, data: DataSplits, split: Split, metrics: Sequence[Metric] = ()
    ) -> None:
        """ensemble: the teachers if they are there; without them a student has no `dee` and no `agreement`.

        metrics: the user's own, which are computed of every network.
        """
        self.own = metrics
        self.validation, self.split = data.validation, split
        self.shape = tuple(data.train.images.shape[1:])
        self.class_names = data.class_names
        networks = None if ensemble is None else ensemble.networks
        self.costs = [model_complexity(network, self.shape) for network in networks or ()]
        self.on_validation, self.on_split = self._both(
            lambda part: None if networks is None else _member_predictions(networks, part)
        )

    def student(self, network: nn.Module) -> Metrics:
        """Metrics of a shipped student; against the teachers, if they are there; and its cost."""
        on_validation, log_p = self._both(lambda part: predict(network, part))
        row = self._metrics(on_validation, log_p)
        if self.on_split is not None:
            everyone = log_mean_probability(self.on_split)
            row |= {"dee": deep_ensemble_equivalent(row["cnll"], self.curve)}
            row |= {
                "top1_agreement": top_1_agreement(log_p, everyone),
                "kl_to_ensemble": predictive_kl(log_p, everyone),
            }
        if isinstance(network, CombinedClassifier):
            row |= _diversity(_subnetwork_predictions(network, self.split))
        return row | model_complexity(network, self.shape)

    def teachers(self) -> dict[str, Any]:
        """`ensemble`: its metrics and diversity; `members`: metrics of each; `curve`: cNLL of 1, 2, ..., M of them."""
        if self.on_validation is None or self.on_split is None:
            return {}
        together = self._metrics(*(log_mean_probability(part) for part in (self.on_validation, self.on_split)))
        members = [self._metrics(fit, log_p) for fit, log_p in zip(self.on_validation, self.on_split, strict=True)]
        everyone = log_mean_probability(self.on_split)
        for member, log_p, price in zip(members, self.on_split, self.costs, strict=True):
            member |= {"dee": 1.0, "top1_agreement": top_1_agreement(log_p, everyone)}
            member |= {"kl_to_ensemble": predictive_kl(log_p, everyone)} | price
        together |= {"dee": float(len(members)), "top1_agreement": 1.0, "kl_to_ensemble": 0.0}
        together |= {name: sum(price[name] for price in self.costs) for name in self.costs[0] if all(self.costs)}
        return {"ensemble": together | _diversity(self.on_split), "members": members, "curve": self.curve}

    def diagnostics(self, networks: Sequence[nn.Module]) -> dict[str, Any]:
        """What a page can draw of these networks and of the teachers together, on the split.

        The images are in ten parts, those first of which the teachers agree most; without teachers there are no parts.

        Returns:
            `images`: their number. `networks`: for each network `ece`, the bins of its `reliability` diagram, and its
            mean `entropy` in each part, in nats. `ensemble`: the same of the teachers together, or None.
            `teachers`: their mean mutual information in each part. By class and by image (`class_diagnostics`):
            `class_names`, the most `confused` classes; of each network `class_accuracy` and `confusion` of these
            classes; the `wrong` and `disputed` images of the first network.
        """
        said = [predict(network, self.split).cpu() for network in networks]
        apart, tenths = torch.empty(0), list[Tensor]()
        if self.on_split is not None:
            said.append(log_mean_probability(self.on_split))
            apart = disagreement(self.on_split)
            tenths = [part for part in apart.argsort().tensor_split(10) if len(part)]
        labels = self.split.labels.cpu()
        confusions = [confusion_matrix(log_p, labels) for log_p in said]
        confused = most_confused(confusions) if confusions else []
        drawn = [
            {
                "ece": ece(log_p, labels),
                "reliability": reliability(log_p, labels),
                "entropy": [float(entropy(log_p[part]).mean()) for part in tenths],
                "class_accuracy": class_accuracies(confusion),
                "confusion": part_of(confusion, confused),
            }
            for log_p, confusion in zip(said, confusions, strict=True)
        ]
        ensemble = said[len(networks)] if self.on_split is not None else None
        return (hardest_images(self.split, said[0], ensemble) if len(networks) else {}) | {
            "class_names": list(self.class_names),
            "confused": confused,
            "images": len(labels),
            "networks": drawn[: len(networks)],
            "ensemble": drawn[len(networks)] if self.on_split is not None else None,
            "teachers": [float(apart[part].mean()) for part in tenths],
        }

    @cached_property
    def curve(self) -> list[float]:
        """Calibrated NLL of ensembles of 1, 2, ..., M of the teachers on the split."""
        if self.on_validation is None or self.on_split is None:
            return []
        return ensemble_curve(self.on_split, self.split.labels.cpu(), self.on_validation, self.validation.labels.cpu())

    def _both(self, say: Callable[[Split], T]) -> tuple[T, T]:
        """What is said of validation and of the split; of one and the same split it is asked once."""
        on_validation = say(self.validation)
        return on_validation, on_validation if self.split is self.validation else say(self.split)

    def _metrics(self, on_validation: Tensor, log_p: Tensor) -> Metrics:
        """Plain and calibrated ones.

        `temperature_identified` is 1 if validation determines the temperature, else 0; `at_chance` likewise.
        """
        temperature, identified = fit(on_validation, self.validation.labels)
        row = all_metrics(log_p, self.split.labels) | calibrated_metrics(log_p, self.split.labels, temperature)
        row |= {"temperature": temperature, "temperature_identified": float(identified)}
        row |= {"at_chance": float(at_chance(log_p, self.split.labels))}
        return row | own_metrics(self.own, log_p, self.split.labels)


def mean_metrics(rows: Sequence[Metrics]) -> Metrics:
    """The mean of each metric over several networks."""
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def model_complexity(network: nn.Module, shape: Sequence[int]) -> Metrics:
    """`parameters`, and `flops` of one image (C,H,W): multiplications and additions of convolutions and products.

    Of the inference form, which is what teachers are kept in: both count as long as they are compared. Nothing is known
    of a teacher whose predictions are stored.
    """
    if isinstance(network, StoredTeacher):
        return {}
    network = inference_form(network)
    like = next(network.parameters(), torch.empty(0))
    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape, device=like.device))
    return {
        "parameters": float(sum(p.numel() for p in network.parameters())),
        "flops": float(counter.get_total_flops()),
    }


def evaluate_corruptions(network: nn.Module, split: Split) -> dict[str, list[Metrics]]:
    """Metrics on the corrupted images of a split: for each corruption those of severity 1, 2, ..., 5."""
    return {
        name: [evaluate(network, Split(corrupt(split.images, name, s, seed=0), split.labels)) for s in SEVERITIES]
        for name in CORRUPTIONS
    }


def ood_auroc_of(network: nn.Module, split: Split, other: Split) -> float:
    """AUROC of telling foreign images from those of a split by the entropy of the network's predictions."""
    return ood_auroc(predict(network, split), predict(network, other))


def _diversity(member_log_p: Tensor) -> Metrics:
    return {"diversity": pairwise_kl(member_log_p), "mutual_information": mutual_information(member_log_p)}


def _member_predictions(networks: Sequence[nn.Module] | nn.ModuleList, split: Split) -> Tensor:
    return torch.stack([predict(network, split).cpu() for network in networks])


def _subnetwork_predictions(network: CombinedClassifier, split: Split) -> Tensor:
    return torch.stack([predict(_SingleMember(network, k), split).cpu() for k in range(len(network.members))])


class _SingleMember(nn.Module):
    """One of several members."""

    def __init__(self, network: CombinedClassifier, member: int) -> None:
        super().__init__()
        self.members, self.member = network.members, member

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.members(x, [self.member])
        return logits
