"""One student learns from one ensemble: the loop over epochs, evaluation, and resuming at exact checkpoints."""

import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.data.splits import to_unit
from ensdistill.errors import ConfigError, DivergedError
from ensdistill.evaluation.calibration import calibrated_nll
from ensdistill.evaluation.metrics import all_metrics, at_chance
from ensdistill.evaluation.predict import evaluate, predict
from ensdistill.methods.members import MultiClassifier, TeacherEnsemble
from ensdistill.methods.recipe import set_lr
from ensdistill.methods.students.base import Student
from ensdistill.methods.students.single_student import SingleStudent
from ensdistill.models import build
from ensdistill.runtime.allocator import disable_malloc_trim
from ensdistill.runtime.randomness import RandomStreams, derive_seed, deterministic, temporary_seed
from ensdistill.training.checkpoint import check_identity, read_checkpoint, write_checkpoint
from ensdistill.training.step import distill_step
from ensdistill.training.teacher_checks import check_numbers
from ensdistill.training.teacher_logits import CachedTeachers, cached_teacher_logits

UNLABELED_STREAM = "unlabelled"  # hashed into the seed of their order: in another spelling all numbers change


@dataclass(frozen=True)
class EpochResult:
    """The numbers of one epoch."""

    number: int  # 1 is the first
    epochs: int
    loss: float  # mean training loss
    # Validation metrics of the merged student; `cnll` at the temperature that is best there; `at_chance` is 0 or 1.
    val: dict[str, float]
    subnetworks: dict[str, float]  # the same of its subnetworks' mean probability
    seconds: float  # training and evaluation of this epoch

    @property
    def last(self) -> bool:
        """Whether the training is over."""
        return self.number == self.epochs


def distill(
    config: Config, ensemble: TeacherEnsemble, data: DataSplits, resume: str | Path | None = None
) -> "Distiller":
    """Returns the run that trains one student. The short form of `Distiller(config, ensemble, data, resume)`."""
    return Distiller(config, ensemble, data, resume)


def new_student(config: Config, data: DataSplits) -> Student:
    """The student as its training begins, on the device of the data; the same seed gives the same weights."""
    device = data.train.images.device
    network = build(config.model, data, config.seed, config.loss.head())
    with temporary_seed(derive_seed(config.seed, "student"), torch.device("cpu")):
        student: Student = config.student(network)
    return student.to(device)


def check_data(config: Config, data: DataSplits) -> None:
    """Raises ConfigError if the student's training asks for images that these data do not have."""
    _check_batch("training", config.training.batch_size, data)
    if config.training.unlabeled_batch_size and not len(data.unlabeled):
        raise ConfigError(
            "training.unlabeled_batch_size: the split leaves no unlabeled images; lower data.train_size or set "
            "this to 0"
        )


def _check_batch(name: str, batch_size: int, data: DataSplits) -> None:
    if batch_size > len(data.train):
        rule = f"{batch_size} is more than the {len(data.train)} training images"
        raise ConfigError(f"{name}.batch_size: {rule}; set it to {len(data.train)} or less")


def check_student(config: Config, data: DataSplits) -> None:
    """Raises ConfigError if these data do not suffice or the network cannot be such a student; trains nothing."""
    check_data(config, data)
    if config.teachers.count:
        _check_batch("teachers.training", config.teachers.training.batch_size, data)
    student = new_student(config, data).train()
    images, _ = data.train[slice(0, min(2, config.training.batch_size + config.training.unlabeled_batch_size))]
    try:
        with temporary_seed(0, images.device), torch.no_grad():
            student(images)
    except ValueError as error:  # BatchNorm has no variance where one image of one pixel is all it sees
        raise ConfigError(
            f"training.batch_size: {config.training.batch_size} is too small for this network ({error})"
        ) from error


