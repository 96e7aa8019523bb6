"""The running average of the weights of a training without nowcasts, with the statistics of BatchNorm layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..weights.averaging import ExponentialMovingAverage


class AverageOfTraining:
    """An exponential moving average of trainable weights and of BatchNorm's running statistics.

    Statistics are averaged like the weights, as in the reference trainings of torchvision: they then fit the averaged
    weights approximately, without further batches.

    Args:
        model: the network without wrappers.
        weights: its trainable weights.
        decay: of the average.
    """

    def __init__(self, model: nn.Module, weights: Sequence[Tensor], decay: float) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
        statistics = [each for layer in layers for each in (layer.running_mean, layer.running_var) if each is not None]
        self._tensors = [*weights, *statistics]
        self._average = ExponentialMovingAverage(decay)

    def update(self) -> None:
        """Update the average after a step."""
        self._average.update(self._tensors)

    @contextmanager
    @torch.no_grad()
    def in_model(self) -> Iterator[None]:
        """Put the average into the network inside the block; restore its weights and statistics afterwards."""
        saved = [tensor.detach().clone() for tensor in self._tensors]
        try:
            _copy(self._average.tensors, self._tensors)
            with torch.enable_grad():
                yield
        finally:
            _copy(saved, self._tensors)


def _copy(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
