"""What the name of a target stands for: a way to configure a network and a way to build it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.config import Config
from ..core.dependencies import import_torchvision, import_transformers
from ..core.errors import InvalidConfig, UnknownName
from ..core.registry import load_path, suggest
from .taps import Places


class Builder(Protocol):
    """Makes networks of one name, wherever their code comes from."""

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that `build` needs: what the data asks for, then the user's own options.

        Raises:
            InvalidConfig: an option that the network does not have, or a value it cannot take.
        """

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with fresh weights.

        Raises:
            InvalidConfig: as for `configure`; configurations come from files, too.
        """


@dataclass(frozen=True)
class ConfiguredBuilder:
    """Builds a class that has a `Config`: ours, and those of plug-ins."""

    kind: Any

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that the `Config` has a field for, then the options."""
        known = {name: facts[name] for name in self.kind.Config.names() if name in facts}
        config: dict[str, Any] = self.kind.Config.from_mapping({**known, **options}).to_mapping()
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """An instance of the class."""
        network: nn.Module = self.kind(self.kind.Config.from_mapping(config))
        return network


def code_builder(path: str) -> Builder:
    """The builder of whatever stands at a path; the code there is imported.

    Raises:
        UnknownName: nothing can be imported from there.
        InvalidConfig: what stands there cannot be called.
    """
    made = load_path(path)
    config = getattr(made, "Config", None)
    if isinstance(config, type) and issubclass(config, Config):
        return ConfiguredBuilder(made)
    return _CallableBuilder(path, made)


class _CallableBuilder:
    """Calls a class or a function; its parameters say which facts it wants and which options it takes."""

    def __init__(self, path: str, make: Callable[..., nn.Module]) -> None:
        self._path = path
        self._make = make
        try:
            self._signature = inspect.signature(make)
        except (TypeError, ValueError) as error:
            raise InvalidConfig(
                f"{path!r} is {type(make).__name__}; expected a torch.nn.Module class or a function with parameters"
            ) from error

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The facts that are named like parameters, then the options."""
        config = {name: facts[name] for name in self._signature.parameters if name in facts} | dict(options)
        self._check(config)
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """What the call returns."""
        self._check(config)
        return self._make(**config)

    def _check(self, config: Mapping[str, Any]) -> None:
        parameters = self._signature.parameters
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        for name in config:
            if name not in parameters and not takes_any:
                raise InvalidConfig(f"unknown parameter {name!r} for {self._path!r}: {suggest(name, parameters)}")
        try:
            self._signature.bind(**config)
        except TypeError as error:
            raise InvalidConfig(f"{self._path!r} with {dict(config)!r}: {error}; give it as a target option") from error


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


_SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class CausalLanguageModel(nn.Module):
    """A causal language model of transformers that answers with its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Int[Tensor, "batch block"]) -> Float[Tensor, "batch block vocabulary"]:
        """Logits of the token that follows each token."""
        return self.network(input_ids=tokens, use_cache=False, return_dict=True).logits

    def taps(self) -> Places:
        """Places after GPT-2's own kind of linear layer, beside those of PyTorch's layers."""
        convolutions = (each for each in self.named_modules() if type(each[1]).__name__ == "Conv1D")
        return {name: ("layer", layer.nf, -1) for name, layer in convolutions}


class TransformersBuilder:
    """Builds a causal language model with fresh weights from its configuration class; nothing is fetched.

    Options are the parameters of that class, apart from configurations inside it: those can name code to fetch.
    """

    def __init__(self, name: str) -> None:
        """Look the configuration up.

        Raises:
            UnknownName: transformers has no causal language model with such a configuration.
            InvalidConfig: transformers is not installed.
        """
        self._name = name
        self._transformers = import_transformers()
        if name not in _causal_configs():
            raise UnknownName(
                f"unknown causal language model 'transformers:{name}': {suggest(name, _causal_configs())}"
            )
        self._kind = getattr(self._transformers, name)

    def configure(self, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The size of the data's vocabulary, then the options."""
        config = {name: facts[name] for name in ("vocab_size",) if name in facts} | dict(options)
        self._check(config)
        return config

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The language model, without special tokens unless the options name them: a vocabulary may have none."""
        self._check(config)
        none = {token: None for token in _SPECIAL_TOKENS if token in self._parameters()}
        try:
            described = self._kind(**{**none, **config})
            return CausalLanguageModel(self._transformers.AutoModelForCausalLM.from_config(described))
        except Exception as error:  # each of its networks refuses in a way of its own
            raise InvalidConfig(f"transformers' {self._name} does not take {dict(config)!r}: {error}") from error

    def _check(self, config: Mapping[str, Any]) -> None:
        """Refuse names that the configuration would only store away."""
        for name in config:
            if name not in self._parameters():
                raise InvalidConfig(f"unknown parameter {name!r} for {self._name}: {suggest(name, self._parameters())}")

    def _parameters(self) -> list[str]:
        known = [*inspect.signature(self._kind).parameters, *self._kind.attribute_map]
        return [name for name in known if name not in self._kind.sub_configs]


def _causal_configs() -> list[str]:
    """The names of all configuration classes that lead to a causal language model."""
    auto = "transformers.models.auto"
    causal = import_module(f"{auto}.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    configs = import_module(f"{auto}.configuration_auto").CONFIG_MAPPING_NAMES
    return sorted({configs[kind] for kind in causal if kind in configs})
