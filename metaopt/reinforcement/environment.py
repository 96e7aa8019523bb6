"""The environment of reinforcement learning: an episode is one training, a step of it is one decision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.dependencies import import_extra
from ..core.devices import find_device
from ..core.errors import InvalidConfig
from ..core.text import shown
from ..growth.observation import BOUND, NAMES
from .config import EpisodeConfig
from .problem import Problem
from .scored_episode import ScoredEpisode
from .twins import Twins

gymnasium = import_extra("gymnasium", "growth")
_Env: Any = gymnasium.Env

ENVIRONMENT = "metaopt/Growth-v0"
"""Name for `gymnasium.make` and `gymnasium.make_vec`, whose argument is `config`; import this module first."""


class GrowthEnv(_Env):
    """An environment of gymnasium in which a network is trained, and grows as it is told.

        from metaopt.reinforcement.config import EpisodeConfig
        from metaopt.reinforcement.environment import GrowthEnv

        env = GrowthEnv.of(EpisodeConfig(task="digits", steps=100))  # or gymnasium.make("metaopt/Growth-v0", config=…)
        observation, info = env.reset(seed=0)
        observation, reward, is_over, _, info = env.step(1)  # GERMINATE_ATTENTION

    The observation is the 23 numbers of `metaopt.growth.observation.NAMES`. An episode has `config.decisions` decisions
    and ends with the training; it is never truncated. `action_masks` gives the actions that the life cycle allows; any
    other counts as WAIT, since not everything that plays an environment knows masks.

    Args:
        problem: what is trained.
        twins: losses of runs without growth; environments of one problem share them.
    """

    metadata: Mapping[str, Any] = {"render_modes": []}
    render_mode = None

    def __init__(self, problem: Problem, twins: Twins) -> None:
        self.problem, self._twins = problem, twins
        self.observation_space = gymnasium.spaces.Box(-BOUND, BOUND, (len(NAMES),), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(problem.actions))
        self._episode: ScoredEpisode | None = None

    @classmethod
    def of(cls, config: EpisodeConfig | None = None, twin_dir: Path | None = None, device: str = "cpu") -> "GrowthEnv":
        """The environment of a configuration.

        Args:
            config: the settings; by default a small network on digits.
            twin_dir: folder that keeps the losses of runs without growth.
            device: device of the networks, such as "cuda"; "auto" is the accelerator if there is one.
        Raises:
            UnknownName, InvalidConfig: the configuration has an unknown name, or a network that cannot grow; or this
                machine has no such device.
            TaskDataError: the data of the task is missing.
        """
        problem = Problem(config or EpisodeConfig(), find_device(device))
        return cls(problem, Twins(problem, twin_dir))

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: random seed of the choice of this and the next episodes among `config.training_seeds`.
            options: `{"random_seed": n}` chooses the random seed of the training itself.
        Returns: the first observation, after one interval of training, and `info`, which has that random seed.
        """
        super().reset(seed=seed)
        seeds = self.problem.config.training_seeds
        random_seed = int((options or {}).get("random_seed", seeds[int(self.np_random.integers(len(seeds)))]))
        self._episode = ScoredEpisode(self.problem, self._twins, random_seed)
        return self._observation(), {"random_seed": random_seed}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Perform an action, and train up to the next decision.

        Returns: observation, reward, whether the episode is over, False, and `info`: `info["action"]` is the name of
            what was done, and at the end `info["result"]` a `Result`.
        Raises:
            InvalidConfig: there is no episode, or it is over; or there is no such action.
        """
        episode, count = self._running(), len(self.problem.actions)
        if action not in range(count):
            raise InvalidConfig(f"the action is {shown(action)}; expected an index from 0 to {count - 1}")
        done = int(action) if episode.allowed[int(action)] else 0
        reward = episode.act(done)
        info: dict[str, Any] = {"action": self.problem.actions[done].name}
        if episode.is_over:
            info["result"] = episode.result
        return self._observation(), reward, episode.is_over, False, info

    def action_masks(self) -> np.ndarray:
        """Which actions the life cycle allows now [actions]; sb3-contrib asks for it by this name."""
        return np.array(self._running().allowed)

    def _observation(self) -> np.ndarray:
        return np.array(self._running().observation(), dtype=np.float32)

    def _running(self) -> ScoredEpisode:
        if self._episode is None:
            raise InvalidConfig("the environment has no episode; call reset first")
        return self._episode


gymnasium.register(ENVIRONMENT, entry_point=GrowthEnv.of)
