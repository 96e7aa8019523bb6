"""Inner problems: the loss of a target network on a task as a function of its flat weights."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_

from ..adapters.lora import insert_adapters
from ..core.config import untrusted_code
from ..core.devices import CPU
from ..core.errors import InvalidConfig, MetaoptError, TrajectoryError, UntrustedCode
from ..core.rng import isolated
from ..growth.growth_seed import grow, is_alpha
from ..nested.carried_memory import carries_memories
from ..nested.levels import has_slow_levels
from ..recording.functional import network_losses
from ..targets import get_target_model, names_code
from ..tasks import Batch, Split, Task, load_task
from ..tasks.measure import check_network
from ..trajectories import Trajectory
from ..trajectories.recorder import SNAPSHOT
from ..weights.building import build_on_meta
from ..weights.facts import TARGET_RUN, first_violation
from ..weights.files import digest_of, read_listed
from ..weights.layout import Layout


class InnerProblem:
    """The losses of many weight vectors of one target network on one task.

        import torch
        from metaopt import Trajectory
        from metaopt.core.rng import generator
        from metaopt.metatraining.problem import InnerProblem

        trajectory = Trajectory.open("trajectories/digits/seed_0")
        problem = InnerProblem.from_trajectory(trajectory)
        weights = torch.stack([trajectory.weights(0), trajectory.weights(-1)])
        losses = problem.losses(weights, problem.sample("meta", 128, generator(0)))  # one per weight vector

    The network runs in evaluation mode. BatchNorm uses the statistics of the batch: running statistics belong to
    recorded weights, not to generated ones.

    Args:
        task: data and loss.
        target_model: name of the network.
        target_config: full configuration of the network.
        constant: weights and buffers that all weight vectors share, by name.
        device: device of the weight vectors, to which examples are moved.
        growth: growth seeds of the network.
        adapter: its adapters, as `insert_adapters` takes them; None for none.
    Raises:
        UnknownName, InvalidConfig: the network is unknown, its configuration is invalid, or it does not fit the task.
    """

    def __init__(
        self,
        task: Task,
        target_model: str,
        target_config: Mapping[str, Any],
        constant: Mapping[str, Tensor] | None = None,
        device: torch.device = CPU,
        growth: Sequence[Mapping[str, Any]] = (),
        adapter: Mapping[str, Any] | None = None,
    ) -> None:
        self.task = task
        self.device = device
        self._build = partial(_build, target_model, target_config, growth, adapter)
        self._model = self._build().to(device)
        constant = {name: tensor.to(device) for name, tensor in (constant or {}).items()}
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(name not in constant)
        self.layout = Layout.of(self._model)
        replace_all_batch_norm_modules_(self._model)
        self._model.eval()
        kept = self._model.state_dict()
        self._constant = {name: value for name, value in constant.items() if name in kept}
        check_network(self._model, task)

    @classmethod
    def from_trajectory(
        cls,
        trajectory: Trajectory,
        data_dir: Path | None = None,
        *,
        trusted: bool = False,
        trusted_names: Collection[str] = (),
        device: torch.device = CPU,
        advice: str = "The objective `weights` needs neither task nor target",
    ) -> Self:
        """Rebuild the problem of a trajectory from the facts in its snapshots.

        Args:
            data_dir: folder of the task's data, if it has moved since the trajectory was recorded.
            trusted: whether to import any network that the trajectory names by a dotted path.
            trusted_names: dotted paths that may be imported in any case, because the user gave them.
            device: device of the weight vectors.
            advice: what else to do, at the end of messages.
        Raises:
            UntrustedCode: the trajectory names such a network, and the user does not trust it.
            TrajectoryError: the snapshots lack a fact of the problem.
            UnknownName, LayoutMismatch: the task or the network is unknown here, or its weights have other shapes.
            TaskDataError: the task's data is missing.
        """
        run = trajectory.run
        try:
            if violation := first_violation(run, TARGET_RUN):
                raise TrajectoryError(f"the facts of the run do not describe it: {violation}")
            if names_code(run["target_model"]) and not (trusted or run["target_model"] in trusted_names):
                raise untrusted_code(trajectory.folder, "target_model", run["target_model"])
            constant = {**trajectory.frozen(), **fixed_buffers(trajectory), **_alphas(trajectory)}
            _check_size(trajectory, constant)
            task = load_task(run["task"], **recorded_task_config(run, data_dir))
            growth, adapter = trajectory.growth, run.get("adapter")
            problem = cls(task, run["target_model"], run["target_config"], constant, device, growth, adapter)
            trajectory.layout.check_model(problem._model)
            return problem
        except UntrustedCode:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            kind = type(error) if isinstance(error, MetaoptError) else TrajectoryError  # a file can state anything
            raise kind(f"cannot measure the loss of networks like {trajectory.folder}: {error}. {advice}") from error

    def check_inner_trainings(self) -> None:
        """Check that inner trainings train the network as other trainings do.

        Raises:
            InvalidConfig: it has levels that are not updated at each step, or carries memories from batch to batch.
        """
        name = type(self._model).__name__
        if has_slow_levels(self._model):
            raise InvalidConfig(
                f"{name} has levels with periods above 1, but live rounds update all weights at each step. Set the "
                "periods to 1, for Hope with target_options: {periods: [1]}, or train without rounds"
            )
        if carries_memories(self._model):
            raise InvalidConfig(f"{name} carries memories, which live rounds do not; set carry_memory to false")

    def network(self) -> nn.Module:
        """A new network of this problem on the CPU, with random weights and its own buffers."""
        return self._build()

    def initial_weights(self, seed: int) -> Float[Tensor, " weights"]:
        """The initial weights of a random seed, equal on all devices; torch's generator keeps its state."""
        with isolated(seed):
            return self.layout.flatten(dict(self._build().named_parameters())).to(self.device)

    def sample(self, split: Split, size: int, random: torch.Generator) -> Batch:
        """A random batch of a split of the task, on the device."""
        return self.task.sample(split, size, random).to(self.device)

    def losses(self, weights: Float[Tensor, "batch weights"], examples: Batch) -> Float[Tensor, " batch"]:
        """The loss of each network on the same examples, differentiable in the weights."""
        return self._losses(weights, self.task.loss, examples, shared_batch=True)

    def losses_each(self, weights: Float[Tensor, "batch weights"], examples: Batch) -> Float[Tensor, " batch"]:
        """The loss of each network on its own examples, which are stacked; differentiable in the weights."""
        return self._losses(weights, self.task.loss, examples, shared_batch=False)

    @torch.no_grad()
    def example_losses(
        self, weights: Float[Tensor, "batch weights"], examples: Batch
    ) -> Float[Tensor, "batch examples"]:
        """The loss of each network on each of the same examples, as a guard measures it."""
        return self._losses(weights, self.task.losses, examples, shared_batch=True)

    def _losses(
        self, weights: Tensor, loss: Callable[[Tensor, Tensor], Tensor], examples: Batch, *, shared_batch: bool
    ) -> Tensor:
        named = self.layout.unflatten(weights)
        return network_losses(self._model, named, loss, examples, constant=self._constant, shared_batch=shared_batch)


