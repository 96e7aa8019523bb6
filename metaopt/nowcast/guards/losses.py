"""The loss of a network on a batch of held-out examples: one per example where it can be."""

import copy
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import InvalidConfig
from ...core.text import shown
from .examples import rows_of

_LABELS = ("labels", "label", "targets", "target")


def unreduced(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss with one number per example, if it is one of PyTorch's; otherwise as it is."""
    if isinstance(loss, nn.Module):
        if not isinstance(getattr(loss, "reduction", None), str):
            return loss
        copied: Any = copy.copy(loss)
        copied.reduction = "none"
        return copied
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return loss
    return partial(loss, reduction="none") if "reduction" in parameters else loss


def loss_of_outputs(loss: Callable[..., Any] | None, model: nn.Module, batch: Any) -> Any:
    """The loss of a network on a batch; without a loss, the one that the network returns."""
    if loss is None:
        return _own_loss(_called(model, batch), batch)
    inputs, labels = _split(batch)
    outputs = _called(model, inputs)
    outputs = _part(outputs, "logits", outputs)
    return loss(outputs, labels)


def _own_loss(outputs: Any, batch: Any) -> Any:
    """The loss that a network returned: alone, under the name `loss`, or as the only number beside its outputs.

    Raises:
        InvalidConfig: it returned none.
    """
    loss = _part(outputs, "loss", outputs)
    if isinstance(loss, list | tuple):
        numbers = [each for each in loss if isinstance(each, Tensor) and each.numel() == 1]
        loss = numbers[0] if len(numbers) == 1 else loss
    if not isinstance(loss, Tensor) or (loss.numel() != 1 and loss.shape != (rows_of(batch),)):
        raise InvalidConfig(
            f"the network of the guard returned {described(loss)}; expected its loss. Give guard_from(data, loss), "
            "such as torch.nn.functional.cross_entropy, or compute_loss=lambda model, batch: …"
        )
    return loss


def _split(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Tensor):
        return batch, batch
    if isinstance(batch, Mapping):
        name = next((name for name in _LABELS if name in batch), None)
        if name is None:
            raise InvalidConfig(
                f"the batches of the guard have the entries {', '.join(map(str, batch))}; expected one of "
                f"{', '.join(_LABELS)}. Give guard_from(data, compute_loss=lambda model, batch: …)"
            )
        return {key: value for key, value in batch.items() if key != name}, batch[name]
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        raise InvalidConfig(
            f"a batch of the guard is {described(batch)}; expected inputs and labels, a dictionary with labels, or a "
            "tensor. Give guard_from(data, compute_loss=lambda model, batch: …)"
        )
    *inputs, labels = batch
    return inputs[0] if len(inputs) == 1 else tuple(inputs), labels


def _called(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, list | tuple) else model(inputs)


def _part(outputs: Any, name: str, default: Any) -> Any:
    """A named part of what a network returned, as a dictionary or as an object of Hugging Face."""
    if isinstance(outputs, Mapping):
        return outputs.get(name, default)
    return default if isinstance(outputs, Tensor) else getattr(outputs, name, default)


def one_per_example(result: Any, batch: Any) -> Float[Tensor, " examples"]:
    """The losses of the examples of a batch: the mean of each one's, or the loss of the batch.

    Raises:
        InvalidConfig: the result is no loss.
    """
    losses = _part(result, "loss", result)
    if isinstance(losses, float):
        losses = torch.tensor(losses)
    rows = rows_of(batch)
    usable = isinstance(losses, Tensor) and losses.is_floating_point() and losses.numel()
    if not usable or (losses.numel() != 1 and losses.numel() % rows):
        kind = f"{described(losses)}, {losses.dtype}" if isinstance(losses, Tensor) else shown(losses)
        raise InvalidConfig(
            f"the loss of the guard on {described(batch)} is {kind}; expected one number, or one for each of the "
            f"{rows} examples"
        )
    losses = losses.detach().float()
    return losses.reshape(1) if losses.numel() == 1 else losses.reshape(rows, -1).mean(1)


def described(batch: Any) -> str:
    """What a batch or an output is, for messages."""
    if isinstance(batch, Tensor):
        return f"a tensor of shape {list(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a dictionary of {', '.join(map(str, batch))}"
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"
