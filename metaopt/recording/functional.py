"""Losses of several networks of one architecture in one batched forward pass."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..targets import vmappable
from ..tasks import Batch


def network_losses(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: Batch,
    *,
    constant: Mapping[str, Tensor] | None = None,
    shared_batch: bool = False,
) -> Tensor:
    """The loss of each network, differentiable in its weights.

    Args:
        model: the architecture; its own weights are used only where `weights` and `constant` lack a name.
        weights: parameters and buffers by name, stacked: one row per network.
        loss: of outputs and labels, such as `task.loss` (one value per network) or `task.losses` (one per example).
        batch: stacked: one batch per network.
        constant: parameters and buffers that all networks share, by name.
        shared_batch: whether `batch` is a single batch for all networks.
    """

    def loss_of_one(named: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return loss(functional_call(model, {**(constant or {}), **named}, (inputs,)), labels)

    with vmappable():
        return vmap(loss_of_one, (0, None, None) if shared_batch else 0)(dict(weights), *batch)
