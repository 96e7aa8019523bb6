"""The running statistics of BatchNorm layers: estimated again when the weights are no longer those of the training."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.devices import device_of
from ..core.rng import isolated
from ..core.text import reason_of
from ..tasks.measure import modes_restored
from .buffers import SavedBuffers
from .model_state import not_compiled, unwrapped
from .training_passes import Pass, TrainingPasses

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Replay:
    """How the passes of a training run again: on the network itself.

    Attributes:
        hooked: whether a hook on the network sees its inputs; otherwise `Nowcast.note_inputs` is told them.
    """

    hooked = True

    def network(self, model: nn.Module) -> nn.Module:
        """The network that runs: the training's own, or a copy that shares its weights."""
        return model

    def run(self, model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Run a pass of the training."""
        model(*arguments, **keywords)

    def precision(self, passes: TrainingPasses) -> AbstractContextManager[Any]:
        """The precision of the training, as a context manager: the autocast that the hook has seen."""
        return passes.same_autocast()


class RunningStatistics:
    """Estimates the running statistics of BatchNorm layers again, from the last inputs of the training.

    The result is the mean over the kept batches, as in `torch.optim.swa_utils.update_bn`. Each module is in the mode of
    the training pass, so layers that are frozen in evaluation mode keep their statistics. Other buffers do not change.

    Args:
        model: the network.
        passes: its last training passes.
        replay: how they run again.
        warn: called with a message, once, where the statistics cannot be estimated.
    """

    def __init__(self, model: nn.Module, passes: TrainingPasses, replay: Replay, warn: Callable[[str], None]) -> None:
        self._model, self._passes, self._replay, self._warn = unwrapped(model), passes, replay, warn
        self.start()

    def start(self) -> None:
        """Begin with the modules that the network has now."""
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
            return self._give_up(problem)
        saved = SavedBuffers(self._model)
        inputs = _tensors([one[:2] for one in passes])
        versions = [each._version for each in inputs]
        try:
            estimated = self._estimated(passes)
        except Exception as error:  # whatever the network raises: the training goes on
            return self._give_up(f"a forward pass with kept inputs raised {reason_of(error)}")
        finally:
            saved.restore()
        if versions != [each._version for each in inputs]:
            return self._give_up("the network changes its inputs in place")
        for layer, values in estimated:
            for name, value in values.items():
                getattr(layer, name).copy_(value)
        return True

    @torch.no_grad()
    def _estimated(self, passes: list[Pass]) -> list[tuple[nn.Module, dict[str, Tensor]]]:
        """The statistics of each layer by name."""
        device = device_of(self._model)
        with isolated(), modes_restored(self._model), not_compiled():
            model = self._replay.network(self._model)
            running = list(model.modules())
            for module, trains in zip(running, self._modes, strict=True):
                module.training = trains
            pairs = [pair for pair in zip(self._modules, running, strict=True) if _is_estimated(pair[1])]
            with _cumulative([layer for _, layer in pairs]):
                for arguments, keywords, autocast in passes:
                    with autocast.on(device):
                        self._replay.run(model, arguments, keywords)
            return [(ours, {name: getattr(layer, name).clone() for name in _STATISTICS}) for ours, layer in pairs]

    def _problem(self, passes: list[Pass]) -> str | None:
        if not passes:
            return "no forward pass of the network in training mode was seen"
        if not all(_is_plain((one.arguments, one.keywords)) for one in passes):
            return "the inputs of the network are not tensors"
        return None

    def _give_up(self, problem: str) -> bool:
        if not self._failed:
            self._failed = True
            self._warn(problem)
        return False


def has_statistics(model: nn.Module) -> bool:
    """Whether a network has BatchNorm layers with running statistics."""
    return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in model.modules())


@contextmanager
def _cumulative(layers: list[Any]) -> Iterator[None]:
    """Let layers compute the mean over all batches from now on, in place of a running average."""
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _is_estimated(layer: nn.Module) -> bool:
    tracks = isinstance(layer, _BatchNorm) and layer.track_running_stats and layer.running_mean is not None
    return tracks and layer.training


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
