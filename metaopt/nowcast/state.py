"""Where the state of the nowcasts is in a state dict."""

from typing import Any

import torch

from ..core.errors import CheckpointError

_KEY = "nowcast"
_STATE_KEYS = ("steps", "events", "times", "history", "layout", "averages", "lead")


def with_nowcast_state(base_state: dict[str, Any], nowcast: dict[str, Any]) -> dict[str, Any]:
    """The state of a base optimizer with that of the nowcasts: beside it, and in the first parameter group.

    `torch.distributed.checkpoint` keeps only `state` and `param_groups`. It splits lists and dicts into entries, which
    a new optimizer would not have; a tuple is one entry.
    """
    first, *others = base_state["param_groups"]
    return {**base_state, "param_groups": [{**first, _KEY: (nowcast,)}, *others], _KEY: nowcast}


def split_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of the base optimizer, and that of the nowcasts.

    Raises:
        CheckpointError: one of them is missing, or the second is incomplete.
    """
    groups = state.get("param_groups") or [{}]
    nowcast = state.get(_KEY, *groups[0].get(_KEY, ()))
    if nowcast is None:
        raise CheckpointError(
            "this is not a state of Nowcast; expected the result of Nowcast.state_dict(). To load the state of a base "
            "optimizer, call optimizer.base.load_state_dict(state); the history then starts empty"
        )
    if missing := [name for name in _STATE_KEYS if name not in nowcast]:
        raise CheckpointError(
            f"this optimizer state has no {', '.join(missing)}: another version of metaopt wrote it, or it is damaged. "
            "Call optimizer.base.load_state_dict(state) to load the rest; the history then starts empty"
        )
    plain = [{name: value for name, value in group.items() if name != _KEY} for group in groups]
    base_state = {name: value for name, value in state.items() if name != _KEY}
    return {**base_state, "param_groups": plain}, nowcast


def is_initialisation(base: torch.optim.Optimizer) -> bool:
    """Whether the next step is no training step: the learning rate and all gradients are zero, and there is no state.

    `torch.distributed.checkpoint` takes such a step before it saves or loads, so that the base optimizer creates its
    state. One without a state, such as SGD without momentum, gets it each time.
    """
    if base.state or any(bool(group.get("lr", 1)) for group in base.param_groups):
        return False
    found = [parameter.grad for group in base.param_groups for parameter in group["params"]]
    gradients = [gradient for gradient in found if gradient is not None]
    return bool(gradients) and not any(bool(gradient.any()) for gradient in gradients)
