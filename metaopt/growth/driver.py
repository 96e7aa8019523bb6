"""The driver of a growing network: measures at each decision, asks the controller, and performs its action."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.clock import fires
from ..core.errors import CheckpointError, InvalidConfig
from ..trajectories.origin import Parent
from .actions import Action, mask, perform
from .controllers import Controller
from .growth import Growth
from .history import Event, GrowthHistory
from .observation import observe

log = logging.getLogger(__name__)


class Driver:
    """Lets a controller decide about the growth of a network, every `interval` steps.

    Args:
        growth: the growth seeds of the network.
        controller: what decides.
        actions: all actions, as the controller knows them.
        total_steps: steps of the whole training [steps].
        parents: the policy and the generative optimizer that are used, for the origin of the result.
    """

    def __init__(
        self,
        growth: Growth,
        controller: Controller,
        actions: Sequence[Action],
        total_steps: int,
        parents: Sequence[Parent] = (),
    ) -> None:
        self.parents = tuple(parents)
        self.growth, self.controller, self.actions, self.total_steps = growth, controller, list(actions), total_steps
        self.decisions: list[tuple[int, str]] = []
        """Step and name of each action that was no WAIT."""
        self._sum, self._count = 0.0, 0
        self._warned = set[str]()

    def start(self) -> None:
        """Measure the loss before the first step."""
        self.growth.measure()

    def after_step(self, step: int, loss: float, sigma: float) -> list[Event]:
        """Note a step of training, and decide if it is time.

        Args:
            step: steps so far [steps].
            loss: the loss before the step.
            sigma: typical change of the loss, see `observe`.
        Returns: what changed.
        """
        known = len(self.growth.events)
        self.growth.after_step(step, loss)
        self._sum, self._count = self._sum + loss, self._count + 1
        if fires(step, self.growth.config.interval):
            self.growth.measure()
            self._act(self._decide(self.observation(sigma)))
            self._sum, self._count = 0.0, 0
        return self.growth.events[known:]

    def observation(self, sigma: float) -> list[float]:
        """What the controller sees now."""
        train_loss = self._sum / self._count if self._count else self.growth.losses[-1]
        return observe(self.growth, self.total_steps, train_loss, sigma)

    @property
    def history(self) -> GrowthHistory:
        """What happened so far."""
        growth = self.growth
        return GrowthHistory(
            growth.config,
            growth.host_weights,
            growth.measurements,
            growth.events,
            growth.refusals,
            self.decisions,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, beside the states of the network and of the optimizer."""
        return {
            "growth": self.growth.state_dict(),
            "decisions": [[*decision] for decision in self.decisions],
            "sum": self._sum,
            "count": self._count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state in a network that has not grown; load the states of network and optimizer afterwards.

        Raises:
            CheckpointError: the state is of another network or other settings.
        """
        try:
            self.growth.load_state_dict(state["growth"])
            self.decisions = [(int(step), str(name)) for step, name in state["decisions"]]
            self._sum, self._count = float(state["sum"]), int(state["count"])
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"no state of a growing network: {error}") from error

    def _decide(self, observation: Sequence[float]) -> Action:
        """The action of the controller; WAIT if it fails: a controller never ends a training."""
        allowed = mask(self.growth, self.actions)
        try:
            index = self.controller.decide(observation, allowed)
            if index not in range(len(allowed)) or not allowed[index]:
                raise IndexError(f"action {index} is not allowed now")
            return self.actions[index]
        except Exception as error:
            self._warn("the controller", error)
            return self.actions[0]

    def _act(self, action: Action) -> None:
        if action.kind == "wait":
            return
        try:
            perform(self.growth, action)
        except InvalidConfig as error:  # such as a blueprint of another package that does not fit these features
            self._warn(action.name, error)
        else:
            self.decisions.append((self.growth.step, action.name))

    def _warn(self, name: str, error: Exception) -> None:
        """Say once that something fails."""
        if name not in self._warned:
            log.warning("%s fails (%s: %s); the training goes on without it", name, type(error).__name__, error)
            self._warned.add(name)
