"""Networks from other libraries: classifiers from torchvision and causal language models from transformers.

The networks are randomly initialised; no pretrained weights are downloaded.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.dependencies import import_torchvision, import_transformers
from ..core.errors import InvalidConfig, UnknownName
from ..core.registry import suggest
from ..core.text import reason_of, shown
from .builders import TargetDescription, TargetOption, first_line, signature_options
from .taps import Places

_PRETRAINED_OPTIONS = ("weights", "pretrained")
_SINGLE_OUTPUT_OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Options that disable the auxiliary outputs of these classifiers, and their warning about initialisation."""

_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class TorchvisionBuilder:
    """Builds a classifier from `torchvision.models`.

    Options are `in_channels`, `classes` and the keyword arguments of the torchvision function that builds the model.
    """

    def __init__(self, name: str) -> None:
        """Look up the classifier by name.

        Raises:
            UnknownName: torchvision has no classifier of that name.
            InvalidConfig: torchvision is not installed, or was built for another version of torch.
        """
        self._name = name
        self._models = import_torchvision().models
        known = self._models.list_models(module=self._models)
        if name not in known:
            raise UnknownName(f"unknown classifier 'torchvision:{name}': {suggest(name, known)}")

    def describe(self) -> TargetDescription:
        """The first line of the docstring of torchvision's function, and the options."""
        function = self._models.get_model_builder(self._name)
        own = [
            TargetOption("in_channels", "3", "Channels of an image; the default is the task's."),
            TargetOption("classes", "10", "Number of outputs; the default is the task's."),
        ]
        found, hidden = signature_options(inspect.signature(function)), (*_PRETRAINED_OPTIONS, "progress")
        options = own + [each for each in found if each.name not in hidden]
        return TargetDescription(f"torchvision {version('torchvision')}", first_line(function), options)

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration: the task's number of input channels and of classes, overridden by the options."""
        from_task = {name: facts[name] for name in ("in_channels", "classes") if name in facts}
        return {**from_task, **_SINGLE_OUTPUT_OPTIONS.get(self._name, {}), **options}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the classifier. Its first convolution has `in_channels` input channels."""
        options = dict(config)
        channels, classes = options.pop("in_channels", 3), options.pop("classes", 10)
        for name in _PRETRAINED_OPTIONS:
            if name in options:
                raise InvalidConfig(f"{name} is {shown(options[name])}; remove it: targets start from random weights")
        try:
            network = self._models.get_model(self._name, weights=None, num_classes=classes, **options)
            fit_channels(network, channels)
        except Exception as error:  # the exception types differ between models
            raise _not_taken("torchvision", self._name, config, error) from error
        return network


def fit_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution of a network if it does not have the given number of input channels.

    The new convolution has PyTorch's default initialisation, even if the network initialises its layers differently.
    """
    name, old = next((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d))
    if old.in_channels != channels:
        new = nn.Conv2d(
            channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]
            old.stride,  # type: ignore[arg-type]
            old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )
        network.set_submodule(name, new)


class CausalLanguageModel(nn.Module):
    """Wraps a causal language model from transformers so that its forward pass returns only the logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Int[Tensor, "batch block"]) -> Float[Tensor, "batch block vocabulary"]:
        """Logits of the next token at each position."""
        return self.network(input_ids=tokens, use_cache=False, return_dict=True).logits

    def taps(self) -> Places:
        """The outputs of GPT-2's linear layers, which are `Conv1D` modules of transformers and not `nn.Linear`."""
        modules = self.named_modules()
        return {name: ("layer", layer.nf, -1) for name, layer in modules if type(layer).__name__ == "Conv1D"}


class TransformersBuilder:
    """Builds a causal language model from transformers, given the name of its configuration class.

    Options are the parameters of that class. Nested configurations are rejected, because they can refer to code that
    transformers would download.
    """

    def __init__(self, name: str) -> None:
        """Look up the configuration class by name.

        Raises:
            UnknownName: transformers has no causal language model with a configuration class of that name.
            InvalidConfig: transformers is not installed.
        """
        self._name = name
        self._transformers = import_transformers()
        if name not in _causal_configs():
            raise UnknownName(
                f"unknown causal language model 'transformers:{name}': {suggest(name, _causal_configs())}"
            )
        self._config_class = getattr(self._transformers, name)

    def describe(self) -> TargetDescription:
        """A line about the model, and the parameters of the configuration class."""
        known, general = set(self._parameters()), inspect.signature(self._transformers.PreTrainedConfig).parameters
        options = [each for each in signature_options(inspect.signature(self._config_class)) if each.name in known]
        options.sort(key=lambda each: each.name in general)  # those of all models come last
        summary = f"The causal language model of transformers whose configuration is {self._name}."
        return TargetDescription(f"transformers {version('transformers')}", summary, options)

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration: the task's vocabulary size, overridden by the options."""
        config = {name: facts[name] for name in ("vocab_size",) if name in facts} | dict(options)
        self._check(config)
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the language model.

        The IDs of special tokens are None unless the options set them, because the vocabulary may not contain them.
        """
        self._check(config)
        no_special_tokens = {name: None for name in _SPECIAL_TOKENS if name in self._parameters()}
        try:
            model_config = self._config_class(**{**no_special_tokens, **config})
            return CausalLanguageModel(self._transformers.AutoModelForCausalLM.from_config(model_config))
        except Exception as error:  # the exception types differ between models
            raise _not_taken("transformers", self._name, config, error) from error

    def _check(self, config: Mapping[str, Any]) -> None:
        """Reject unknown parameters, because the configuration class accepts any keyword argument."""
        for name in config:
            if name not in self._parameters():
                raise InvalidConfig(
                    f"unknown parameter {shown(name)} for {self._name}: {suggest(name, self._parameters())}"
                )

    def _parameters(self) -> list[str]:
        known = [*inspect.signature(self._config_class).parameters, *self._config_class.attribute_map]
        return [name for name in known if name not in self._config_class.sub_configs]


def _not_taken(library: str, name: str, config: Mapping[str, Any], error: Exception) -> InvalidConfig:
    return InvalidConfig(
        f"{name} of {library} does not take {shown(dict(config))} ({reason_of(error)}). "
        f"`metaopt list targets {library}:{name}` shows its options"
    )


def _causal_configs() -> list[str]:
    """The names of all configuration classes for which transformers has a causal language model."""
    auto = "transformers.models.auto"
    causal = import_module(f"{auto}.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    configs = import_module(f"{auto}.configuration_auto").CONFIG_MAPPING_NAMES
    return sorted({configs[model_type] for model_type in causal if model_type in configs})
