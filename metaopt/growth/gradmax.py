"""Initial weights of a growth seed by which it learns most in its first step."""

import torch
from torch import Tensor, nn

from ..core.rng import isolated
from ..targets.taps import tapped
from ..tasks import Batch, Task
from ..tasks.measure import in_evaluation_mode
from .growth_seed import seed_of


def initialise_by_gradients(model: nn.Module, task: Task, examples: Batch, tap: str) -> None:
    """Set the first layer of a growth seed so that the gradient of its last layer, which is zero, becomes large.

    GradMax (Evci et al. 2022, arXiv:2201.05125) adds neurons whose weights on one side are zero, and chooses those on
    the other side by singular vectors, so that the norm of the gradient is as large as possible. For δ(h) = B A h with
    B = 0 the gradient of B is G Aᵀ, G = Σ g hᵀ over examples, g the gradient of the loss at the tap. With rows of A of
    a given norm it is largest if they are the first right singular vectors of G.

    Departs: B is the layer that is zero, not A; what lies between the two is ignored; further rows than G has singular
    vectors keep their random weights. A convolution gets the vectors at the middle of its kernel. Seeds whose first
    layer is none of both, or does not see all features, are left as they are.
    """
    layers = seed_of(model, tap).delta.modules()
    layer = next((each for each in layers if isinstance(each, nn.Linear | nn.Conv2d)), None)
    features, gradients = _features_and_gradients(model, task, examples, tap)
    if layer is None or layer.weight.shape[1] != features.shape[1]:
        return
    directions = torch.linalg.svd(gradients.T @ features, full_matrices=False).Vh[: layer.weight.shape[0]]
    with torch.no_grad():
        rows = layer.weight[: len(directions)]
        norms = rows.flatten(1).norm(dim=1, keepdim=True)
        rows.zero_()
        middle = rows if rows.dim() == 2 else rows[..., rows.shape[2] // 2, rows.shape[3] // 2]
        middle.copy_((directions * norms).to(rows))


def _features_and_gradients(model: nn.Module, task: Task, examples: Batch, tap: str) -> tuple[Tensor, Tensor]:
    """The features at a tap and the gradients of the loss there, one row for each place [places, dim]."""
    kept: list[Tensor] = []

    def keep(features: Tensor) -> Tensor:
        kept.append(features.detach().requires_grad_())
        return kept[-1]

    with isolated(), in_evaluation_mode(model), tapped(model, {tap: keep}), torch.enable_grad():
        loss = task.loss(model(examples.inputs), examples.labels)
    (gradients,) = torch.autograd.grad(loss, kept[-1:])
    return _rows(kept[-1].detach()), _rows(gradients)


def _rows(tensor: Tensor) -> Tensor:
    channels_last = tensor.movedim(1, -1) if tensor.dim() == 4 else tensor
    return channels_last.reshape(-1, channels_last.shape[-1]).float()
