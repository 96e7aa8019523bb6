"""What follows the weights when a nowcast moves them: snapshots, running averages and state of the base optimizer."""

from typing import Any

import torch
from torch import Tensor

from .model_state import Saved
from .tracked_weights import TrackedWeights

_COPIES_OF_WEIGHTS = ("z", "slow_buffer")
"""State that is a position like the weights, not a moment: of schedulefree, and of Ranger, which includes Lookahead."""


def follow_weights(tracked: TrackedWeights, saved: Saved) -> None:
    """Add what a nowcast changed in the weights to everything that has the same position.

    Args:
        tracked: the moved weights, the same on all ranks.
        saved: the weights before.
    """
    model_state = tracked.model_state
    weights = model_state.weights
    change = torch.empty(model_state.layout.size, device=model_state.device)
    changes = list(model_state.layout.split(change))
    for now, before, changed in zip(weights, saved.weights, changes, strict=True):
        changed.copy_((now.detach() - before).flatten())
    tracked.history.shift(change)
    shaped = [each.reshape(now.shape).to(now.device) for each, now in zip(changes, weights, strict=True)]
    tracked.averages.shift(shaped)
    for now, changed in zip(weights, shaped, strict=True):
        _shift_copies(tracked.base.state.get(now, {}), changed)


@torch.no_grad()
def _shift_copies(state: dict[str, Any], change: Tensor) -> None:
    """Add a change of one weight tensor to the copies of it in the base optimizer's state of that tensor."""
    for name in _COPIES_OF_WEIGHTS:
        if isinstance(copy := state.get(name), Tensor) and copy.shape == change.shape:
            copy += change.to(copy)
