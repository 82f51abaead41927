"""A network and a student."""

from copy import deepcopy

import torch
from torch import nn

from ensdistill.methods.members import CombinedClassifier
from ensdistill.methods.students import StudentPiece
from ensdistill.methods.students.base import Student
from ensdistill.models import NetworkPiece
from ensdistill.settings.base import setting


class Mlp(NetworkPiece):
    """A multilayer perceptron with one hidden layer."""

    width: int = setting(32, "Number of hidden units.", ge=1, le=10_000)

    def __call__(self, shape, classes):
        inputs = shape[0] * shape[1] * shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, self.width), nn.ReLU(), nn.Linear(self.width, classes))


class Copies(StudentPiece):
    """K independent copies of the network."""

    subnetworks: int = setting(2, "Number of copies K.", ge=1, le=64)

    def __call__(self, network):
        return CopiesStudent([deepcopy(network) for _ in range(self.subnetworks)])


class CopiesStudent(Student):
    def __init__(self, networks):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x, members=None):
        chosen = range(len(self)) if members is None else members
        return torch.stack([self.networks[k](x) for k in chosen]).to(x.dtype)

    def __len__(self):
        return len(self.networks)

    def merged(self):
        return CombinedClassifier(deepcopy(self), "mean_of_probabilities")
