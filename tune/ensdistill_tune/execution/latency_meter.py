"""Latency of shipped networks: measured once for each architecture and machine, then read from the event log.

The driver measures, on an untrained network of the same architecture. Architectures that the settings name are
measured before the first trial begins, when nothing else runs. One that only a suggestion brings (an integer axis of
widths, say) is measured right before its trial begins; other trials may run then. What the log holds decides: a
resumed study measures nothing again that it holds.
"""

import torch

from ensdistill.config import Config
from ensdistill.data import DataSplits
from ensdistill.errors import ConfigIssue
from ensdistill.evaluation.latency import architecture_of, latency_ms, machine_name
from ensdistill.pipeline import show_warnings
from ensdistill.training.new_student import new_student
from ensdistill_tune.execution.memory import free_memory
from ensdistill_tune.execution.shared_inputs import device_of
from ensdistill_tune.records.events import LatencyMeasured
from ensdistill_tune.study.study_state import StudyState

NO_GPU = "latency is measured on one CPU thread, since the process that runs the study sees no GPU"


class LatencyMeter:
    """Returns the latency of the network that a trial ships, and measures it if the log does not hold it."""

    def __init__(self, state: StudyState, data: DataSplits) -> None:
        self._state, self._data = state, data
        self._device = device_of(state.study)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            self._device = torch.device("cpu")
            show_warnings([ConfigIssue(("measure_latency",), NO_GPU)])
        self._machine = machine_name(self._device)
        past = [event for event in state.past if isinstance(event, LatencyMeasured)]
        self._known = {event.architecture: event.milliseconds for event in past if event.machine == self._machine}
        self._architectures: dict[str, str] = {}  # by the settings that decide them

    def measure_all(self) -> None:
        """Measures the architectures that the settings of the study name."""
        for config in self._state.study.distinct_architectures:
            self(config)

    def __call__(self, config: Config) -> float | None:
        """Returns milliseconds for one image; None if there is no such network, which its trial reports."""
        settings = repr((config.model, config.student))
        try:
            if settings not in self._architectures:
                self._architectures[settings] = self._measure(config)
        except Exception:  # whatever a model of the user raises: its trial raises it again, and fails alone
            return None
        return self._known[self._architectures[settings]]

    def _measure(self, config: Config) -> str:
        """Returns the architecture of a trial, whose latency is known then."""
        network = new_student(config, self._data).merged()
        architecture = architecture_of(network)
        if architecture not in self._known:
            channels, height, width = self._data.train.images.shape[1:]
            milliseconds = round(latency_ms(network, (channels, height, width), self._device), 4)
            event = LatencyMeasured(architecture=architecture, machine=self._machine, milliseconds=milliseconds)
            self._state.append_event(event)
            self._known[architecture] = milliseconds
            free_memory()
        return architecture


def latency_meter(state: StudyState, data: DataSplits) -> LatencyMeter | None:
    """Returns the meter of a study, which has measured what can be measured in advance; None if none is asked for."""
    if not state.study.measures_latency:
        return None
    meter = LatencyMeter(state, data.to("cpu"))
    meter.measure_all()
    return meter
