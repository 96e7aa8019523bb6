"""A task and a target network as a function from flat weights to losses."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap

from ..core.errors import InvalidConfig, MetaoptError, TrajectoryError
from ..core.rng import isolated
from ..targets import get_target_model, names_code, vmappable
from ..tasks import Batch, Task, load_task
from ..trajectories import Trajectory
from ..weights.files import digest_of
from ..weights.layout import Layout


class InnerProblem:
    """A task and a target network, for many weight vectors at once.

    Networks run in evaluation mode; BatchNorm takes its statistics from the batch, because the running ones
    belong to the weights that were recorded, not to generated ones.

    Args:
        task: the data and the loss.
        target_model: name of the network.
        target_config: its full configuration.
        constant: weights and buffers that are the same for all weight vectors, by name.
    Raises:
        UnknownName, InvalidConfig: there is no such network.
    """

    def __init__(
        self,
        task: Task,
        target_model: str,
        target_config: Mapping[str, Any],
        constant: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.task = task
        self._build = partial(get_target_model, target_model, **target_config)
        self._model = self._build()
        constant = constant or {}
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name not in constant)
        self.layout = Layout.of(self._model)
        replace_all_batch_norm_modules_(self._model)
        self._model.eval()
        kept = self._model.state_dict()
        self._constant = {name: value for name, value in constant.items() if name in kept}

    @classmethod
    def of(cls, trajectory: Trajectory, data_dir: Path | None = None, *, trust_code: bool = False) -> Self:
        """Rebuild the problem of a trajectory from what its snapshots state.

        Args:
            data_dir: where the task's data lies, if not where it lay when the trajectory was recorded.
            trust_code: whether to import a network that the trajectory names by a dotted path.
        Raises:
            InvalidConfig: it names such a network, and is not trusted.
            TrajectoryError: it names a task or a target that does not exist here, or whose weights differ.
            TaskDataError: the task's data is missing.
        """
        run = trajectory.run
        try:
            if names_code(run["target_model"]) and not trust_code:
                raise InvalidConfig(
                    f"the target {run['target_model']!r} is code outside metaopt, which a file must not start by "
                    "itself. If the trajectory is your own, give --trust-code true"
                )
            task = load_task(run["task"], **_task_config(run, data_dir))
            constant = {**trajectory.frozen(), **fixed_buffers(trajectory)}
            problem = cls(task, run["target_model"], run["target_config"], constant)
            trajectory.layout.check_model(problem._model)
            return problem
        except KeyError as error:
            raise TrajectoryError(
                f"{trajectory.folder} does not state its {error}; use the objective `weights`"
            ) from error
        except MetaoptError as error:
            raise type(error)(
                f"cannot measure the loss of networks like {trajectory.folder}: {error}. The objective `weights` needs "
                "neither task nor target"
            ) from error

    def fresh_weights(self, seed: int) -> Float[Tensor, " weights"]:
        """The weights of a network just built with a random seed; the process keeps its own randomness."""
        with isolated(seed):
            return self.layout.flatten(dict(self._build().named_parameters()))

    def losses(self, weights: Float[Tensor, "batch weights"], examples: Batch) -> Float[Tensor, " batch"]:
        """The loss of each network on the same examples, differentiable in the weights."""
        with vmappable():
            return vmap(self._loss, (0, None, None))(self.layout.unflatten(weights), *examples)

    def losses_each(self, weights: Float[Tensor, "batch weights"], examples: Batch) -> Float[Tensor, " batch"]:
        """The loss of each network on examples of its own: a batch of batches; differentiable in the weights."""
        with vmappable():
            return vmap(self._loss)(self.layout.unflatten(weights), *examples)

    @torch.no_grad()
    def example_losses(
        self, weights: Float[Tensor, "batch weights"], examples: Batch
    ) -> Float[Tensor, "batch examples"]:
        """The loss of each network on each of the same examples, as a guard measures it."""
        with vmappable():
            return vmap(self._example_losses, (0, None, None))(self.layout.unflatten(weights), *examples)

    def _loss(self, named: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return self.task.loss(self._outputs(named, inputs), labels)

    def _example_losses(self, named: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return self.task.losses(self._outputs(named, inputs), labels)

    def _outputs(self, named: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._model, {**self._constant, **named}, (inputs,))
        return outputs


def problem_key(trajectory: Trajectory) -> str:
    """Equal for trajectories of the same task, target, constant weights and layout: their pairs can share a batch."""
    run = trajectory.run
    return repr(
        [run.get(name) for name in ("task", "task_config", "target_model", "target_config")]
        + [trajectory.frozen_digest, digest_of(fixed_buffers(trajectory), {})]
        + trajectory.layout.to_list()
    )


def fixed_buffers(trajectory: Trajectory) -> dict[str, Tensor]:
    """The buffers that training did not change, such as random features; statistics of BatchNorm are none of them."""
    first, last = trajectory.buffers(0), trajectory.buffers(-1)
    return {name: value for name, value in first.items() if torch.equal(value, last[name])}


def _task_config(run: Mapping[str, Any], data_dir: Path | None) -> dict[str, Any]:
    config = dict(run["task_config"])
    if data_dir is not None and "data_dir" in config:
        config["data_dir"] = data_dir
    return config
