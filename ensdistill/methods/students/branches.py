"""One stem, K branches: the student computes its first layers once and its last ones K times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ensdistill.methods.students.settings import StudentPiece
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.branches_student import BranchesStudent


class Branches(StudentPiece):
    """A shared stem and K parallel copies of the last stage or of the classifier alone, each from weights of its own.

    The last stage begins where the network lowers its resolution for the last time. `last_stage` is the student of EKD
    (Asif et al. 2019, arXiv 1909.08097; the layout is a reconstruction), `classifier` that of Hydra (Tran et al. 2020).
    """

    kind: Literal["branches"] = "branches"
    subnetworks: int = setting(4, "How many branches K.", ge=1, le=64)
    branch_at: Literal["last_stage", "classifier"] = setting("last_stage", "Where the stem ends.")
    merge: Literal["mean_of_logits", "sum_of_logits", "mean_of_probabilities"] = setting(
        "mean_of_logits", "How branch outputs are combined into one prediction."
    )

    def __call__(self, network: nn.Module) -> BranchesStudent:
        """network: images (B,C,H,W) -> logits (B,classes); taken over, so do not use it afterwards.

        The first branch keeps its weights; each other one has every tensor of them shuffled by torch's global
        generator, which is a fresh draw on the network's own scale, however that was initialized.
        Raises ConfigError if the network has no last stage.
        """
        from ensdistill.methods.students.branches_student import BranchesStudent  # here: imports torch

        return BranchesStudent(network, self)
