"""Latency of exported networks: measured once for each architecture and machine, then read from the event log.

The process that runs the study measures an untrained network of the same architecture. Architectures that follow from
the settings alone are measured before the first trial starts, when nothing else is running. An architecture that
depends on a suggested value (for instance an integer width) is measured immediately before its trial starts, possibly
while other trials are running. A resumed study does not repeat measurements that are in the event log.
"""

import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.latency import architecture_of, latency_ms, machine_name, photo_latency_ms
from ensdistill.export.student_file import DeployableClassifier, resize_of
from ensdistill.models.fusion import inference_form
from ensdistill.runtime.progress_bar import show_warnings
from ensdistill.training.new_student import new_student
from ensdistill_tune.execution.memory import free_memory
from ensdistill_tune.execution.shared_inputs import device_of
from ensdistill_tune.records.events import LatencyMeasured
from ensdistill_tune.study.objectives import LATENCY, PHOTO_LATENCY
from ensdistill_tune.study.study_state import StudyState

NO_GPU = "latency is measured on one CPU thread, because the process that runs the study has no GPU"


class LatencyMeter:
    """Latencies of exported networks, read from the event log; missing latencies are measured."""

    def __init__(self, state: StudyState, data: DataSplits) -> None:
        self._state, self._data = state, data
        self._device = device_of(state.study)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            self._device = torch.device("cpu")
            show_warnings([ConfigIssue(("measure_latency",), NO_GPU)])
        self._machine = machine_name(self._device)
        past = [event for event in state.past if isinstance(event, LatencyMeasured)]
        self._known = {event.architecture: _metrics(event) for event in past if event.machine == self._machine}
        self._architectures: dict[str, str] = {}  # architectures, keyed by the settings that determine them

    def measure_all(self) -> None:
        """Measures the architectures that follow from the settings alone."""
        for config in self._state.study.distinct_architectures:
            self(config)

    def __call__(self, config: Config) -> dict[str, float]:
        """Returns the latencies for one image in milliseconds, by metric name; empty if the network cannot be built."""
        settings = repr((config.model, config.student))
        try:
            if settings not in self._architectures:
                self._architectures[settings] = self._measure(config)
        except Exception:  # a custom model may raise any error; only its trial fails
            return {}
        return self._known[self._architectures[settings]]

    def _measure(self, config: Config) -> str:
        """Returns the architecture of a trial's network; measures its latencies if they are not known yet."""
        network = new_student(config, self._data).merged()
        architecture = architecture_of(network)
        if architecture not in self._known:
            channels, height, width = self._data.train.images.shape[1:]
            shape = (channels, height, width)
            resizing = DeployableClassifier(inference_form(network), shape, resize_of(config))
            event = LatencyMeasured(
                architecture=architecture,
                machine=self._machine,
                milliseconds=round(latency_ms(network, shape, self._device), 4),
                photo_milliseconds=round(photo_latency_ms(resizing, channels, self._device), 4),
            )
            self._state.append_event(event)
            self._known[architecture] = _metrics(event)
            free_memory()
        return architecture


def _metrics(event: LatencyMeasured) -> dict[str, float]:
    """Returns the measured latencies, keyed by metric."""
    photo = event.photo_milliseconds
    return {LATENCY: event.milliseconds} | ({} if photo is None else {PHOTO_LATENCY: photo})


def latency_meter(state: StudyState, data: DataSplits) -> LatencyMeter | None:
    """Measures the architectures in the settings of a study and returns its latency meter.

    Args:
        state: State of the study.
        data: Splits of the study, from which the input shape and the number of classes are taken.

    Returns:
        The meter; None if the study does not use latencies.
    """
    if not state.study.measures_latency:
        return None
    meter = LatencyMeter(state, data.to("cpu"))
    meter.measure_all()
    return meter
