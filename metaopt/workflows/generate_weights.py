"""Generation: predicts future weights from a recorded trajectory and writes them to a file."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..adapters.budget import within_budget
from ..core.config import option
from ..core.devices import ComputeConfig, find_device, move, threads_for
from ..core.errors import InvalidConfig
from ..generative import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..generative.sources import source_with_parents
from ..metatraining.trained import recorded_network
from ..tracking import RunReference, start_run
from ..trajectories import Trajectory
from ..trajectories.origin import Parent
from ..trajectories.parents import made_from, trajectory_parent
from ..weights.files import files_of, write_tensors
from ..weights.layout import is_finite
from .model_names import CHAMPION_OF_CASE, champion_uri
from .output_file import check_output

log = logging.getLogger(__name__)


class GenerateConfig(ComputeConfig):
    """Settings of a generation: the optimizer, the trajectory, the times and the output file."""

    optimizer: str = option(
        default="champion",
        help="Optimizer to use: `champion` of the trajectory's task and network, `builtin`, a model URI, a run ID or a "
        "file.",
    )
    trajectory: Path = option(default=Path("trajectories/target/seed_0"), help="Folder of the trajectory to continue.")
    t_start: int | None = option(
        default=None, help="Snapshot to start from [steps]; the last one by default.", at_least=0
    )
    t_end: float | None = option(
        default=None,
        help="Time of the generated weights [steps]; the time of the next snapshot by default.",
        at_least=0.0,
    )
    output: Path = option(default=Path("next.safetensors"), help="File of the generated weights.", changes_result=False)
    overwrite: bool = option(default=False, help="Replace an existing file.", changes_result=False)


class GeneratedFile(NamedTuple):
    """The file of generated weights, the time of its snapshot and the time of its weights [optimizer steps]."""

    path: Path
    t_start: float
    t_end: float


class GeneratedWeights(NamedTuple):
    """Result of a generation: the file, and the MLflow run that has a copy."""

    run: RunReference
    file: GeneratedFile

    @property
    def summary(self) -> str:
        """Both times, as a phrase."""
        return f"weights for step {self.file.t_end:g}, from step {self.file.t_start:g}"


def generate(config: GenerateConfig) -> GeneratedWeights:
    """Predict the weights at a later step of a recorded trajectory and write them to a file.

        from metaopt import workflows

        config = workflows.GenerateConfig(optimizer="builtin", trajectory="trajectories/digits/seed_0", t_end=60)
        generated = workflows.generate(config)
        print(generated.summary, generated.file.path)

    Raises:
        MetaoptError: as for `load_optimizer` and `generate_file`; or the tracking store cannot be used.
    """
    config = replace(config, optimizer=optimizer_of_case(config.optimizer, config.trajectory))
    source, parents = source_with_parents(config.optimizer)
    optimizer = load_optimizer(source)
    purpose = f"Generates future weights from {config.trajectory} with {config.optimizer}."
    tags = {"metaopt.phase": "generation"}
    predicted = predict_weights(config, optimizer, parents)
    with start_run(f"generate {config.output.name}", config, tags=tags, description=purpose) as tracker:
        generated = GeneratedWeights(tracker.reference, predicted.write())
        tracker.files(files_of(generated.file.path), "weights")
        tracker.describe(result=f"{generated.summary}.")
    return generated


def optimizer_of_case(optimizer: str, trajectory: Path) -> str:
    """The name of an optimizer; for `champion` the URI of the champion of the trajectory's task and network.

    Raises:
        TrackingError: there is no champion.
        TrajectoryError: the trajectory is missing or empty.
    """
    if optimizer != CHAMPION_OF_CASE:
        return optimizer
    run = Trajectory.open(trajectory).run
    return champion_uri(str(run.get("task")), recorded_network(run))


def generate_file(config: GenerateConfig, optimizer: GenerativeOptimizer) -> GeneratedFile:
    """Write the weights that an optimizer predicts for `t_end`, with the frozen weights and buffers of the snapshot.

    `load_model_weights` loads the file into the target.

    Raises:
        TrajectoryError, FileFormatError: the trajectory is missing, empty or damaged.
        InvalidConfig: no such device, no snapshot at `t_start`, a `t_end` before it, predicted weights that are not
            finite, or a file that exists.
        StorageError: the file could not be written.
    """
    return predict_weights(config, optimizer).write()


class PredictedWeights(NamedTuple):
    """Weights that are not written yet: the tensors and the facts of their file, and its description."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    file: GeneratedFile

    def write(self) -> GeneratedFile:
        """Write the file.

        Raises:
            StorageError: the file could not be written.
        """
        write_tensors(self.file.path, self.tensors, "weights", self.facts)
        return self.file


