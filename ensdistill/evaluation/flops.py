"""Counts multiplications and additions."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiplications and additions of convolutions and matrix products inside the block.

    It uses the formulas of `torch.utils.flop_counter.FlopCounterMode`, but does not import TorchDynamo, which takes two
    seconds. It must be used inside `torch.no_grad`.

    Attributes:
        flops: Number of multiplications and additions so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Returns False: torch would otherwise import TorchDynamo at the first operation."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts its multiplications and additions."""
        result = func(*args, **(kwargs or {}))
        formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if formula:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result
