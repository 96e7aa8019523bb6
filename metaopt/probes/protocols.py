"""What probes ask of networks that take text: methods, found by their names."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

Tokens = Int[Tensor, "batch length"]
Embeddings = Float[Tensor, "batch length width"]
"""The embeddings of a text; zeros at padding."""


@runtime_checkable
class EmbedsText(Protocol):
    """A network with a text encoder, or with an embedding of tokens."""

    def embed(self, tokens: Tokens) -> Embeddings:
        """The embeddings of texts, zeros at padding."""


@runtime_checkable
class PredictsVelocity(EmbedsText, Protocol):
    """A network of flow matching that is conditioned on text. Its inputs are packed into one tensor."""

    def unpack(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tokens]:
        """The noisy sample x, the time t and the tokens of packed inputs."""

    def velocity(self, x: Tensor, t: Float[Tensor, " batch"], embeddings: Embeddings) -> Tensor:
        """The velocity at x and t, in the shape of x."""

    def null_tokens(self, batch: int) -> Tokens:
        """The tokens of the empty text, a row for each example."""


def tokens_of(model: nn.Module, inputs: Tensor) -> Tokens | None:
    """The tokens in the inputs of a network: unpacked, or the inputs themselves; None if there are none."""
    unpack: Any = getattr(model, "unpack", None)
    if unpack is not None:
        tokens: Tensor = unpack(inputs)[2]
        return tokens
    return inputs if inputs.ndim == 2 and not inputs.is_floating_point() else None
