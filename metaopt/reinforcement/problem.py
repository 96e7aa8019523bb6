"""What a controller is trained for: a task, a network, its base optimizer, and the actions that its taps allow."""

from typing import Any

import torch

from ..core.devices import CPU
from ..core.rng import isolated
from ..growth.driver import Driver
from ..growth.loading import driver_for
from ..optimizers import optimizer_for
from ..targets import get_target_model, target_config
from ..tasks.measure import check_network
from ..weights.building import check_memory
from .config import EpisodeConfig
from .rewards import Reward, SpecReward, TwinReward


class Problem:
    """What all episodes of a configuration share.

        from metaopt.reinforcement.config import EpisodeConfig
        from metaopt.reinforcement.problem import Problem

        problem = Problem(EpisodeConfig(task="digits", steps=100))
        [action.name for action in problem.actions]  # ["WAIT", "GERMINATE_ATTENTION", …, "ADVANCE", "CULL"]

    Args:
        config: the settings.
        device: the device of the networks.
    Attributes:
        actions: what a controller can do.
        weights: weights of the network before it grows [count].
        facts: all that determines an episode apart from its random seed and its actions, as JSON values.
        parents: the generative optimizer that a controller may call, for the origin of what is trained here.
    Raises:
        UnknownName, InvalidConfig: the configuration has an unknown name, or a network that cannot grow.
        TaskDataError: the data of the task is missing.
    """

    def __init__(self, config: EpisodeConfig, device: torch.device = CPU) -> None:
        self.config, self.device, self.task = config, device, config.load_task()
        self._network = target_config(config.target_model, self.task.model_facts, config.target_options)
        check_memory(lambda: get_target_model(config.target_model, **self._network), config.target_options, copies=2)
        driver = self.start(random_seed=0)
        check_network(driver.growth.model, self.task)
        self.actions, self.weights = driver.actions, driver.growth.host_weights
        self.parents = driver.parents
        self.facts: dict[str, Any] = {
            "task": config.task,
            "task_config": config.task_settings,
            "data": self.task.digest(),
            "target_model": config.target_model,
            "target_config": self._network,
            "base_optimizer": config.base_optimizer,
            "base_optimizer_options": dict(config.base_optimizer_options),
            "lr": config.lr,
            "batch_size": config.batch_size,
            "steps": config.steps,
            "growth": config.growth.to_mapping(),
            "actions": [action.name for action in self.actions],
        }

    def start(self, random_seed: int, controller: str = "wait") -> Driver:
        """A network with random initial weights, its optimizer and its empty slots, as phase 1 makes them.

        Args:
            controller: what a `Driver` asks; an `Episode` asks nothing but its `act`.
        """
        config = self.config
        with isolated(random_seed):
            model = get_target_model(config.target_model, **self._network).to(self.device)
        optimizer = optimizer_for(model, config.base_optimizer, config.lr, config.base_optimizer_options)
        return driver_for(
            model, optimizer, self.task, controller, config.growth.to_mapping(), random_seed, config.steps
        )

    def reward(self, sigma: float) -> Reward:
        """The reward of the configuration.

        Args:
            sigma: typical change of the loss from one decision to the next.
        """
        if self.config.reward == "twin":
            return TwinReward(sigma, self.config.rent)
        described = self.task.describe()
        return SpecReward(sigma, described.baseline_loss, described.target_loss)
