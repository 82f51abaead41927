"""Distills one student from one ensemble: training loop, evaluation, and resuming from a checkpoint."""

import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import DivergedError
from ensdistill.evaluation.calibration import calibrated_nll
from ensdistill.evaluation.metrics import all_metrics, at_chance
from ensdistill.evaluation.own_metrics import own_metrics
from ensdistill.evaluation.predict import evaluate, predict
from ensdistill.methods.class_weights import weights_of_classes
from ensdistill.methods.losses.losses import LabelTerm
from ensdistill.methods.members import TeacherEnsemble
from ensdistill.methods.recipe import set_lr
from ensdistill.methods.students.base import Student
from ensdistill.methods.students.single_student import SingleStudent
from ensdistill.runtime.randomness import RandomStreams, derive_seed, deterministic, temporary_seed
from ensdistill.training.batches import Batches
from ensdistill.training.checkpoint import Checkpoint, check_identity, read_checkpoint, write_checkpoint
from ensdistill.training.epoch_progress import EpochWatch, OnProgress
from ensdistill.training.new_student import check_data, new_student
from ensdistill.training.selection import EpochSelection
from ensdistill.training.step import StepContext, distill_step
from ensdistill.training.teacher_checks import check_given, check_numbers
from ensdistill.training.teacher_logits import TeacherLogitCache


@dataclass(frozen=True)
class EpochResult:
    """Metrics of one epoch.

    Attributes:
        number: Epoch number, from 1.
        epochs: Total number of epochs.
        loss: Mean training loss.
        val: Validation metrics of the merged student from the selected epoch. `cnll` is the NLL at the temperature that
            minimizes the NLL on these images; `at_chance` is 1 if the student is at chance level, otherwise 0.
        subnetworks: Validation metrics of the prediction averaged over the subnetworks.
        seconds: Time for training and evaluation in this epoch.
        selected: Number of the selected epoch: this one or the best so far, depending on `training.select_epoch`.
        last: Whether training ends after this epoch, because all epochs are completed or `training.patience` is
            reached.
    """

    number: int
    epochs: int
    loss: float
    val: dict[str, float]
    subnetworks: dict[str, float]
    seconds: float
    selected: int
    last: bool


def distill(
    config: Config,
    ensemble: TeacherEnsemble,
    data: DataSplits,
    resume: str | Path | None = None,
    cache: TeacherLogitCache | None = None,
) -> "Distiller":
    """Returns `Distiller(config, ensemble, data, resume, cache)`, a run that trains one student."""
    return Distiller(config, ensemble, data, resume, cache)


