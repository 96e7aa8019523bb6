"""Sentences about the results of phase 1, for run descriptions and the command line."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from ..core.text import counted
from ..trajectories import Trajectory


def describe_recording(trajectory: Trajectory, metrics: Mapping[str, float]) -> str:
    """The result of one run: its last validation metrics, and how many snapshots it recorded.

    Args:
        metrics: by name, such as `val_loss`.
    """
    values = ", ".join(f"{_readable(name)} **{value:.4g}**" for name, value in metrics.items())
    return f"{values} after {trajectory.steps[-1]:,} steps; {counted(len(trajectory), 'snapshot')} recorded."


def describe_recordings(losses: Sequence[float]) -> str:
    """The result of several runs.

    Args:
        losses: their last validation losses, at least one.
    """
    spread = f"**{fmean(losses):.4g}** on average ({min(losses):.4g} to {max(losses):.4g})"
    return f"validation loss at the end {spread} in {len(losses)} trajectories."


def _readable(metric: str) -> str:
    return "validation " + metric.removeprefix("val_").replace("_", " ")
