"""Target networks by name: those of metaopt and of plug-ins, of torchvision and transformers, and the user's own.

`TARGETS` names the module that defines each of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..core.errors import InvalidConfig
from ..core.registry import Registry
from ..core.text import shown
from .builders import Builder, ConfiguredBuilder, TargetDescription, code_builder
from .convolutional import TargetCNN
from .libraries import TorchvisionBuilder, TransformersBuilder
from .taps import Tap, read_taps, tapped, taps
from .transformer import vmappable

TARGETS = Registry(
    "target model",
    "metaopt.targets",
    {
        "ConvNet": "metaopt.targets.convolutional:ConvNet",
        "GPT": "metaopt.targets.transformer:GPT",
        "Hope": "metaopt.nested.hope:Hope",
        "HostCNN": "metaopt.targets.hosts:HostCNN",
        "MLP": "metaopt.targets.mlp:MLP",
        "ResNet18": "metaopt.targets.convolutional:ResNet18",
        "ResNet34": "metaopt.targets.convolutional:ResNet34",
        "TargetCNN": "metaopt.targets.convolutional:TargetCNN",
        "TextToVideo": "metaopt.diffusion.network:TextToVideo",
        "TransformerHost": "metaopt.targets.hosts:TransformerHost",
        "VisionTransformer": "metaopt.targets.transformer:VisionTransformer",
    },
    base=nn.Module,
)
"""Target networks by name, including those of installed plug-ins."""

SCHEMES: Mapping[str, Callable[[str], Builder]] = {
    "torchvision": TorchvisionBuilder,
    "transformers": TransformersBuilder,
}
"""Libraries whose networks are named `<library>:<name in the library>`."""

PATTERNS = {
    "torchvision:<name>": "A classifier of torchvision.models, such as torchvision:mobilenet_v2.",
    "transformers:<ConfigClass>": "A causal language model of transformers, such as transformers:GPT2Config.",
    "package.module:build": "A torch.nn.Module class of your own, or a function that returns a module.",
}
"""Patterns of the names that are not in `TARGETS`, with descriptions."""


def get_target_model(name: str, model_facts: Mapping[str, Any] | None = None, /, **config: Any) -> nn.Module:
    """Build a target network by name, with random initial weights.

        import metaopt

        task = metaopt.load_task("digits")
        model = metaopt.get_target_model("MLP", task.model_facts, widths=(32, 32))
        resnet = metaopt.get_target_model("torchvision:resnet18", classes=100)

    A name such as `package.module:build` imports and runs that code, so it must not come from a file of somebody else:
    check such names with `names_code`.

    Args:
        model_facts: properties of a task's data, which set the options of the same name; `config` overrides them.
        config: options of the network; `metaopt list targets NAME` shows them.
    Raises:
        UnknownName: there is no such network; the message lists the nearest names.
        InvalidConfig: an unknown option, or an invalid value.
    """
    builder = _builder(name)
    model = builder.build(config if model_facts is None else builder.configure(model_facts, config))
    if not isinstance(model, nn.Module):
        raise InvalidConfig(f"{shown(name)} gives {type(model).__name__}; expected a torch.nn.Module")
    return model


def target_config(name: str, model_facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The complete configuration of a target as plain values: properties of the data, overridden by the options.

    Raises:
        UnknownName: there is no such network; the message lists the nearest names.
        InvalidConfig: an unknown option, or an invalid value.
    """
    return _builder(name).configure(model_facts, options)


def describe_target(name: str) -> TargetDescription:
    """The package, the summary and the options of a target of any kind of name; imports a dotted path.

        describe_target("transformers:GPT2Config").options[0]  # TargetOption(name='vocab_size', default='50257', …)

    Raises:
        UnknownName: there is no such network; the message lists the nearest names.
        InvalidConfig: the library of the network is not installed.
    """
    return _builder(name).describe()


def names_code(name: str) -> bool:
    """Whether a name is an import path, whose code runs when the network is built."""
    scheme, colon, _ = name.partition(":")
    return bool(colon) and scheme not in SCHEMES


def _builder(name: str) -> Builder:
    scheme, colon, rest = name.partition(":")
    if not colon:
        return ConfiguredBuilder(TARGETS.get(name), TARGETS.origin(name))
    return code_builder(name) if names_code(name) else SCHEMES[scheme](rest)


__all__ = [
    "PATTERNS",
    "TARGETS",
    "Tap",
    "TargetCNN",
    "TargetDescription",
    "describe_target",
    "get_target_model",
    "names_code",
    "read_taps",
    "tapped",
    "taps",
    "target_config",
    "vmappable",
]
