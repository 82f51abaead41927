"""Multi-branch student: one stem, which runs once, followed by K branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.students.settings import StudentPiece
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.branches_student import BranchesStudent


class Branches(StudentPiece):
    """A shared stem and K branches: copies of the last stage or the classifier, with separate initial weights.

    The last stage starts with the last layer that lowers the resolution. `last_stage` is the student of EKD (Asif et
    al. 2019, arXiv 1909.08097; the layout is a reconstruction). `classifier` is the student of Hydra (Tran et al.
    2020).
    """

    kind: Literal["branches"] = "branches"
    subnetworks: int = setting(4, "Number of branches K.", ge=1, le=64)
    branch_at: Literal["last_stage", "classifier"] = setting(
        "last_stage", "Part of the network at which the branches begin."
    )
    merge: Literal["mean_of_logits", "sum_of_logits", "mean_of_probabilities"] = setting(
        "mean_of_logits", "How branch outputs are combined into one prediction."
    )

    def __call__(self, network: nn.Module) -> BranchesStudent:
        """Returns a student that reuses the layers of a network; do not use the network afterwards.

        The first branch keeps the weights of the network. In every other branch, the values of each weight tensor are
        shuffled with torch's global generator. The shuffled weights are a new random initialization with the same
        distribution of values.

        Args:
            network: Images (B,C,H,W) in [0,1] -> logits (B,classes).

        Raises:
            ConfigError: The network has no last stage.
        """
        from ensdistill.methods.students.branches_student import BranchesStudent  # this module imports torch

        return BranchesStudent(network, self)

    @property
    def depends_on_length(self) -> bool:
        """False: branches are merged only after training."""
        return False
