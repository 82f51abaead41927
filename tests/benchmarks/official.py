"""One distillation step as in the papers and their official code, not optimized; the reference of `step_speed`.

For tdiv_sdiv, all teachers and all subnetworks evaluate the clean batch, and the pair is selected from their stacked
outputs. The gradient therefore passes through all of these networks, as in the official code of Nam et al. 2022. The
teacher weights of aekd require one backward pass per teacher. Rank-one factors scale activations. Teachers run one
after another in the form in which they were trained. Layout and precision are the defaults of torch. The losses are
those of `ensdistill.methods.losses`.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensdistill.config import Config
from ensdistill.methods.assignment import sample_pair
from ensdistill.methods.losses import AeKd
from ensdistill.methods.losses.losses import label_cross_entropy
from ensdistill.methods.losses.min_norm import min_norm_weights
from ensdistill.methods.perturbations import ConfOds, TDivSDiv
from ensdistill.methods.students.base import Student
from ensdistill.methods.students.batch_ensemble_student import BatchEnsembleStudent, RankOne
from ensdistill.methods.students.layers import replace_layers
from ensdistill.runtime.modes import evaluating
from ensdistill.runtime.randomness import RandomStreams


class Scaled(nn.Module):
    """Computes y = s (W (r x) + b), or s W (r x) + b_m, by scaling the activations of all subnetworks."""

    def __init__(self, layer: RankOne) -> None:
        super().__init__()
        self.layer, self.r, self.s, self.bias, self.selection = (
            layer.layer, layer.r, layer.s, layer.bias, layer.selection
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self._each(torch.mul, self.layer(self._each(torch.mul, x, 1 + self.r)), 1 + self.s)
        return y if self.bias is None else self._each(torch.add, y, self.bias)

    def _each(self, combine: object, x: Tensor, vectors: Tensor) -> Tensor:
        members = self.selection.members
        chosen = vectors if members is None else vectors[list(members)]
        each_image = chosen.repeat_interleave(len(x) // len(chosen), 0)
        return combine(x, each_image.view(*each_image.shape, *[1] * (x.dim() - 2)))  # type: ignore[operator]


def plain(network: nn.Module) -> nn.Module:
    """Returns a copy in the default layout of torch, without in-place operations."""
    network = deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


def plain_student(student: Student) -> Student:
    """Returns the same student with factors that scale activations; its parameters keep their names."""
    copy = plain(student)
    assert isinstance(copy, Student)
    if isinstance(copy, BatchEnsembleStudent):
        copy.network = replace_layers(copy.network, lambda layer: isinstance(layer, RankOne), Scaled)
    return copy


def gradients(
    config: Config,
    teachers: Sequence[nn.Module],
    student: Student,
    images: Tensor,
    labels: Tensor,
    streams: RandomStreams,
) -> Tensor:
    """Stores the gradients of one step in the parameters of the student and returns the detached loss."""
    shown = perturbed(config, teachers, student, images, streams)
    clean_logits = student(images) if config.perturbation.label_images == "clean" else None
    with torch.no_grad():
        teacher_logits = torch.stack([teacher(shown) for teacher in teachers])
    logits = student(shown)
    on_labels = logits if clean_logits is None else clean_logits
    if isinstance(config.loss, AeKd):
        loss = _aekd(config.loss, student, logits, teacher_logits, labels, on_labels)
    else:
        loss = config.loss(logits, teacher_logits, labels, on_labels)
    for p in student.parameters():
        p.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def perturbed(
    config: Config, teachers: Sequence[nn.Module], student: Student, images: Tensor, streams: RandomStreams
) -> Tensor:
    """Returns the perturbed images for teachers and student."""
    x = images.clone().requires_grad_()
    piece = config.perturbation
    if isinstance(piece, TDivSDiv):
        teacher_pair, subnetwork_pair = sample_pair(len(teachers), len(student), streams.host)
        with evaluating(student):
            apart = _cross_entropy(torch.stack([t(x) for t in teachers])[list(teacher_pair)])
            apart = apart - _cross_entropy(student(x)[list(subnetwork_pair)])
        return _moved(x, apart, piece.step_size, 1.0)
    if isinstance(piece, ConfOds):
        teacher = int(torch.randint(len(teachers), (), generator=streams.host))
        outputs = (teachers[teacher](x) / piece.temperature).softmax(-1)
        weights = torch.rand(outputs.shape, generator=streams.device, device=x.device).to(x.dtype) * 2 - 1
        return _moved(x, (weights * outputs).sum(), piece.step_size, outputs.detach().amax(-1)[:, None, None, None])
    assert piece.kind == "none", piece.kind
    return images


def _cross_entropy(pair: Tensor) -> Tensor:
    return -(pair[1].detach().softmax(-1) * pair[0].log_softmax(-1)).sum(-1).mean()


def _moved(x: Tensor, objective: Tensor, step_size: float, scale: Tensor | float) -> Tensor:
    gradient = torch.autograd.grad(objective, x)[0]
    length = step_size * x[0].numel() ** 0.5
    unit = F.normalize(gradient.flatten(1), dim=1).view_as(x)
    return (x.detach() + scale * length * unit).clamp(0, 1)


def _aekd(piece: AeKd, student: Student, logits: Tensor, teachers: Tensor, labels: Tensor, on_labels: Tensor) -> Tensor:
    """Computes the gradient direction of each teacher by a separate backward pass through the whole student."""
    logits.retain_grad()
    log_q, p = (logits[0] / piece.temperature).log_softmax(-1), (teachers / piece.temperature).softmax(-1)
    losses = [piece.temperature**2 * F.kl_div(log_q, p_m, reduction="batchmean") for p_m in p]
    directions = []
    for loss in losses:
        logits.grad = None
        loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        directions.append(logits.grad[0].mean(0).double())
    g = torch.stack(directions)
    weights = torch.from_numpy(min_norm_weights((g @ g.T).cpu().numpy(), piece.tolerance)).to(logits)
    distilled = (weights * torch.stack(losses)).sum()
    return piece.label_weight * label_cross_entropy(on_labels, labels) + piece.teacher_weight * distilled
