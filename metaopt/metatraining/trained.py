"""The result of a meta-training: the optimizer, and what is known about its training. Its checkpoints contain both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..core.errors import CheckpointError, FileFormatError, LayoutMismatch
from ..core.text import shown
from ..generative import GenerativeOptimizer
from ..generative.files import load_optimizer_file
from ..trajectories.checkpoint import KIND
from ..weights.files import read_facts
from ..weights.layout import Layout

FACTS = "training"
"""Key of these facts in a checkpoint."""

_NOT_REPRODUCIBLE = ("seconds",)  # two trainings that are equal bit for bit differ in them


@dataclass(frozen=True)
class TrainedOptimizer:
    """The result of a meta-training.

    Attributes:
        optimizer: the trained optimizer, with averaged weights.
        checkpoint: the last checkpoint.
        layouts: layouts of the target networks, without duplicates.
        stride: steps between the snapshots of a history [steps].
        training_names: names of the trajectories, or of the components of a mixture, that trained the optimizer.
        held_out_names: names of the trajectories that only validated it.
        problem_names: target and task of each inner problem, without duplicates ("MLP on digits").
        data: run name, objective and training mode, or the mixture of an online training.
        metrics: the last value of each metric.
        untrained: the validation metrics before the first update; empty online, and if nothing was held out.
    """

    optimizer: GenerativeOptimizer
    checkpoint: Path
    layouts: list[Layout]
    stride: float
    training_names: list[str]
    held_out_names: list[str]
    problem_names: list[str]
    data: dict[str, str]
    metrics: dict[str, float]
    untrained: dict[str, float]

    @classmethod
    def from_checkpoint(cls, path: Path) -> Self:
        """Read the result of a meta-training from one of its checkpoints.

        Raises:
            FileFormatError: the file is damaged or of another kind.
            CheckpointError: the checkpoint was written by metaopt 0.1, which did not store facts of the training.
        """
        facts = read_facts(path, KIND).get(FACTS)
        if facts is None:
            raise CheckpointError(
                f"{path} does not say what the optimizer was trained on; expected a checkpoint of train-optimizer of "
                "metaopt 0.2 or newer. Add these facts with `metaopt train-optimizer --epochs 0 --resume-from` and "
                "the settings of its training, which also registers it"
            )
        optimizer = load_optimizer_file(path)
        try:
            return cls(
                optimizer=optimizer,
                checkpoint=path,
                layouts=[Layout.from_list(each) for each in facts["layouts"]],
                stride=float(facts["stride"]),
                training_names=_texts(facts["training_names"]),
                held_out_names=_texts(facts["held_out_names"]),
                problem_names=_texts(facts["problem_names"]),
                data={name: _text(value) for name, value in facts["data"].items()},
                metrics=_numbers(facts["metrics"]),
                untrained=_numbers(facts["untrained"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, LayoutMismatch) as error:
            raise FileFormatError(
                f"{path} has invalid facts of its training ({shown(error)}); copy the checkpoint again"
            ) from error

    def facts(self) -> dict[str, Any]:
        """The facts for a checkpoint, as JSON values. Two equal trainings have equal facts."""
        return {
            "layouts": [layout.to_list() for layout in self.layouts],
            "stride": self.stride,
            "training_names": self.training_names,
            "held_out_names": self.held_out_names,
            "problem_names": self.problem_names,
            "data": self.data,
            "metrics": _reproducible(self.metrics),
            "untrained": _reproducible(self.untrained),
        }

    @property
    def first_problem(self) -> tuple[str, str]:
        """Target and task of the first inner problem."""
        return split_problem_name(self.problem_names[0])

    @property
    def data_name(self) -> str:
        """Short name of the training data: the run names, or the mixture."""
        return self.data.get("run_name", "") or Path(self.data.get("mixture", "several")).stem

    @property
    def setback(self) -> str:
        """A remark if the training made the optimizer worse on held-out trajectories; else empty."""
        before, after = self.untrained.get("val_objective"), self.metrics.get("val_objective")
        if before is None or after is None or after <= before:
            return ""
        return (
            f"**worse than before its training**: objective {after:.3g} on held-out trajectories, untrained "
            f"{before:.3g} (lower is better)"
        )


def problem_name(target_model: str, task: str) -> str:
    """The name of an inner problem: `MLP on digits`."""
    return f"{target_model} on {task}"


def split_problem_name(name: str) -> tuple[str, str]:
    """Target and task of the name of an inner problem."""
    target_model, _, task = name.rpartition(" on ")
    return target_model, task


def trained_network(target_model: str, adapter: str | None) -> str:
    """What of a network is trained, in the name of an inner problem: `MLP`, or `MLP with lora` for its adapters."""
    return target_model if adapter is None else f"{target_model} with {adapter}"


def recorded_network(run: Mapping[str, Any]) -> str:
    """What of its network a recording trained, as `trained_network` names it."""
    adapter = run.get("adapter", {}).get("method")
    return trained_network(str(run.get("target_model")), None if adapter is None else str(adapter))


def stored_metrics(checkpoint: Path) -> dict[str, float]:
    """The metrics that a checkpoint contains; empty for those of metaopt 0.1.

    Raises:
        FileFormatError: the file is damaged or of another kind.
    """
    facts = read_facts(checkpoint, KIND).get(FACTS)
    return _numbers(facts.get("metrics", {})) if isinstance(facts, dict) else {}


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


def _reproducible(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in _NOT_REPRODUCIBLE and math.isfinite(value)}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {_text(name): float(value) for name, value in values.items()}


def _texts(values: list[Any]) -> list[str]:
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is no text")
    return value
