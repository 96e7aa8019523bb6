"""Selects the trainable weights of a network."""

import re

from torch import nn

from ..core.errors import InvalidConfig
from ..core.text import shown


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a network that require a gradient, without duplicates, in the order of `named_parameters`."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def train_only(model: nn.Module, pattern: str | None) -> None:
    """Freeze the trainable weights whose names do not match a regular expression.

    Args:
        model: changed in place.
        pattern: searched for anywhere in a name, such as `lora_|head`; None freezes nothing.
    Raises:
        InvalidConfig: no name matches.
    """
    if pattern is None:
        return
    names = [name for name, _ in trainable(model)]
    if not any(re.search(pattern, name) for name in names):
        raise InvalidConfig(f"space is {shown(pattern)}, which matches no weights of {type(model).__name__}: {names}")
    for name, parameter in trainable(model):
        parameter.requires_grad_(re.search(pattern, name) is not None)