class Distiller(Iterator[EpochResult]):
    """One run, which trains one student on the device where data and teachers are: an epoch at each iteration.

    The iterator yields numbers. The student, and checkpoints, are those of the last epoch that it has yielded.
    """

    def __init__(
        self, config: Config, teachers: TeacherEnsemble, data: DataSplits, resume: str | Path | None = None
    ) -> None:
        """Builds the student, or reads it.

        Args:
            config: All settings.
            teachers: The ensemble; without teachers the student learns from the labels alone.
            data: Training, validation and unlabeled images.
            resume: A checkpoint that `save_checkpoint` wrote in a run with the same teachers, data and settings up to
                its epoch. The epochs after it are those of an uninterrupted run; on the CPU, bit for bit.

        Raises:
            ConfigError: The settings do not fit the data, or the checkpoint is of another run.
            DataError: The checkpoint is missing or damaged.
        """
        disable_malloc_trim()
        self.config, self.ensemble, self.data = config, teachers, data
        self.device = data.train.images.device
        check_data(config, data)
        self.steps = len(data.train) // config.training.batch_size
        self.done = 0
        self._broken = False  # whether an epoch failed
        self.merged = False  # whether the subnetworks have become one already
        self._take(new_student(config, data))
        if resume is not None:
            self._restore(Path(resume))

    def __next__(self) -> EpochResult:
        """Trains and evaluates the next epoch.

        Raises:
            DivergedError: The loss became infinite or NaN. After this error, or any other, the run has ended.
        """
        if self._broken or self.done >= self.config.training.epochs:
            raise StopIteration
        try:
            with deterministic(self.config.training.threads):
                return self._epoch(self.done + 1)
        except BaseException:
            self._broken = True
            raise

    def student(self) -> nn.Module:
        """Returns a copy of the network that was evaluated last: images (B,C,H,W) in [0,1] -> logits (B,classes)."""
        with deterministic(self.config.training.threads):
            return self._one(self.average.averaged(self._trained)).eval()

    def save_checkpoint(self, path: str | Path) -> None:
        """Writes all that the following epochs depend on; random streams are functions of seed and epoch."""
        state = {
            "identity": self._identity(self.done),
            "epoch": self.done,
            "student": self._trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "merged": self.merged,
        }
        write_checkpoint(path, state)

    def _take(self, student: Student) -> None:
        """Begins to train this student, in the memory layout that is fastest."""
        self._trained = student.to(memory_format=torch.channels_last)
        self.optimizer = self.config.training.optimizer(student)
        self.average = self.config.averaging(student)

    def _merge(self) -> None:
        """From here on one plain network, with a fresh optimizer and a fresh average."""
        self._take(SingleStudent(self._trained.merged()))
        self.merged = True

    def _epoch(self, number: int) -> EpochResult:
        start = time.perf_counter()
        if not self.merged and self._trained.merge_due(self.done / self.config.training.epochs):
            self._merge()
        loss = self._train(number)
        self.done = number
        self.average.epoch_ended(self._trained, number / self.config.training.epochs, self._judge)
        val = self._judge_shipped()
        if not math.isfinite(val["nll"]):
            raise DivergedError(number, self.steps, val["nll"])
        return EpochResult(
            number=number,
            epochs=self.config.training.epochs,
            loss=loss,
            val=val,
            subnetworks=evaluate(self._averaged(), self.data.validation) if len(self._trained) > 1 else val,
            seconds=time.perf_counter() - start,
        )

    def _train(self, number: int) -> float:
        """One pass over the training images; the mean loss. Nothing here waits for the device before its end."""
        config = self.config.at_epoch(number)
        training = config.training
        streams = RandomStreams.of(config.seed, "perturbation", number, self.device)
        losses = []
        self._trained.train()
        with temporary_seed(derive_seed(config.seed, "dropout", number), self.device):
            for n, (images, labels, teachers) in enumerate(self._batches(number)):
                step = (number - 1) * self.steps + n
                set_lr(self.optimizer, training.lr_at(step, self.steps))
                progress = (step + 1) / (training.epochs * self.steps)
                losses.append(
                    distill_step(
                        config,
                        teachers,
                        self._trained,
                        self.optimizer,
                        self.average,
                        images,
                        labels,
                        streams,
                        progress,
                    )
                )
        try:
            return _mean_if_finite(torch.stack(losses), number)
        except DivergedError:
            check_numbers(list(self.ensemble.networks), self.data.train)
            raise

    @cached_property
    def _recalled(self) -> Tensor | None:
        """The teachers' logits of all images if no step shows others; no change on the way can make one do so."""
        return cached_teacher_logits(self.ensemble, self.data, self.config)

    def _teachers(self, labeled: Tensor, unlabeled: Tensor) -> MultiClassifier:
        """Who speaks of a batch of these images."""
        if self._recalled is None:
            return self.ensemble
        return CachedTeachers(self._recalled[:, torch.cat([labeled, len(self.data.train) + unlabeled])])

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, MultiClassifier]]:
        """Shuffled, augmented batches: images (B,C,H,W) in [0,1], labels (B,), the unlabeled ones (-1) at the end, and

        the teachers that speak of them.
        """
        training, data = self.config.training, self.data
        labeled = self._order("order", epoch, len(data.train), training.batch_size)
        unlabeled = self._order(UNLABELED_STREAM, epoch, len(data.unlabeled), training.unlabeled_batch_size)
        chance = RandomStreams.of(self.config.seed, "augmentation", epoch, self.device).device
        for some, others in zip(labeled, unlabeled, strict=True):
            images = torch.cat([data.train.images[some], data.unlabeled.images[others]])
            labels = torch.cat([data.train.labels[some], data.unlabeled.labels[others]])
            yield to_unit(training.augmentation(images, chance)), labels, self._teachers(some, others)

    def _order(self, purpose: str, epoch: int, images: int, size: int) -> Iterator[Tensor]:
        """Indices of each batch of an epoch; after the last image all are shuffled anew."""
        shuffle = RandomStreams.of(self.config.seed, purpose, epoch, self.device).host
        rounds = math.ceil(self.steps * size / max(1, images))
        order = [torch.randperm(images, generator=shuffle) for _ in range(rounds)]
        flat = torch.cat([torch.empty(0, dtype=torch.long), *order]).to(self.device)
        return (flat[n * size : (n + 1) * size] for n in range(self.steps))

    def _judge_shipped(self) -> dict[str, float]:
        """Validation metrics of the averaged student, calibrated NLL besides."""
        labels, log_p = self.data.validation.labels, predict(self.student(), self.data.validation)
        row = all_metrics(log_p, labels) | {"cnll": calibrated_nll(log_p, labels, log_p, labels)}
        return row | {"at_chance": float(at_chance(log_p, labels))}

    def _judge(self, student: Student) -> dict[str, float]:
        """Validation metrics of a student as it would be shipped."""
        return evaluate(self._one(student), self.data.validation)

    def _averaged(self) -> nn.Module:
        """The averaged student with all its subnetworks, to evaluate only."""
        return self._refreshed(self.average.averaged(self._trained))

    def _one(self, student: Student) -> nn.Module:
        """A student merged into one network, in the memory layout that files have, or its numbers would be others."""
        network = self._refreshed(student.merged())
        for tensor in chain(network.parameters(), network.buffers()):  # `to` leaves layouts of one channel as they are
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
        return network

    def _refreshed(self, network: nn.Module) -> nn.Module:
        """A copy with BatchNorm statistics from one pass over the training images, if the averaging asks for that."""
        if not self.config.averaging.refresh_batchnorm:
            return network
        network = deepcopy(network)
        # In random order: folders hold their images by class, and a batch of one class says nothing of the others.
        batches = self._order("refresh", 0, len(self.data.train), self.config.training.batch_size)
        with temporary_seed(derive_seed(self.config.seed, "refresh"), self.device):
            update_bn((self.data.train[batch][0] for batch in batches), network)
        return network

    def _identity(self, epoch: int) -> dict[str, str]:
        """What decided the epochs up to this one."""
        settings = self.config.prefix_until(epoch).hash
        return {"settings": settings, "ensemble": self.ensemble.identity, "data": self.data.identity}

    def _restore(self, path: Path) -> None:
        state = read_checkpoint(path, self.device)
        check_identity(path, state, self._identity(state["epoch"]))
        if state["merged"]:
            self._merge()
        self._trained.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.done = state["epoch"]


def _mean_if_finite(losses: Tensor, epoch: int) -> float:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise DivergedError(epoch, int(bad[0]) + 1, float(losses[bad[0]]))
    return float(losses.double().mean())
