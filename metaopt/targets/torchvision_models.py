"""torchvision's classifiers by their names there: `torchvision:<name>`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..dependencies import import_torchvision
from ..errors import InvalidConfig, UnknownName
from ..registry import suggest

_FETCHING = ("weights", "pretrained")
_ONE_ANSWER = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Options of the two networks that otherwise give several outputs, and warn about their initialisation."""


class TorchvisionBuilder:
    """Builds a classifier of `torchvision.models` with fresh weights; nothing is fetched.

    Options are keyword arguments of torchvision's function of that name, beside `in_channels` and `classes`.
    """

    def __init__(self, name: str) -> None:
        """Look the classifier up.

        Raises:
            UnknownName: torchvision has none of that name.
        """
        self._name = name
        self._models = import_torchvision().models
        known = self._models.list_models(module=self._models)
        if name not in known:
            raise UnknownName(f"unknown classifier 'torchvision:{name}': {suggest(name, known)}")

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Channels and classes of the data, then the options."""
        known = {name: facts[name] for name in ("in_channels", "classes") if name in facts}
        return {**known, **_ONE_ANSWER.get(self._name, {}), **options}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The classifier, its first convolution fitted to the channels."""
        options = dict(config)
        channels, classes = options.pop("in_channels", 3), options.pop("classes", 10)
        for name in _FETCHING:
            if name in options:
                raise InvalidConfig(f"{name} is {options[name]!r}; leave it out: targets start from random weights")
        try:
            network = self._models.get_model(self._name, weights=None, num_classes=classes, **options)
            fit_channels(network, channels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidConfig(f"torchvision's {self._name} does not take {dict(config)!r}: {error}") from error
        return network


def fit_channels(network: nn.Module, channels: int) -> None:
    """Give a network a first convolution for images of so many channels, if it has another one.

    Departs: the new one is initialised as PyTorch does it by default, whatever the network does with its own.
    """
    name, first = next((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d))
    if first.in_channels != channels:
        fitted = nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        network.set_submodule(name, fitted)