class Distiller(Iterator[EpochResult]):
    """A run that trains one student, one epoch per iteration, on the device of the data and the teachers.

    The iterator yields the metrics of each epoch. `student` and `save_checkpoint` refer to the last epoch that was
    yielded.

    Attributes:
        done: Number of completed epochs.
        on_progress: Called every few seconds during long epochs; does not affect results.
    """

    def __init__(
        self,
        config: Config,
        teachers: TeacherEnsemble,
        data: DataSplits,
        resume: str | Path | None = None,
        cache: TeacherLogitCache | None = None,
    ) -> None:
        """Builds the student, or restores it from a checkpoint.

        Args:
            config: All settings.
            teachers: The ensemble; if it contains no teachers, the student is trained only on the labels.
            data: Training, validation and unlabeled images.
            resume: A checkpoint that `save_checkpoint` wrote in a run with the same teachers and data, and with the
                same settings up to the epoch of the checkpoint. The remaining epochs equal those of an uninterrupted
                run (bit for bit on the CPU).
            cache: Cached logits of these teachers, shared with other runs; the cache saves time and does not affect
                results.

        Raises:
            ConfigError: The settings are incompatible with the data, or the checkpoint was written by another run.
            DataError: The checkpoint is missing or damaged.
            ValueError: The cache belongs to another ensemble.
        """
        if cache is not None and cache.ensemble is not teachers:
            raise ValueError("cache contains the logits of another ensemble; create a cache for these teachers")
        check_data(config, data)
        check_given(teachers, data)
        self.config, self.ensemble, self.data = config, teachers, data
        self.device = data.train.images.device
        self._batches = Batches(config, data, TeacherLogitCache(teachers) if cache is None else cache)
        self._begin(new_student(config, data, start=True))
        weights = weights_of_classes(config.training.class_weights, data.train.labels, data.class_names)
        self._label_term = LabelTerm(config.training.label_smoothing, weights)
        self._selection = EpochSelection(config.training)
        self.done = 0
        self.on_progress: OnProgress | None = None
        self._merged = False  # True after the subnetworks are merged into one network
        self._broken = False  # True after an error, which ends the run
        if resume is not None:
            self._restore(Path(resume))

    def __next__(self) -> EpochResult:
        """Trains and evaluates the next epoch.

        Raises:
            DivergedError: The loss became infinite or NaN. After any error, the run cannot be continued.
        """
        if self._broken or self._ended:
            raise StopIteration
        try:
            with deterministic(self.config.training.threads):
                return self._epoch(self.done + 1)
        except BaseException:
            self._broken = True
            raise

    def student(self) -> nn.Module:
        """Returns a copy of the network from the selected epoch: images (B,C,H,W) in [0,1] -> logits (B,classes)."""
        with deterministic(self.config.training.threads):
            if not self._selection.weights:
                return self._current()
            network = _contiguous(self._student.merged()).eval()
            network.load_state_dict(self._selection.weights)
            return network

    def save_checkpoint(self, path: str | Path) -> None:
        """Writes a checkpoint from which the run can be resumed exactly."""
        checkpoint = Checkpoint(
            identity=self._identity(self.done),
            epoch=self.done,
            student=self._student.state_dict(),
            optimizer=self._optimizer.state_dict(),
            average=self._average.state_dict(),
            merged=self._merged,
            scaler=self._scaler.state_dict(),
            selection=self._selection.state_dict(),
        )
        write_checkpoint(path, checkpoint)

    def _restore(self, path: Path) -> None:
        """Restores the state from a checkpoint."""
        checkpoint = read_checkpoint(path, self.device)
        check_identity(path, checkpoint, self._identity(checkpoint.epoch))
        if checkpoint.merged:
            self._merge()
        self._student.load_state_dict(checkpoint.student)
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._average.load_state_dict(checkpoint.average)
        self._scaler.load_state_dict(checkpoint.scaler)
        self._selection.load_state_dict(checkpoint.selection)
        self.done = checkpoint.epoch

    def _identity(self, epoch: int) -> dict[str, str]:
        """Returns hashes of the settings, teachers and data that determine the results up to the given epoch."""
        settings = self.config.hash_until(epoch)
        return {"settings": settings, "ensemble": self.ensemble.identity, "data": self.data.identity}

    def _merge(self) -> None:
        """Replaces the student with its merged network, and creates a new optimizer and a new average."""
        self._begin(SingleStudent(self._student.merged()))
        self._merged = True

    def _begin(self, student: Student) -> None:
        """Stores the student in the fastest memory layout, and creates a new optimizer, average and gradient scaler."""
        config = self.config
        self._student = student.to(memory_format=torch.channels_last)
        self._optimizer, self._average = config.training.new_optimizer(self._student), config.averaging(self._student)
        self._scaler = config.training.new_scaler(self.device)

    @property
    def _ended(self) -> bool:
        """Whether the training has ended."""
        return self.done >= self.config.training.epochs or self._selection.ends

    def _epoch(self, number: int) -> EpochResult:
        """Trains and evaluates one epoch."""
        start = time.perf_counter()
        if not self._merged and self._student.merge_due(self.done / self.config.training.epochs):
            self._merge()
        loss = self._train(number)
        self.done = number
        self._average.epoch_ended(self._student, number / self.config.training.epochs, self._validate)
        self._select(number)
        return EpochResult(
            number=number,
            epochs=self.config.training.epochs,
            loss=loss,
            val=self._selection.val,
            subnetworks=self._selection.subnetworks,
            seconds=time.perf_counter() - start,
            selected=self._selection.epoch,
            last=self._ended,
        )

    def _select(self, number: int) -> None:
        """Evaluates the student after an epoch and updates the epoch selection."""
        network = self._current()
        val = self._validate_shipped(network)
        if not math.isfinite(val["nll"]):
            raise DivergedError(number, self._batches.steps, val["nll"])
        several = len(self._student) > 1 and self._selection.selects(val)
        subnetworks = evaluate(self._averaged(), self.data.validation) if several else val
        self._selection.add(number, val, subnetworks, network)

    def _train(self, number: int) -> float:
        """Trains one epoch and returns the mean loss; synchronizes the device only once if `on_progress` is None."""
        config, steps = self.config.at_epoch(number), self._batches.steps
        streams = RandomStreams.of(config.seed, "perturbation", number, self.device)
        state = (self._student, self._optimizer, self._average)
        context = StepContext(config, *state, streams, self._scaler, self._label_term)
        losses: list[Tensor] = []
        images = config.training.batch_size + config.training.unlabeled_batch_size
        watch = EpochWatch(self.on_progress, number, steps, images)
        self._student.train()
        with temporary_seed(derive_seed(config.seed, "dropout", number), self.device):
            for step, batch in enumerate(self._batches.epoch(number), (number - 1) * steps):
                set_lr(self._optimizer, config.training.lr_at(step, steps))
                progress = (step + 1) / (config.training.epochs * steps)
                losses.append(distill_step(context, *batch, progress))
                watch.step_done(losses)
        try:
            return _mean_if_finite(torch.stack(losses), number)
        except DivergedError:
            check_numbers(list(self.ensemble.networks), self.data.train)
            raise

    def _current(self) -> nn.Module:
        """Returns a copy of the averaged student after the latest epoch, in its exported form."""
        return self._shipped(self._average.averaged(self._student)).eval()

    def _validate_shipped(self, network: nn.Module) -> dict[str, float]:
        """Returns the validation metrics of an exported network, including the calibrated NLL."""
        labels, log_p = self.data.validation.labels, predict(network, self.data.validation)
        row = all_metrics(log_p, labels) | {"cnll": calibrated_nll(log_p, labels, log_p, labels)}
        row |= {"at_chance": float(at_chance(log_p, labels))}
        return row | own_metrics(self.config.metrics, log_p, labels)

    def _validate(self, student: Student) -> dict[str, float]:
        """Returns the validation metrics of a student in its exported form."""
        return evaluate(self._shipped(student), self.data.validation)

    def _averaged(self) -> nn.Module:
        """Returns the averaged student with all its subnetworks, for evaluation only."""
        return self._refreshed(self._average.averaged(self._student))

    def _shipped(self, student: Student) -> nn.Module:
        """Returns the merged student in contiguous layout, as if loaded from a file; the layout affects the outputs."""
        return _contiguous(self._refreshed(student.merged()))

    def _refreshed(self, network: nn.Module) -> nn.Module:
        """If `refresh_batchnorm` is set, returns a copy with BatchNorm statistics recomputed on the training images."""
        if not self.config.averaging.refresh_batchnorm:
            return network
        network = deepcopy(network)
        with temporary_seed(derive_seed(self.config.seed, "refresh"), self.device):
            update_bn(self._batches.refresh(), network)
        return network


def _contiguous(network: nn.Module) -> nn.Module:
    """Makes all tensors of a network contiguous in place, as after loading from a file, and returns the network."""
    for tensor in chain(network.parameters(), network.buffers()):  # `to` would not change tensors with one channel
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return network


def _mean_if_finite(losses: Tensor, epoch: int) -> float:
    """Returns the mean of the losses (steps,); raises DivergedError for the first loss that is not finite."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise DivergedError(epoch, int(bad[0]) + 1, float(losses[bad[0]]))
    return float(losses.double().mean())