def predict_weights(
    config: GenerateConfig, optimizer: GenerativeOptimizer, parents: Sequence[Parent] = ()
) -> PredictedWeights:
    """Predict the weights of `generate_file`, which raises the same errors, before anything is written.

    Args:
        parents: the optimizer as a parent, for the origin of what is trained from the weights.
    """
    device = find_device(config.device)
    trajectory = Trajectory.open(config.trajectory)
    index = snapshot_at(trajectory, config.t_start)
    t_start = float(trajectory.steps[index])
    t_end = _next_time(trajectory, index) if config.t_end is None else config.t_end
    if t_end < t_start:
        raise InvalidConfig(f"t_end is {t_end:g}, before the snapshot at step {t_start:g}; give {t_start:g} or more")
    check_output(config.output, config.overwrite)
    warn_of_averaging(trajectory, optimizer)
    with threads_for(trajectory.segment(index).layout.size, config.threads):
        tensors = predict_at(trajectory, index, t_end, optimizer, device)
    facts = {"generated_by": type(optimizer).__name__, "t_start": t_start, "t_end": t_end, "run": trajectory.run}
    if growth := trajectory.segment(index).growth:
        facts["growth"] = growth
    facts |= made_from([trajectory_parent(trajectory), *parents])
    whole = {**trajectory.frozen(), **trajectory.buffers(index), **tensors}
    return PredictedWeights(whole, facts, GeneratedFile(config.output, t_start, t_end))


def warn_of_averaging(trajectory: Trajectory, optimizer: GenerativeOptimizer) -> None:
    """Log a warning if an optimizer was trained on other averages of weights than a trajectory has."""
    if trajectory.averaging != optimizer.averaging:
        log.warning(
            "the trajectory has averaging %g, but %s was trained with averaging %g (0: no average): predictions may be "
            "inaccurate",
            trajectory.averaging,
            type(optimizer).__name__,
            optimizer.averaging,
        )


def predict_at(
    trajectory: Trajectory, index: int, t_end: float, optimizer: GenerativeOptimizer, device: torch.device
) -> dict[str, Tensor]:
    """The weights that an optimizer predicts for `t_end` from a snapshot, by name, in the dtypes of the network.

    Adapters stay within their delta budget, as they do after a nowcast.

    Raises:
        InvalidConfig: they are not finite.
    """
    segment = trajectory.segment(index)
    indices = range(max(segment.start, index + 1 - optimizer.history), index + 1)
    history = torch.stack([trajectory.weights(each) for each in indices])[None]
    times = torch.tensor([[float(trajectory.steps[each]) for each in indices]])
    history, times, end = (move(each, device) for each in (history, times, torch.tensor([t_end])))
    weights = optimizer.to(device).predict(history, times, end, segment.layout)[0].cpu()
    if not is_finite(weights):
        raise InvalidConfig(
            f"the weights that {type(optimizer).__name__} predicts for t_end {t_end:g} are not finite; give a t_end "
            f"nearer to the snapshot at step {trajectory.steps[index]}, or another optimizer"
        )
    named = segment.layout.unflatten(weights)
    predicted = {each.name: named[each.name].to(getattr(torch, each.dtype)) for each in segment.layout.tensors}
    if "delta_budget" not in trajectory.run:
        return predicted
    limited = within_budget({**trajectory.frozen(), **predicted}, trajectory.run)
    return {name: limited[name] for name in predicted}


def _next_time(trajectory: Trajectory, index: int) -> float:
    """The time of the next snapshot if its distance is that of the previous one."""
    steps = trajectory.steps
    return float(2 * steps[index] - steps[index - 1] if index else steps[index])


def snapshot_at(trajectory: Trajectory, step: int | None) -> int:
    """The index of the snapshot of a step; of the last one for None.

    Raises:
        InvalidConfig: there is none at that step; the message has the nearest ones.
    """
    if step is None:
        return len(trajectory) - 1
    if step not in trajectory.steps:
        near = sorted(sorted(trajectory.steps, key=lambda other: abs(other - step))[:3])
        raise InvalidConfig(f"no snapshot at step {step} in {trajectory.folder}; the nearest are at {near}")
    return trajectory.steps.index(step)
