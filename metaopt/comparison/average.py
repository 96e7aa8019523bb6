"""The running averages of the weights of a training without nowcasts, with the statistics of BatchNorm layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..weights.averaging import ExponentialMovingAverage


class AveragesOfTraining:
    """Exponential moving averages of trainable weights and of BatchNorm's running statistics.

    Statistics are averaged like the weights, as in the reference trainings of torchvision: they then fit the averaged
    weights approximately, without further batches.

    Args:
        model: the network without wrappers.
        weights: its trainable weights.
        decays: of the averages.
    """

    def __init__(self, model: nn.Module, weights: Sequence[Tensor], decays: Sequence[float]) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        statistics = [each for layer in layers for each in (layer.running_mean, layer.running_var) if each is not None]
        self._tensors = [*weights, *statistics]
        self._averages = {decay: ExponentialMovingAverage(decay) for decay in decays}

    @property
    def decays(self) -> list[float]:
        """The decays of the averages."""
        return list(self._averages)

    def update(self) -> None:
        """Update the averages after a step."""
        for average in self._averages.values():
            average.update(self._tensors)

    @contextmanager
    @torch.no_grad()
    def in_model(self, decay: float) -> Iterator[None]:
        """Put an average into the network inside the block; restore its weights and statistics afterwards."""
        saved = [tensor.detach().clone() for tensor in self._tensors]
        try:
            _copy(self._averages[decay].tensors, self._tensors)
            with torch.enable_grad():
                yield
        finally:
            _copy(saved, self._tensors)


def _copy(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
