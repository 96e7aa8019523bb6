"""Losses of several networks of one architecture, in one batched forward pass where that is faster."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.conv import _ConvNd

from ..targets import vmappable
from ..tasks import Batch

_LARGE_INPUTS = 2**16
"""Input values per network from which convolutions of several networks are slower together: they are one grouped
convolution, which takes twice the time of single ones on the CPU (docs/LOG.md, 2026-11-28)."""


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

    size = batch.inputs.numel() // (1 if shared_batch else len(batch.inputs))
    is_slow_together = size >= _LARGE_INPUTS and batch.inputs.device.type == "cpu"
    one_by_one = is_slow_together and any(isinstance(module, _ConvNd) for module in model.modules())
    dimensions = (0, None, None) if shared_batch else 0
    with vmappable():
        return vmap(loss_of_one, dimensions, chunk_size=1 if one_by_one else None)(dict(weights), *batch)
