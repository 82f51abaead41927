"""Interface of all students."""

from typing import Any

from torch import nn

from ensdistill.methods.members import MultiClassifier


class Student(MultiClassifier):
    """One network with K subnetworks: images (B,C,H,W) in [0,1] -> logits (K,B,classes)."""

    def merged(self) -> nn.Module:
        """Returns a separate network for evaluation and export: images (B,C,H,W) in [0,1] -> logits (B,classes)."""
        raise NotImplementedError

    def merge_due(self, progress: float) -> bool:
        """Returns whether training continues with the merged network from this point on.

        Args:
            progress: Completed fraction of training, in [0, 1).
        """
        return False

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Returns the parameter groups for the optimizer.

        Args:
            weight_decay: Weight decay from the settings.

        Returns:
            Groups with `params`, `weight_decay` and `lr_scale`, a factor for the group's learning rate; optionally
            `grad_scale`, a factor for the group's gradients, applied before the step.
        """
        return [{"params": list(self.parameters()), "weight_decay": weight_decay, "lr_scale": 1.0}]
