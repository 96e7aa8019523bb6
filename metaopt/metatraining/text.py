"""Sentences about the results of phase 2, for run descriptions, registered versions and the command line."""

from collections.abc import Mapping


def describe_validation(metrics: Mapping[str, float]) -> str:
    """The validation metrics of a generative optimizer, in Markdown; empty if nothing was held out.

    Args:
        metrics: the last value of each metric of meta-training.
    """
    parts = []
    if values := validation_speedups(metrics):
        listed = ", ".join(f"{name} **{value:.3g}**" for name, value in values.items())
        parts.append(f"speed-up over Adam alone in short paired runs: {listed}")
    if (error := metrics.get("val_relative_error")) is not None:
        parts.append(f"squared error of a prediction **{error:.3g}** times that of keeping the weights")
    if (change := metrics.get("val_log_loss_change")) is not None:
        parts.append(f"change of the log-loss by a prediction **{change:+.3g}** (below 0 is better)")
    return "; ".join(parts)


def validation_speedups(metrics: Mapping[str, float]) -> dict[str, float]:
    """The speed-ups of paired inner trainings, by component of the mixture."""
    return {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith("val_speedup/")}
