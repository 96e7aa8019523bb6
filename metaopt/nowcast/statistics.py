"""The running statistics of BatchNorm layers: estimated again when the weights are no longer those of the training."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.rng import isolated
from ..core.text import reason_of
from ..tasks.measure import modes_restored
from .model_state import ModelState, not_compiled, unwrapped
from .training_passes import Pass, TrainingPasses

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class RunningStatistics:
    """Estimates the running statistics of BatchNorm layers again, from the last inputs of the training.

    The result is the mean over the kept batches, as in `torch.optim.swa_utils.update_bn`. Each module is in the mode of
    the training pass, so layers that are frozen in evaluation mode keep their statistics. Other buffers do not change.

    Args:
        model: the network.
        passes: its last training passes.
        warn: called with a message, once, where the statistics cannot be estimated.
    """

    def __init__(self, model: nn.Module, passes: TrainingPasses, warn: Callable[[str], None]) -> None:
        self._model, self._passes, self._warn = unwrapped(model), passes, warn
        self._modules = list(self._model.modules())
        self._modes = [True] * len(self._modules)
        self._failed = False

    def note(self) -> None:
        """Note the modes of the modules in a training pass."""
        self._modes = [module.training for module in self._modules]

    def update(self, count: int | None = None) -> bool:
        """Estimate the statistics for the present weights.

        Args:
            count: how many batches to use, the last ones; all by default [count].
        Returns: whether they were estimated; otherwise the network is unchanged.
        """
        passes = list(self._passes.recent)[-count:] if count else list(self._passes.recent)
        if problem := self._problem(passes):
            self._give_up(problem)
            return False
        state = ModelState(self._model)
        saved = state.save_buffers()
        layers = [layer for layer, trains in zip(self._modules, self._modes, strict=True) if trains and _counts(layer)]
        versions = [each._version for one in passes for each in _tensors((one.arguments, one.keywords))]
        try:
            self._run(passes, layers, state.device)
        except Exception as error:  # whatever the network raises: the training goes on
            saved.restore()
            self._give_up(f"a forward pass with kept inputs raised {reason_of(error)}")
            return False
        estimated = [{name: getattr(layer, name).clone() for name in _STATISTICS} for layer in layers]
        saved.restore()
        if versions != [each._version for one in passes for each in _tensors((one.arguments, one.keywords))]:
            self._give_up("the network changes its inputs in place")
            return False
        for layer, values in zip(layers, estimated, strict=True):
            for name, value in values.items():
                getattr(layer, name).copy_(value)
        return True

    @torch.no_grad()
    def _run(self, passes: list[Pass], layers: list[Any], device: torch.device) -> None:
        momenta = [layer.momentum for layer in layers]
        with isolated(), modes_restored(self._model), not_compiled():
            for module, trains in zip(self._modules, self._modes, strict=True):
                module.training = trains
            try:
                for layer in layers:
                    layer.reset_running_stats()
                    layer.momentum = None  # the mean over all batches
                for arguments, keywords, autocast in passes:
                    with autocast.on(device):
                        self._model(*arguments, **keywords)
            finally:
                for layer, momentum in zip(layers, momenta, strict=True):
                    layer.momentum = momentum

    def _problem(self, passes: list[Pass]) -> str | None:
        if not passes:
            return "no forward pass of the network in training mode was seen"
        if not all(_is_plain((one.arguments, one.keywords)) for one in passes):
            return "the inputs of the network are not tensors"
        return None

    def _give_up(self, problem: str) -> None:
        if not self._failed:
            self._failed = True
            self._warn(problem)


def _counts(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.running_mean is not None


def _is_plain(value: Any) -> bool:
    """Whether inputs can be given to the network again: tensors and constants in tuples, lists and dictionaries."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, Tensor | int | float | str | torch.dtype | torch.device)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [each for part in parts for each in _tensors(part)]
