"""What came of a training, in a sentence: for the description of its run, and for the card of an optimizer."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from ..trajectories import Trajectory


def count(number: int, what: str) -> str:
    """So many of something: `1 epoch`, `2 epochs`."""
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def recorded(trajectory: Trajectory, judged: Mapping[str, float]) -> str:
    """The end of a phase-1 training: what was measured last on the validation split, and what was kept.

    Args:
        judged: by metric, `val_loss` among them.
    """
    figures = ", ".join(f"{_spaced(name)} **{value:.4g}**" for name, value in judged.items())
    return f"{figures} after {trajectory.steps[-1]:,} steps; {count(len(trajectory), 'snapshot')} recorded."


def recorded_many(losses: Sequence[float]) -> str:
    """The ends of several phase-1 trainings.

    Args:
        losses: their last validation losses, at least one.
    """
    spread = f"**{fmean(losses):.4g}** on average ({min(losses):.4g} to {max(losses):.4g})"
    return f"validation loss at the end {spread} in {len(losses)} trajectories."


def learned(figures: Mapping[str, float]) -> str:
    """How a generative optimizer does on what was held out of its meta-training; empty where nothing was.

    Args:
        figures: the last of each, by metric.
    """
    parts = []
    if races := speedups_of(figures):
        told = ", ".join(f"{name} **{value:.3g}**" for name, value in races.items())
        parts.append(f"speed-up over Adam alone in short races: {told}")
    if (error := figures.get("val_relative_error")) is not None:
        parts.append(f"squared error of a prediction **{error:.3g}** times that of keeping the weights")
    if (change := figures.get("val_log_loss_change")) is not None:
        parts.append(f"change of the log-loss by a prediction **{change:+.3g}** (below 0 is better)")
    return "; ".join(parts)


def speedups_of(figures: Mapping[str, float]) -> dict[str, float]:
    """The speed-ups of races among the figures of a meta-training, by ingredient."""
    return {name.partition("/")[2]: value for name, value in figures.items() if name.startswith("val_speedup/")}


def _spaced(name: str) -> str:
    return "validation " + name.removeprefix("val_").replace("_", " ")
