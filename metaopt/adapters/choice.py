"""Which matrices of a network its adapters change."""

import re
from collections.abc import Sequence

from torch import nn

from ..core.errors import InvalidConfig
from .aliases import WAN
from .config import AdapterConfig
from .lora import AdapterFacts, linear_layers
from .selection import select_matrices

_SELF, _CROSS = (re.compile(rf"(?<![^.])(?:{names})(?![^.])") for names in ("self_attn|attn1", "cross_attn|attn2"))
MOST_RANK = 4
"""Largest rank of adapters of self-attention beside cross-attention."""


def chosen_adapters(model: nn.Module, config: AdapterConfig) -> AdapterFacts | None:
    """The adapters that a configuration asks for; None if it asks for none.

        import torch
        from metaopt import get_target_model
        from metaopt.adapters import AdapterConfig, chosen_adapters

        model = get_target_model("GPT", vocab_size=64, block_size=16, n_layer=2, n_embd=32)
        chosen_adapters(model, AdapterConfig(adapter="lora", include="mlp", layers="1", rank=4)).modules

    Self-attention is refused in a network that has cross-attention: there, adapters are to change how it listens to a
    condition, and not how it behaves without one. In other networks it is a matrix like any.

    Args:
        model: the network, which may be on the device `meta`; only names and shapes are read.
    Raises:
        InvalidConfig: an expression is invalid, matches nothing, or leaves nothing; a layer does not exist; or
            self-attention beside cross-attention is chosen without permission, or with a rank above 4.
    """
    if config.adapter is None:
        return None
    linear = linear_layers(model)
    shapes = {f"{name}.weight": tuple(module.weight.shape) for name, module in linear.items()}
    found = select_matrices(shapes, include=config.include, exclude=config.exclude, layers=config.layers)
    modules = [matrix.module for matrix in found]
    if any(_is(_CROSS, name) for name in linear):
        _check_self_attention([name for name in modules if _is(_SELF, name)], config)
    return AdapterFacts(config.adapter, modules, config.rank, config.alpha)


def _check_self_attention(modules: Sequence[str], config: AdapterConfig) -> None:
    if modules and not config.allow_self_attention:
        raise InvalidConfig(
            f"{len(modules)} of the chosen matrices are of self-attention, such as {modules[0]}. Exclude them with "
            "exclude='self_attn|attn1', or allow them with allow_self_attention=True and a rank of at most 4"
        )
    if modules and config.rank > MOST_RANK:
        raise InvalidConfig(
            f"rank is {config.rank} for {len(modules)} matrices of self-attention, such as {modules[0]}; expected at "
            f"most {MOST_RANK} beside cross-attention"
        )


def _is(pattern: re.Pattern[str], name: str) -> bool:
    return any(pattern.search(spelling) is not None for spelling in WAN.spellings(name))
