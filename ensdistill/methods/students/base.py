"""What every student can do."""

from typing import Any

from torch import nn

from ensdistill.methods.members import MultiClassifier


class Student(MultiClassifier):
    """One network that holds K functions, its subnetworks: images (B,C,H,W) in [0,1] -> logits (K,B,classes)."""

    def merged(self) -> nn.Module:
        """What is evaluated and shipped, a network of its own: images (B,C,H,W) -> logits (B,classes)."""
        raise NotImplementedError

    def merge_due(self, progress: float) -> bool:
        """Whether training goes on as one network from here; progress is the share of the training done, in [0, 1)."""
        return False

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for the optimizer: `params`, `weight_decay`, and `lr_scale` relative to the learning rate."""
        return [{"params": list(self.parameters()), "weight_decay": weight_decay, "lr_scale": 1.0}]
