"""K subnetworks in one network: shared weights W, and two scaling vectors for each subnetwork.

Subnetwork m of a linear or convolutional layer computes, for input x,

    y_m = s_m * (W (r_m * x) + b)      or      y_m = s_m * W (r_m * x) + b_m

where r (K, inputs) and s (K, outputs) contain one factor per channel. As in the code of Nam et al. 2022, r scales the
inputs and s the outputs. Wen et al. 2020 (BatchEnsemble) use r and s with the opposite meanings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from ensdistill.methods.students.settings import StudentPiece
from ensdistill.settings.base import setting

if TYPE_CHECKING:
    from torch import nn

    from ensdistill.methods.students.batch_ensemble_student import BatchEnsembleStudent


class BatchEnsemble(StudentPiece):
    """Converts the convolutional and linear layers of a network to rank-one ensembles.

    The defaults are those of LatentBE. Factors start at exactly one, so that all subnetworks are initially equal and
    differ later only because their teachers differ. Weight decay pulls the factors towards one. Each factor is updated
    with the gradient of its subnetwork's loss, which is K times the gradient of the mean loss. At the end, the
    subnetworks are merged. Nam et al. 2022, section 3, and their official code.

    Diversity Matters (Nam et al. 2021, official code) and BatchEnsemble (Wen et al. 2020) differ from these defaults:
    factors start at random values, do not decay, and are updated with the gradient of the mean loss; each subnetwork
    has a separate bias, and the prediction is the mean over subnetworks.

    Comments in the presets `latentbe` and `diversity` list the differences from the official code. One of these
    differences is in this class: the bias of a merged layer is mean(s) * b, which is exact. The notebook that produced
    the LatentBE tables leaves b unscaled.
    """

    kind: Literal["batch_ensemble"] = "batch_ensemble"
    subnetworks: int = setting(4, "Number of subnetworks K that share the weights.", ge=1, le=64)
    factor_init: Literal["ones", "normal", "random_sign"] = setting(
        "ones", "Initial factors: all 1; drawn from N(1, factor_std^2); or 1 or -1 with equal probability."
    )
    factor_std: float = setting(0.5, "Standard deviation of `normal` initial factors.", ge=0, le=2)
    factor_gradient: Literal["sum", "mean"] = setting(
        "sum", "Loss whose gradient updates the factors: the sum of the losses of all subnetworks, or their mean."
    )
    factor_lr: float = setting(
        1.0, "Learning rate of the factors, relative to that of the shared weights.", gt=0, le=100
    )
    factor_decay: Literal["to_one", "none"] = setting(
        "to_one", "Whether weight decay pulls the factors towards one, or does not apply to them."
    )
    bias: Literal["shared", "per_member"] = setting(
        "shared", "One shared bias, scaled by s, or one unscaled bias per subnetwork."
    )
    merge: Literal["product_of_means", "mean_of_products", "mean_of_probabilities"] = setting(
        "product_of_means",
        "How subnetworks are merged: mean(s) W mean(r) (published), or mean(s W r); the means are over subnetworks. "
        "`mean_of_probabilities` does not merge weights but averages the predictions, at K times the cost.",
    )
    merge_after: float = setting(
        1.0,
        "Fraction of training after which subnetworks are merged; training then continues with one network.",
        ge=0,
        le=1,
    )

    @model_validator(mode="after")
    def _can_be_merged(self) -> BatchEnsemble:
        if self.merge == "mean_of_probabilities" and self.merge_after < 1:
            raise ValueError(
                "merge_after: mean_of_probabilities does not merge weights; set merge_after to 1, or change merge"
            )
        return self

    def __call__(self, network: nn.Module) -> BatchEnsembleStudent:
        """Returns a student that reuses the layers of a network; do not use the network afterwards.

        Random factors are drawn from torch's global generator. Layers that cannot be converted cause a warning and are
        shared by all subnetworks.

        Args:
            network: Images (B,C,H,W) in [0,1] -> logits (B,classes).
        """
        from ensdistill.methods.students.batch_ensemble_student import BatchEnsembleStudent  # imports torch

        return BatchEnsembleStudent(network, self)

    @property
    def depends_on_length(self) -> bool:
        """Whether subnetworks are merged at a point in training that depends on the total number of epochs."""
        return 0 < self.merge_after < 1
