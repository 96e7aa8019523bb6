"""Next-step weights from files to a file: a recorded history in, a loadable network out."""

from pathlib import Path
from typing import NamedTuple

import torch

from .configuration import Config, option
from .errors import InvalidConfig
from .optimizers import GenerativeOptimizer
from .trajectories import Trajectory
from .weights.files import write_tensors


class GenerateConfig(Config):
    """What to generate from, for when, and where to put it."""

    optimizer: str = option(
        default="models:/metaopt-perceiver@champion", help="Optimizer to use: a model URI, a run ID or a file."
    )
    trajectory: Path = option(
        default=Path("trajectories/target/seed_0"), help="Folder of the trajectory to go on from."
    )
    t_start: int | None = option(
        default=None, help="Snapshot to go on from [steps]; the last one where not given.", at_least=0
    )
    t_end: float = option(
        default=0.0, help="Time to generate the weights for [steps]; not before t_start.", at_least=0.0
    )
    output: Path = option(default=Path("next.safetensors"), help="File for the generated weights.")
    overwrite: bool = option(default=False, help="Replace the file where it exists.")


class Generated(NamedTuple):
    """Where the weights are, and the times they were generated from and for [optimizer steps]."""

    path: Path
    t_start: float
    t_end: float


def generate(config: GenerateConfig, optimizer: GenerativeOptimizer) -> Generated:
    """Write the weights that an optimizer generates for `t_end`, with the frozen weights and buffers of the snapshot.

    The file loads into the target with `load_model_weights`.

    Raises:
        TrajectoryError, FileFormatError: the trajectory is missing, empty or damaged.
        InvalidConfig: no snapshot at `t_start`, `t_end` lies before it, or the file exists.
        StorageError: the file could not be written.
    """
    trajectory = Trajectory.open(config.trajectory)
    index = _snapshot_at(trajectory, config.t_start)
    t_start = trajectory.steps[index]
    if config.t_end < t_start:
        raise InvalidConfig(f"t_end is {config.t_end:g}, before the snapshot at step {t_start}; give {t_start} or more")
    if config.output.exists() and not config.overwrite:
        raise InvalidConfig(f"{config.output} exists; choose another --output, or give --overwrite to replace it")
    segment = trajectory.segment(index)
    indices = range(max(segment.start, index + 1 - optimizer.history), index + 1)
    weights = optimizer.predict(
        torch.stack([trajectory.weights(past) for past in indices])[None],
        torch.tensor([[float(trajectory.steps[past]) for past in indices]]),
        torch.tensor([config.t_end]),
        segment.layout,
    )[0]
    named = segment.layout.unflatten(weights)
    tensors = {each.name: named[each.name].to(getattr(torch, each.dtype)) for each in segment.layout.tensors}
    facts = {"generated_by": type(optimizer).__name__, "t_start": t_start, "t_end": config.t_end, "run": trajectory.run}
    write_tensors(config.output, {**trajectory.frozen(), **trajectory.buffers(index), **tensors}, "weights", facts)
    return Generated(config.output, float(t_start), config.t_end)


def _snapshot_at(trajectory: Trajectory, step: int | None) -> int:
    if step is None:
        return len(trajectory) - 1
    if step not in trajectory.steps:
        near = sorted(sorted(trajectory.steps, key=lambda other: abs(other - step))[:3])
        raise InvalidConfig(f"no snapshot at step {step} in {trajectory.folder}; the nearest are at {near}")
    return trajectory.steps.index(step)
