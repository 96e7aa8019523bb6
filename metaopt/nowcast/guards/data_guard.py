"""`guard_from`: a guard from held-out data and a loss, in place of a function of one's own."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import InvalidConfig, MetaoptError
from ...core.rng import isolated
from ...core.text import reason_of, shown
from ...tasks.measure import in_evaluation_mode
from ..model_state import not_compiled, unwrapped
from .examples import Source, moved_to, source_of
from .guard import RotatingGuard
from .losses import described, loss_of_outputs, one_per_example, unreduced

FEWEST = 32
"""Examples below which a time budget does not shrink a guard [count]."""


class DataGuard:
    """A guard that `guard_from` made; `Nowcast` binds it to its network.

    One object may guard several trainings, one after the other or at the same time.
    """

    def __init__(self, source: Source, loss: Callable[[nn.Module, Any], Any], examples: int, seed: int) -> None:
        self._source, self._loss, self._examples, self._seed = source, loss, examples, seed

    def __repr__(self) -> str:
        return f"guard_from(…, examples={self._examples})"

    def bound_to(self, model: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> "BoundGuard":
        """The guard function of a network.

        Args:
            model: the network.
            autocast: gives the autocast of the training.
        """
        return BoundGuard(self._source, self._loss, model, autocast, self._examples, self._seed)


class BoundGuard(RotatingGuard):
    """A guard function that measures one network on examples that are drawn at each nowcast.

    Args:
        source: held-out examples.
        loss: losses of the network on a batch.
        model: the network.
        autocast: gives the autocast of the training.
        examples: how many to measure, unless a time budget asks for fewer [count].
        seed: random seed of the choice.
    """

    def __init__(
        self,
        source: Source,
        loss: Callable[[nn.Module, Any], Any],
        model: nn.Module,
        autocast: Callable[[], AbstractContextManager[Any]],
        examples: int,
        seed: int,
    ) -> None:
        self._source, self._loss, self._model, self._autocast = source, loss, model, autocast
        self.examples, self._seed = examples, seed
        self._drawn: tuple[int, float, bool] = (0, 1.0, False)
        self._batches: list[Any] = []

    def start(self, step: int, share: float = 1.0, *, fresh: bool = False) -> None:
        """Begin a nowcast: other examples."""
        self._drawn, self._batches = (step, share, fresh), []

    @property
    def smallest_share(self) -> float:
        """The share at which FEWEST examples are left."""
        return min(FEWEST / self.examples, 1.0)

    def finish(self) -> None:
        """End a nowcast: the examples leave the memory."""
        self._batches = []

    def __call__(self) -> Float[Tensor, " examples"]:
        """Measure the losses of the network on the examples of this nowcast.

        Raises:
            InvalidConfig: the loss cannot be computed, or is no loss.
        """
        model = unwrapped(self._model)
        if not self._batches:
            self._batches = self._draw(next(model.parameters()).device, _dtype_of(model))
        with in_evaluation_mode(model), not_compiled(), self._autocast(), torch.no_grad():
            return torch.cat([self._losses(model, batch) for batch in self._batches])

    def _draw(self, device: torch.device, dtype: torch.dtype | None) -> list[Any]:
        step, share, fresh = self._drawn
        count = max(round(share * self.examples), min(FEWEST, self.examples))
        with isolated():  # also the noise of a loss must be the same in the first call and in those after it
            draw = np.random.default_rng([self._seed, step, fresh])
            batches = [moved_to(batch, device, dtype) for batch in self._source.draw(count, draw)]
        if not batches:
            raise InvalidConfig("the held-out data of guard_from is empty; expected examples")
        return batches

    def _losses(self, model: nn.Module, batch: Any) -> Tensor:
        try:
            result = self._loss(model, batch)
        except (MetaoptError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of any kind: the network, the loss and the data are the user's
            raise InvalidConfig(
                f"the guard cannot compute the loss of {type(model).__name__} on {described(batch)}: "
                f"{reason_of(error)}. Give guard_from(data, compute_loss=lambda model, batch: …), which returns one "
                "loss per example, or that of the batch"
            ) from error
        return one_per_example(result, batch)


def _dtype_of(model: nn.Module) -> torch.dtype | None:
    """The dtype of the floating-point weights; None where they have several."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else None


def guard_from(
    data: Any,
    loss: Callable[..., Any] | None = None,
    *,
    compute_loss: Callable[[nn.Module, Any], Any] | None = None,
    examples: int = 256,
    batch_size: int | None = None,
    seed: int = 0,
) -> DataGuard:
    """Make a guard for `Nowcast` from held-out data and a loss.

        import torch, metaopt

        model = torch.nn.Linear(8, 4)
        inputs = torch.randn(1200, 8)
        held_out = torch.utils.data.TensorDataset(inputs[1000:], inputs[1000:, :4].argmax(1))
        guard = metaopt.guard_from(held_out, torch.nn.functional.cross_entropy)
        optimizer = metaopt.Nowcast(torch.optim.Adam(model.parameters()), model, "builtin", guard=guard)

    The network is that of the `Nowcast`. It is measured in evaluation mode, on its device, and under the autocast that
    was in force in the last forward pass of the training; floating-point examples get the dtype of its weights. Each
    nowcast draws other examples, by its step; they are the same within it. Nothing that it does changes the random
    numbers of the training. A compiled network runs without compilation, because evaluation mode and other sizes would
    compile it again.

    Where it can be, the result is one loss per example: for losses of PyTorch with the argument `reduction`, and where
    `loss` or `compute_loss` returns one number per example. Otherwise it is one loss per batch, and a smaller
    `batch_size` gives more of them.

    Args:
        data: data that is used neither for training nor for the final evaluation: a data loader, a data set, a list of
            examples, tensors with one row per example (in a tuple or a dictionary), or a split of a task. Data that can
            only be read in order is read once; its first batches are kept, and each nowcast draws from them.
        loss: the loss of outputs and labels, such as `torch.nn.functional.cross_entropy`. Batches are tuples of inputs
            and labels, dictionaries with `labels`, or tensors that are both. Without it, the network returns its loss
            itself, as those of Hugging Face do: the whole batch is its input.
        compute_loss: the loss of a network on a batch, for everything else; in place of `loss`.
        examples: how many to measure at each nowcast [count]. With `max_overhead`, it can be fewer.
        batch_size: examples in a batch; by default that of the data loader, or 32 [count].
        seed: random seed of the choice of examples.
    Raises:
        InvalidConfig: there is no such data, it is empty, both losses are given, or a number is not positive.
    """
    if loss is not None and compute_loss is not None:
        raise InvalidConfig("guard_from got loss and compute_loss; give one of them")
    for name, value in (("examples", examples), ("batch_size", batch_size)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not whole and not (name == "batch_size" and value is None):
            raise InvalidConfig(f"{name} of guard_from is {shown(value)}; expected a positive integer")
    if isinstance(data, nn.Module):
        raise InvalidConfig(
            f"the first argument of guard_from is a network, {type(data).__name__}; expected held-out data. Nowcast "
            "gives its network to the guard"
        )
    for name, function in (("loss", loss), ("compute_loss", compute_loss)):
        if function is not None and not callable(function):
            raise InvalidConfig(f"{name} of guard_from is {shown(function)}; expected a function")
    single = None if loss is None else unreduced(loss)
    return DataGuard(source_of(data, batch_size), compute_loss or partial(loss_of_outputs, single), examples, seed)
