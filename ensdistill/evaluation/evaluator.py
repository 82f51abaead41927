"""Evaluation of a student and its teachers on one split."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
from ensdistill.evaluation.flops import FlopCounter
from ensdistill.evaluation.metric_values import Metrics
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

T = TypeVar("T")


class Evaluator:
    """Evaluates networks on one split, with temperatures fitted on the validation images.

    The predictions of the teachers are computed once and reused for all networks.
    """

    def __init__(
        self, ensemble: TeacherEnsemble | None, data: DataSplits, split: Split, metrics: Sequence[Metric] = ()
    ) -> None:
        """Computes the predictions of the teachers.

        Args:
            ensemble: The teachers; None if they are not available. In that case, students have no metrics that compare
                them with the ensemble (`dee`, `top1_agreement`, `kl_to_ensemble`).
            data: The images; the validation split determines the temperatures.
            split: The images on which networks are evaluated.
            metrics: User-defined metrics, computed for every network.
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
        """Returns the metrics and cost of a merged student, and comparisons with the ensemble if it is available."""
        on_validation, log_p = self._both(lambda part: predict(network, part))
        row = self._metrics(on_validation, log_p)
        if self.on_split is not None:
            ensemble = log_mean_probability(self.on_split)
            row |= {"dee": deep_ensemble_equivalent(row["cnll"], self.curve)}
            row |= {
                "top1_agreement": top_1_agreement(log_p, ensemble),
                "kl_to_ensemble": predictive_kl(log_p, ensemble),
            }
        if isinstance(network, CombinedClassifier):
            row |= _diversity(_subnetwork_predictions(network, self.split))
        return row | model_complexity(network, self.shape)

    def teachers(self) -> dict[str, Any]:
        """Returns the metrics of the teachers; an empty dictionary if there are no teachers.

        Returns:
            `ensemble`: metrics and diversity of the ensemble; `members`: metrics of each teacher; `curve`: calibrated
            NLL of ensembles of 1, 2, ..., M teachers, in nats.
        """
        if self.on_validation is None or self.on_split is None:
            return {}
        ensemble = self._metrics(*(log_mean_probability(part) for part in (self.on_validation, self.on_split)))
        members = [self._metrics(fit, log_p) for fit, log_p in zip(self.on_validation, self.on_split, strict=True)]
        ensemble_log_p = log_mean_probability(self.on_split)
        for member, log_p, cost in zip(members, self.on_split, self.costs, strict=True):
            member |= {"dee": 1.0, "top1_agreement": top_1_agreement(log_p, ensemble_log_p)}
            member |= {"kl_to_ensemble": predictive_kl(log_p, ensemble_log_p)} | cost
        ensemble |= {"dee": float(len(members)), "top1_agreement": 1.0, "kl_to_ensemble": 0.0}
        ensemble |= {name: sum(cost[name] for cost in self.costs) for name in self.costs[0] if all(self.costs)}
        return {"ensemble": ensemble | _diversity(self.on_split), "members": members, "curve": self.curve}

    def diagnostics(self, networks: Sequence[nn.Module]) -> dict[str, Any]:
        """Computes, on the split, the data for the report's calibration and disagreement figures.

        The images are sorted by teacher disagreement in ascending order and divided into ten parts. Without teachers,
        there are no parts.

        Args:
            networks: The networks; each maps images (B,C,H,W) in [0,1] to logits (B,classes).

        Returns:
            `images`: number of images. `networks`: for each network, the `ece`, the bins of the `reliability` diagram,
            and the mean `entropy` in each part, in nats. `ensemble`: the same data for the ensemble, or None.
            `teachers`: mean mutual information of the teachers in each part, in nats. `class_names`: names of the
            classes. `confused`: the classes with the most errors. `wrong` and `disputed`: the hardest images for the
            first network (see `hardest_images`). Each entry of `networks` also contains `class_accuracy`, the
            accuracy of each class, and `confusion`, the confusion matrix of the `confused` classes.
        """
        predictions = [predict(network, self.split).cpu() for network in networks]
        apart, tenths = torch.empty(0), list[Tensor]()
        if self.on_split is not None:
            predictions.append(log_mean_probability(self.on_split))
            apart = disagreement(self.on_split)
            tenths = [part for part in apart.argsort().tensor_split(10) if len(part)]
        labels = self.split.labels.cpu()
        confusions = [confusion_matrix(log_p, labels) for log_p in predictions]
        confused = most_confused(confusions) if confusions else []
        rows = [
            {
                "ece": ece(log_p, labels),
                "reliability": reliability(log_p, labels),
                "entropy": [float(entropy(log_p[part]).mean()) for part in tenths],
                "class_accuracy": class_accuracies(confusion),
                "confusion": part_of(confusion, confused),
            }
            for log_p, confusion in zip(predictions, confusions, strict=True)
        ]
        ensemble = predictions[len(networks)] if self.on_split is not None else None
        return (hardest_images(self.split, predictions[0], ensemble) if len(networks) else {}) | {
            "class_names": list(self.class_names),
            "confused": confused,
            "images": len(labels),
            "networks": rows[: len(networks)],
            "ensemble": rows[len(networks)] if self.on_split is not None else None,
            "teachers": [float(apart[part].mean()) for part in tenths],
        }

    @cached_property
    def curve(self) -> list[float]:
        """Calibrated NLL of ensembles of 1, 2, ..., M teachers on the split, in nats."""
        if self.on_validation is None or self.on_split is None:
            return []
        return ensemble_curve(self.on_split, self.split.labels.cpu(), self.on_validation, self.validation.labels.cpu())

    def _both(self, compute: Callable[[Split], T]) -> tuple[T, T]:
        """Applies `compute` to the validation split and the evaluated split; only once if both are the same object."""
        on_validation = compute(self.validation)
        return on_validation, on_validation if self.split is self.validation else compute(self.split)

    def _metrics(self, on_validation: Tensor, log_p: Tensor) -> Metrics:
        """Returns uncalibrated and calibrated metrics.

        `temperature_identified` is 1 if the validation images determine the temperature, otherwise 0. `at_chance` is 1
        if the predictions are no better than chance, otherwise 0.
        """
        temperature, identified = fit(on_validation, self.validation.labels)
        row = all_metrics(log_p, self.split.labels) | calibrated_metrics(log_p, self.split.labels, temperature)
        row |= {"temperature": temperature, "temperature_identified": float(identified)}
        row |= {"at_chance": float(at_chance(log_p, self.split.labels))}
        return row | own_metrics(self.own, log_p, self.split.labels)