def problem_key(trajectory: Trajectory) -> str:
    """A key that is equal for trajectories of one inner problem: pairs of these can share a batch.

    The problem includes the task, the target, the constant weights and the layout.
    """
    run = trajectory.run
    return repr(
        [run.get(name) for name in ("task", "task_config", "target_model", "target_config", "adapter")]
        + [trajectory.frozen_digest, digest_of(fixed_buffers(trajectory), {})]
        + trajectory.layout.to_list()
        + trajectory.growth
    )


def fixed_buffers(trajectory: Trajectory) -> dict[str, Tensor]:
    """The buffers that training did not change, such as random features, by name."""
    first, last = trajectory.buffers(0), trajectory.buffers(-1)
    return {name: value for name, value in first.items() if torch.equal(value, last[name])}


def _alphas(trajectory: Trajectory) -> dict[str, Tensor]:
    """α of each growth seed at the last snapshot: it may rise in between, but a problem has one network."""
    return {name: value for name, value in trajectory.buffers(-1).items() if is_alpha(name)}


def _build(
    target_model: str,
    target_config: Mapping[str, Any],
    growth: Sequence[Mapping[str, Any]],
    adapter: Mapping[str, Any] | None,
) -> nn.Module:
    model = grow(get_target_model(target_model, **target_config), growth)
    return model if adapter is None else insert_adapters(model, adapter)


def _check_size(trajectory: Trajectory, constant: Mapping[str, Tensor]) -> None:
    """Build the network of a trajectory without memory, and compare its weights before it is built.

    Raises:
        LayoutMismatch: it has other weights than the snapshots.
    """
    run = trajectory.run
    listed, _ = read_listed(trajectory.snapshots[0].path, SNAPSHOT)
    build = partial(_build, run["target_model"], run["target_config"], trajectory.growth, run.get("adapter"))
    network = build_on_meta(build, {**listed, **constant})
    if network is not None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in constant)
        trajectory.layout.check_model(network)


def recorded_task_config(run: Mapping[str, Any], data_dir: Path | None = None) -> dict[str, Any]:
    """The configuration of the task that the facts of a run state, for `load_task`; nothing is downloaded.

    Args:
        data_dir: folder of the task's data, if it has moved.
    """
    config = dict(run["task_config"])
    if data_dir is not None and "data_dir" in config:
        config["data_dir"] = data_dir
    elif "download" in config:
        config["download"] = False  # the file states the folder, and a file does not decide where something is written
    return config
