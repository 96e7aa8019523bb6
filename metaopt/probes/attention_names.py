"""Where networks compute the queries and keys of their attention. Another naming is one more entry of `NAMINGS`."""

from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from torch import nn


class Naming(NamedTuple):
    """The names that one library uses in a module of attention.

    Attributes:
        query, key: submodules that project to queries and keys [batch, tokens, heads · size], heads first; one name
            for both is a projection to queries, keys and values side by side.
        heads: attribute with the number of heads, which may have dots.
        norms: submodules after the projections, if the module has them.
        is_scaled: whether logits are divided by the square root of the size of a head.
    """

    query: str
    key: str
    heads: str
    norms: tuple[str, str] | None = None
    is_scaled: bool = True


NAMINGS = {
    "metaopt's GPT": Naming("qkv", "qkv", "heads"),
    "diffusers": Naming("to_q", "to_k", "heads", norms=("norm_q", "norm_k")),
    "Wan": Naming("q", "k", "num_heads", norms=("norm_q", "norm_k")),
    "T5 and UMT5": Naming("q", "k", "n_heads", is_scaled=False),
    "Llama": Naming("q_proj", "k_proj", "config.num_attention_heads"),
    "GPT-2": Naming("c_attn", "c_attn", "num_heads"),
}
"""Namings by library or network; T5, UMT5, Llama and GPT-2 are those of transformers."""


class Attention(NamedTuple):
    """A module of attention.

    Attributes:
        name: of the module.
        query, key: the projections; the same module for both if they are side by side.
        query_output, key_output: the modules with the final queries and keys: norms if there are any.
        heads: number of heads of the queries.
        is_scaled: whether logits are divided by the square root of the size of a head.
    """

    name: str
    query: nn.Module
    key: nn.Module
    query_output: nn.Module
    key_output: nn.Module
    heads: int
    is_scaled: bool


def attentions_of(model: nn.Module) -> Iterator[Attention]:
    """The modules of attention that one of `NAMINGS` describes, in the order of the network."""
    for name, module in model.named_modules():
        for naming in NAMINGS.values():
            if (heads := _heads(module, naming)) is not None:
                yield _attention(name, module, naming, heads)
                break


def _heads(module: nn.Module, naming: Naming) -> int | None:
    """The number of heads of a module of attention; None if the naming does not describe it."""
    if not all(isinstance(getattr(module, part, None), nn.Module) for part in (naming.query, naming.key)):
        return None
    try:
        heads = attrgetter(naming.heads)(module)
    except AttributeError:
        return None
    return heads if isinstance(heads, int) and heads > 0 else None


def _attention(name: str, module: nn.Module, naming: Naming, heads: int) -> Attention:
    query, key = (module.get_submodule(part) for part in (naming.query, naming.key))
    normed = [getattr(module, part, None) for part in naming.norms or ()]
    first, second = (each if isinstance(each, nn.Module) else None for each in normed or (None, None))
    return Attention(name, query, key, first or query, second or key, heads, naming.is_scaled)
