"""Causal language models of the transformers package by their configurations: `transformers:<ConfigClass>`."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..dependencies import import_transformers
from ..errors import InvalidConfig, UnknownName
from ..registry import suggest
from .taps import Places

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
