"""What a recorded trajectory was trained on, rebuilt as a function from flat weights to losses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap

from ..errors import InvalidConfig, MetaoptError, TrajectoryError
from ..targets import get_target_model, names_code, vmappable
from ..tasks import Batch, Task, get_task
from ..trajectories import Trajectory
from ..weights.files import digest_of
from ..weights.layout import Layout


class InnerProblem:
    """The task and the target of a trajectory, for many weight vectors at once.

    Networks run in evaluation mode; BatchNorm takes its statistics from the batch, because the running ones
    belong to the weights that were recorded, not to generated ones.
    """

    def __init__(self, trajectory: Trajectory, data_dir: Path | None = None, *, trust_code: bool = False) -> None:
        """Rebuild from what the snapshots state.

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
            self.task: Task = get_task(run["task"], **_task_config(run, data_dir))
            self._model = get_target_model(run["target_model"], **run["target_config"])
            self._frozen = trajectory.frozen()
            for name, parameter in self._model.named_parameters():
                parameter.requires_grad_(name not in self._frozen)
            self.layout: Layout = trajectory.layout
            self.layout.check_model(self._model)
        except KeyError as error:
            raise TrajectoryError(
                f"{trajectory.folder} does not state its {error}; use the objective `weights`"
            ) from error
        except MetaoptError as error:
            raise type(error)(
                f"cannot measure the loss of networks like {trajectory.folder}: {error}. The objective `weights` needs "
                "neither task nor target"
            ) from error
        replace_all_batch_norm_modules_(self._model)
        self._model.eval()
        kept = dict(self._model.named_buffers())
        self._constant = {**self._frozen, **{n: b for n, b in fixed_buffers(trajectory).items() if n in kept}}

    def losses(self, weights: Float[Tensor, "batch weights"], examples: Batch) -> Float[Tensor, " batch"]:
        """The loss of each network on the same examples, differentiable in the weights."""

        def loss(named: dict[str, Tensor]) -> Tensor:
            outputs = functional_call(self._model, {**self._constant, **named}, (examples.inputs,))
            return self.task.loss(outputs, examples.labels)

        with vmappable():
            return vmap(loss)(self.layout.unflatten(weights))


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
