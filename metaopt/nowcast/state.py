"""What has happened in a training so far, and where the state of the nowcasts is in a state dict."""

from typing import Any

from ..core.errors import CheckpointError
from .budget import TimeBudget
from .costs import NowcastCost
from .policy import NowcastEvent

_KEY = "nowcast"
_STATE_KEYS = ("steps", "events", "times", "history", "layout", "averages", "lead")


class Record:
    """What has happened in a training so far.

    Args:
        budget: measures the times of the training.
    Attributes:
        steps: number of steps so far [steps].
        events: the nowcasts so far.
        costs: their times; without a limit, since the training began or was resumed.
        budget: the times of the training.
    """

    def __init__(self, budget: TimeBudget) -> None:
        self.steps, self.budget = 0, budget
        self.events: list[NowcastEvent] = []
        self.costs: list[NowcastCost] = []

    def state_dict(self) -> dict[str, Any]:
        """Steps and nowcasts, as lists and numbers; with a limit also the times."""
        state: dict[str, Any] = {"steps": self.steps, "events": [list(event) for event in self.events]}
        if budget := self.budget.state_dict():
            state["budget"] = {**budget, "costs": [list(cost) for cost in self.costs]}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps = state["steps"]
        self.events = [NowcastEvent(*event) for event in state["events"]]
        budget = state.get("budget", {})
        self.budget.load_state_dict(budget)
        self.costs = [NowcastCost(*cost) for cost in budget.get("costs", [])]


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
