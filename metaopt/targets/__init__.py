"""Target networks. One file each; one line in this table each; and names for the networks of others."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..core.errors import InvalidConfig
from ..core.registry import Registry
from .builders import Builder, ConfiguredBuilder, TorchvisionBuilder, TransformersBuilder, code_builder
from .taps import Tap, read_taps, tapped, taps
from .target_cnn import TargetCNN
from .vmap import vmappable

TARGETS = Registry(
    "target model",
    "metaopt.targets",
    {
        "ConvNet": "metaopt.targets.convnet:ConvNet",
        "GPT": "metaopt.targets.gpt:GPT",
        "MLP": "metaopt.targets.mlp:MLP",
        "ResNet18": "metaopt.targets.resnet:ResNet18",
        "ResNet34": "metaopt.targets.resnet:ResNet34",
        "TargetCNN": "metaopt.targets.target_cnn:TargetCNN",
        "VisionTransformer": "metaopt.targets.vision_transformer:VisionTransformer",
    },
)
"""Target networks by name, those of outside packages included."""

SCHEMES: Mapping[str, Callable[[str], Builder]] = {
    "torchvision": TorchvisionBuilder,
    "transformers": TransformersBuilder,
}
"""Packages whose networks need no entry of ours: `<scheme>:<name in that package>`."""

PATTERNS = {
    "torchvision:<name>": "A classifier of torchvision.models, such as torchvision:mobilenet_v2.",
    "transformers:<ConfigClass>": "A causal language model of transformers, such as transformers:GPT2Config.",
    "package.module:build": "A torch.nn.Module of your own, or a function that returns one.",
}
"""How the names look that no table lists, and what they stand for."""


def get_target_model(name: str, model_facts: Mapping[str, Any] | None = None, /, **config: Any) -> nn.Module:
    """Build a target network by name.

    A name of the user's own code (`names_code`) imports and runs that code: whoever takes names from files of
    others refuses it first.

    Args:
        model_facts: what a task says of its data; the network takes what it needs of them, and `config` wins.
    Raises:
        UnknownName: no such network; the message lists the nearest names.
        InvalidConfig: a keyword is not one of its parameters, or has a value it cannot take.
    """
    builder = _builder(name)
    model = builder.build(config if model_facts is None else builder.configure(model_facts, config))
    if not isinstance(model, nn.Module):
        raise InvalidConfig(f"{name!r} gives {type(model).__name__}; expected a torch.nn.Module")
    return model


def target_config(name: str, model_facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The full configuration of a target: what the task's data asks for, then the user's own options.

    Raises:
        UnknownName: no such network.
        InvalidConfig: an option that the network does not have, or a value it cannot take.
    """
    return _builder(name).configure(model_facts, options)


def names_code(name: str) -> bool:
    """Whether a name is a path to somebody's own code, which runs when the network is built."""
    scheme, colon, _ = name.partition(":")
    return bool(colon) and scheme not in SCHEMES


def _builder(name: str) -> Builder:
    scheme, colon, rest = name.partition(":")
    if not colon:
        return ConfiguredBuilder(TARGETS.get(name))
    return code_builder(name) if names_code(name) else SCHEMES[scheme](rest)


__all__ = [
    "PATTERNS",
    "TARGETS",
    "Tap",
    "TargetCNN",
    "get_target_model",
    "names_code",
    "read_taps",
    "tapped",
    "taps",
    "target_config",
    "vmappable",
]
