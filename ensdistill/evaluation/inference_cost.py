"""Inference cost of a network; `ensdistill.evaluation.latency` measures it."""

from dataclasses import dataclass

from ensdistill.runtime.formatting import file_size, in_millions

BATCHES = (1, 128)  # batch sizes for which times are measured


@dataclass(frozen=True)
class InferenceCost:
    """Inference cost of one network.

    Attributes:
        bytes: Total size of all weights and buffers.
        parameters: Number of parameters.
        flops: Number of operations per image.
        milliseconds: Median time for one batch, keyed by batch size; batch sizes that were not measured are absent.
    """

    bytes: int
    parameters: float
    flops: float
    milliseconds: dict[int, float]

    def in_words(self) -> list[str]:
        """Returns one string per table column: weight size, parameters, operations, and times."""
        times = [f"{self.milliseconds[b]:,.3g}" if b in self.milliseconds else "" for b in BATCHES]
        return [file_size(self.bytes), f"{self.parameters:,.0f}", in_millions(self.flops), *times]
