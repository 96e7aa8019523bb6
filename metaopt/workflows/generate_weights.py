"""Next-step weights from files to a file: a recorded history in, a loadable network out."""

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.config import Config, option
from ..core.errors import InvalidConfig
from ..generative import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..tracking import RunReference, start_run
from ..trajectories import Trajectory
from ..weights.files import files_of, write_tensors
from ..weights.layout import is_finite

log = logging.getLogger(__name__)


class GenerateConfig(Config):
    """What to generate from, for when, and where to put it."""

    optimizer: str = option(
        default="models:/metaopt-perceiver@champion",
        help="Optimizer to use: `builtin`, a model URI, a run ID or a file.",
    )
    trajectory: Path = option(
        default=Path("trajectories/target/seed_0"), help="Folder of the trajectory to go on from."
    )
    t_start: int | None = option(
        default=None, help="Snapshot to go on from [steps]; the last one where not given.", at_least=0
    )
    t_end: float | None = option(
        default=None,
        help="Time to generate the weights for [steps]; where not given, the time that the next snapshot would have.",
        at_least=0.0,
    )
    output: Path = option(default=Path("next.safetensors"), help="File for the generated weights.")
    overwrite: bool = option(default=False, help="Replace the file where it exists.")


class GeneratedFile(NamedTuple):
    """Where the weights are, and the times they were generated from and for [optimizer steps]."""

    path: Path
    t_start: float
    t_end: float


class GeneratedWeights(NamedTuple):
    """The file that was written, and the MLflow run that keeps a copy."""

    run: RunReference
    file: GeneratedFile

    @property
    def summary(self) -> str:
        """Between which steps."""
        return f"weights for step {self.file.t_end:g}, from step {self.file.t_start:g}"


def generate(config: GenerateConfig) -> GeneratedWeights:
    """Load the optimizer and generate the weights at `t_end` into a file, in an MLflow run.

    Raises:
        MetaoptError: as for `load_optimizer` and `generate_file`; or the tracking store does not answer.
    """
    optimizer = load_optimizer(config.optimizer)
    purpose = f"Generates weights of a later step from {config.trajectory} with {config.optimizer}."
    tags = {"metaopt.phase": "generation"}
    with start_run(f"generate {config.output.name}", config, tags=tags, description=purpose) as tracker:
        generated = GeneratedWeights(tracker.reference, generate_file(config, optimizer))
        tracker.files(files_of(generated.file.path), "weights")
        tracker.note(result=f"{generated.summary}.")
    return generated


def generate_file(config: GenerateConfig, optimizer: GenerativeOptimizer) -> GeneratedFile:
    """Write the weights that an optimizer generates for `t_end`, with the frozen weights and buffers of the snapshot.

    The file loads into the target with `load_model_weights`.

    Raises:
        TrajectoryError, FileFormatError: the trajectory is missing, empty or damaged.
        InvalidConfig: no snapshot at `t_start`, `t_end` lies before it or so far away that weights are not finite,
            or the file exists.
        StorageError: the file could not be written.
    """
    trajectory = Trajectory.open(config.trajectory)
    index = _snapshot_at(trajectory, config.t_start)
    t_start = float(trajectory.steps[index])
    t_end = _next_time(trajectory, index) if config.t_end is None else config.t_end
    if t_end < t_start:
        raise InvalidConfig(f"t_end is {t_end:g}, before the snapshot at step {t_start:g}; give {t_start:g} or more")
    if config.output.exists() and not config.overwrite:
        raise InvalidConfig(f"{config.output} exists; choose another --output, or give --overwrite to replace it")
    if trajectory.averaging != optimizer.averaging:
        log.warning(
            "%s is shown snapshots of averaging %g, and was trained on ones of %g (0: the weights themselves); expect "
            "less of it",
            type(optimizer).__name__,
            trajectory.averaging,
            optimizer.averaging,
        )
    tensors = _predict(trajectory, index, t_end, optimizer)
    facts = {"generated_by": type(optimizer).__name__, "t_start": t_start, "t_end": t_end, "run": trajectory.run}
    write_tensors(config.output, {**trajectory.frozen(), **trajectory.buffers(index), **tensors}, "weights", facts)
    return GeneratedFile(config.output, t_start, t_end)


def _predict(trajectory: Trajectory, index: int, t_end: float, optimizer: GenerativeOptimizer) -> dict[str, Tensor]:
    """The generated weights by name, in the dtypes of the network."""
    segment = trajectory.segment(index)
    indices = range(max(segment.start, index + 1 - optimizer.history), index + 1)
    weights = optimizer.predict(
        torch.stack([trajectory.weights(past) for past in indices])[None],
        torch.tensor([[float(trajectory.steps[past]) for past in indices]]),
        torch.tensor([t_end]),
        segment.layout,
    )[0]
    if not is_finite(weights):
        raise InvalidConfig(
            f"what {type(optimizer).__name__} generates for t_end {t_end:g} is not finite; give a t_end nearer to the "
            f"snapshot at step {trajectory.steps[index]}, or another optimizer"
        )
    named = segment.layout.unflatten(weights)
    return {each.name: named[each.name].to(getattr(torch, each.dtype)) for each in segment.layout.tensors}


def _next_time(trajectory: Trajectory, index: int) -> float:
    """As far ahead of a snapshot as the one before it lies behind."""
    steps = trajectory.steps
    return float(2 * steps[index] - steps[index - 1] if index else steps[index])


def _snapshot_at(trajectory: Trajectory, step: int | None) -> int:
    if step is None:
        return len(trajectory) - 1
    if step not in trajectory.steps:
        near = sorted(sorted(trajectory.steps, key=lambda other: abs(other - step))[:3])
        raise InvalidConfig(f"no snapshot at step {step} in {trajectory.folder}; the nearest are at {near}")
    return trajectory.steps.index(step)
