"""K subnetworks in one network: shared weights W, and for each subnetwork two vectors that scale them.

Subnetwork m of a linear or convolutional layer computes, for input x,

    y_m = s_m * (W (r_m * x) + b)      or      y_m = s_m * W (r_m * x) + b_m

with r (K, inputs) and s (K, outputs) along the channels. Naming trap: here, as in the code of Nam et al. 2022, r is on
the input side and s on the output side; Wen et al. 2020 (BatchEnsemble) name them the other way round.
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
    """Turns the convolutional and linear layers of any network into rank-one ensembles.

    The defaults are LatentBE's: factors start at exactly one, so that all subnetworks begin equal and only their
    different teachers part them, decay towards one, and see the full gradient of their own loss (K times their share of
    the mean loss); at the end they are merged. Nam et al. 2022, section 3, and their official code.

    Diversity Matters (Nam et al. 2021, official code) and BatchEnsemble (Wen et al. 2020) start from random factors,
    give each subnetwork its own bias, let factors neither decay nor move fast, and predict by the mean of all.

    Differences from the official codes stand in the presets `latentbe` and `diversity`; the one in this class: the bias
    of a merged layer is mean(s) * b, the exact fold, where the notebook of LatentBE's tables leaves b unscaled.
    """

    kind: Literal["batch_ensemble"] = "batch_ensemble"
    subnetworks: int = setting(4, "How many subnetworks K share the weights.", ge=1, le=64)
    factor_init: Literal["ones", "normal", "random_sign"] = setting(
        "ones", "How factors start: all one, drawn from N(1, factor_std^2), or 1 and -1 with equal chances."
    )
    factor_std: float = setting(0.5, "Standard deviation of factors that start `normal`.", ge=0, le=2)
    factor_gradient: Literal["sum", "mean"] = setting(
        "sum", "Gradient of a factor: of its own subnetwork's loss (K times), or its share of the mean loss."
    )
    factor_lr: float = setting(1.0, "Learning rate of factors, times that of the shared weights.", gt=0, le=100)
    factor_decay: Literal["to_one", "none"] = setting("to_one", "Whether weight decay pulls factors to one.")
    bias: Literal["shared", "per_member"] = setting(
        "shared", "One bias that s scales too, or one for each subnetwork that it does not."
    )
    merge: Literal["product_of_means", "mean_of_products", "mean_of_probabilities"] = setting(
        "product_of_means",
        "How subnetworks become one: mean s times W times mean r (published), mean over m of s W r, or not at all: "
        "the mean of their probabilities, at K times the cost.",
    )
    merge_after: float = setting(1.0, "Share of the training after which one merged network trains on.", ge=0, le=1)

    @model_validator(mode="after")
    def _can_be_merged(self) -> BatchEnsemble:
        if self.merge == "mean_of_probabilities" and self.merge_after < 1:
            raise ValueError(
                "merge_after: mean_of_probabilities merges no weights; set merge_after to 1 or another merge"
            )
        return self

    def __call__(self, network: nn.Module) -> BatchEnsembleStudent:
        """network: images (B,C,H,W) -> logits (B,classes); its layers are taken over, so do not use it afterwards.

        Random factors come from torch's global generator. Layers that cannot be turned are shared, with a warning.
        """
        from ensdistill.methods.students.batch_ensemble_student import BatchEnsembleStudent  # here: imports torch

        return BatchEnsembleStudent(network, self)