def model_complexity(network: nn.Module, shape: Sequence[int]) -> Metrics:
    """Returns the size and the cost of a network (a student or a teacher) in its inference form.

    Args:
        network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        shape: Channels, height and width of an image.

    Returns:
        `parameters`: number of parameters; `flops`: number of multiplications and additions per image, in convolutions
        and matrix products. The result is empty for a teacher with stored predictions.
    """
    if isinstance(network, StoredTeacher):
        return {}
    network = inference_form(network)
    like = next(network.parameters(), torch.empty(0))
    with evaluating(network), torch.no_grad(), FlopCounter() as counter:
        network(torch.zeros(1, *shape, device=like.device))
    return {
        "parameters": float(sum(p.numel() for p in network.parameters())),
        "flops": float(counter.flops),
    }


def evaluate_corruptions(network: nn.Module, split: Split) -> dict[str, list[Metrics]]:
    """Returns the metrics on corrupted images of a split.

    Args:
        network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        split: The uncorrupted images.

    Returns:
        For each corruption, the metrics at severity 1, 2, ..., 5.
    """
    images = split.images[:]  # read only once, because the images may be on disk
    return {
        name: [evaluate(network, Split(corrupt(images, name, s, seed=0), split.labels)) for s in SEVERITIES]
        for name in CORRUPTIONS
    }


def ood_auroc_of(network: nn.Module, split: Split, other: Split) -> float:
    """Returns the AUROC for detecting out-of-distribution images by prediction entropy.

    Args:
        network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        split: In-distribution images.
        other: Out-of-distribution images.

    Returns:
        A number in [0,1]; 1/2 is chance level.
    """
    return ood_auroc(predict(network, split), predict(network, other))


def _diversity(member_log_p: Tensor) -> Metrics:
    """Returns diversity measures in nats, computed from log-probabilities (M,N,c)."""
    return {"diversity": pairwise_kl(member_log_p), "mutual_information": mutual_information(member_log_p)}


def _member_predictions(networks: Sequence[nn.Module] | nn.ModuleList, split: Split) -> Tensor:
    """Returns the log-probabilities (M,N,c) of several networks on the CPU."""
    return torch.stack([predict(network, split).cpu() for network in networks])


def _subnetwork_predictions(network: CombinedClassifier, split: Split) -> Tensor:
    """Returns the log-probabilities (K,N,c) of the subnetworks on the CPU."""
    return torch.stack([predict(_SingleMember(network, k), split).cpu() for k in range(len(network.members))])


class _SingleMember(nn.Module):
    """One member of a combined classifier, as a network that returns logits (1,B,c)."""

    def __init__(self, network: CombinedClassifier, member: int) -> None:
        super().__init__()
        self.members, self.member = network.members, member

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.members(x, [self.member])
        return logits
