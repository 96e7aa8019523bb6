"""Configuration of phase 2."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..core.config import Options, option, trust_option
from ..core.devices import ComputeConfig
from ..core.errors import InvalidConfig
from ..core.text import counted
from ..nowcast.policy import PolicyConfig
from ..trajectories import check_run_name
from ..trajectories.dataset import MODES
from .objectives import OBJECTIVES


class TrainOptimizerConfig(PolicyConfig, ComputeConfig):
    """Configuration of phase 2: the data, the generative optimizer, its training and the folder of its checkpoints."""

    renamed: ClassVar[Mapping[str, str]] = {**PolicyConfig.renamed, "trust_code": "trust_config"}

    run_name: str = option(
        default="target", help="Trajectories to train on: one or several run names of phase 1, separated by commas."
    )
    checkpoint_name: str | None = option(
        default=None, help="Name of the checkpoint folder; by default the run name or the name of the mixture."
    )
    optimizer_model: str = option(default="PerceiverOptimizer", help="Generative optimizer to train.")
    optimizer_options: Options = option(default={}, help="Its parameters.")
    start_from: str | None = option(
        default=None,
        help="Trained optimizer to start from, with its parameters: a file, `builtin`, or models:/<name>@<alias>.",
    )
    training_mode: str = option(
        default="permutation",
        help="Pairs of snapshots to train on: consecutive ones (sequential) or all (permutation).",
        choices=MODES,
    )
    objective: str = option(
        default="mix",
        help="Objective: error of the predicted weights, loss of the predicted network, or both.",
        choices=tuple(OBJECTIVES),
    )
    epochs: int = option(default=20, help="Epochs to train; after a resume, further epochs.", at_least=0)
    rounds: int = option(
        default=0,
        help="Rounds of online meta-training, instead of epochs on recorded trajectories: on the problems of a "
        "mixture, or without one on those of the recordings.",
        at_least=0,
    )
    method: str = option(
        default="look-ahead",
        help="What a round does: look-ahead trains by gradients some steps after a nowcast; evolution changes the "
        "gains of an optimizer by the losses of whole trainings.",
        choices=("look-ahead", "evolution"),
    )
    mixture: Path | None = option(default=None, help="YAML file of the tasks and targets for online rounds.")
    warm_up: int = option(
        default=0, help="Updates on inner trainings without nowcasts, before the first round [count].", at_least=0
    )
    curriculum: Path | None = option(
        default=None, help="YAML file of stages of the training data, from easy to all of it."
    )
    inner_steps: int = option(default=800, help="Length of an inner training [steps].", at_least=1)
    batch_size: int = option(default=8, help="Pairs per batch [count].", at_least=1)
    pairs_per_epoch: int = option(default=0, help="Pairs drawn per epoch [count]; 0 for all.", at_least=0)
    task_batch: int = option(
        default=128, help="Examples on which the loss of a predicted network is measured [count].", at_least=1
    )
    lr: float = option(default=1e-3, help="Learning rate of AdamW.", above=0.0)
    weight_decay: float = option(default=0.01, help="Weight decay of AdamW.", at_least=0.0)
    average: float = option(
        default=0.99,
        help="Decay of the exponential moving average (EMA) of the optimizer's weights.",
        at_least=0.0,
        below=1.0,
    )
    held_out: int | None = option(
        default=None,
        help="Trajectories held out for validation [count], a quarter by default; rounds hold out none.",
        at_least=0,
    )
    seed: int = option(default=0, help="Random seed.", at_least=0)
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, if it has moved since phase 1.", changes_result=False
    )
    trust_config: bool = trust_option()
    resume_from: str | None = option(
        default=None, help="Checkpoint to resume from: a run ID, a runs:/ URI or a file.", changes_result=False
    )
    overwrite: bool = option(default=False, help="Replace checkpoints of the same name.", changes_result=False)
    checkpoint_every: int = option(
        default=5,
        help="Epochs between checkpoints, and rounds between validations. The last epoch always has a checkpoint.",
        at_least=1,
    )
    trajectory_dir: Path = option(
        default=Path("trajectories"), help="Folder of all trajectories.", changes_result=False
    )
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.", changes_result=False)
    model_name: str | None = option(
        default="auto",
        help="Name in the model registry; auto is metaopt-<task>-<network>, none registers nothing.",
    )
    promote_on: Path | None = option(
        default=None,
        help="Case of `metaopt evaluate` that decides whether the new version becomes champion; by default it becomes "
        "champion only if there is none.",
    )

    def __post_init__(self) -> None:
        """Check each value, each run name, and that the values fit together.

        Raises:
            InvalidConfig, RunNameError: names the value and the rule.
        """
        super().__post_init__()
        for name in self.run_names:
            check_run_name(name)
        if self.start_from and self.optimizer_options:
            raise InvalidConfig(
                f"start_from is {self.start_from} and optimizer_options is {self.optimizer_options}: the parameters "
                "are those of the optimizer to start from; leave the options out"
            )
        if self.mixture is not None and not self.rounds:
            raise InvalidConfig(
                f"mixture is {self.mixture} and rounds is 0: give rounds, their number, or leave the mixture out to "
                "train on recorded trajectories"
            )
        if self.method != "look-ahead" and not self.rounds:
            raise InvalidConfig(f"method is {self.method} and rounds is 0: give rounds, its number of generations")
        if self.method == "evolution" and self.warm_up:
            raise InvalidConfig(
                f"warm_up is {self.warm_up} and method is evolution, which has none; train on recordings or with "
                "method=look-ahead before, and give the result as start_from"
            )
        if self.method == "evolution":
            check_length(self.inner_steps, self.every)
        if not (self.epochs or self.rounds or self.resume_from):
            raise InvalidConfig(
                "epochs is 0; expected 1 or more. 0 is for resume_from: it registers a checkpoint without more training"
            )
        if self.rounds:
            _ = self.policy  # its constructor checks every, stride and min_cosine

    @property
    def run_names(self) -> list[str]:
        """The run names of phase 1, without duplicates."""
        return list(dict.fromkeys(name.strip() for name in self.run_name.split(",")))

    @property
    def data_names(self) -> dict[str, str]:
        """What the training data is, by name: the mixture, or the run name and how it is used."""
        if self.mixture is not None:
            return {"mixture": self.mixture.name}
        if self.rounds:
            return {"run_name": self.run_name, "method": self.method}
        return {"run_name": self.run_name, "objective": self.objective, "training_mode": self.training_mode}

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of this training's checkpoints."""
        default = self.mixture.stem if self.mixture else "+".join(self.run_names)
        return self.checkpoint_dir / (self.checkpoint_name or default)

    def settings(self) -> dict[str, Any]:
        """The values that must be equal when a training is resumed."""
        offline = ("training_mode", "objective", "batch_size", "pairs_per_epoch", "task_batch", "lr", "weight_decay",
                   "average", "seed")  # fmt: skip
        online = ("task_batch", "lr", "weight_decay", "average", "seed", "warm_up", "inner_steps", "every", "stride",
                  "min_cosine", "method")  # fmt: skip
        return {name: getattr(self, name) for name in (online if self.rounds else offline)}

    @property
    def title(self) -> str:
        """Short name of the training data, for the name of the MLflow run."""
        return f"{self.mixture.stem if self.mixture else self.run_name}{', online' if self.rounds else ''}"

    @property
    def data_title(self) -> str:
        """The training data, human-readable."""
        if self.mixture:
            return f"online inner trainings of {self.mixture.name}"
        return f"{'online inner trainings like' if self.rounds else 'the trajectories of'} {self.run_name}"

    @property
    def purpose(self) -> str:
        """What the training does, as a sentence for the description of its run."""
        how = (
            f"{counted(self.rounds, 'round')} of {self.method}, {self.inner_steps} steps, a nowcast every {self.every}"
            if self.rounds
            else f"{self.training_mode} pairs of snapshots, objective {self.objective}, {counted(self.epochs, 'epoch')}"
        )
        resumed = f", resumed from {self.resume_from}" if self.resume_from else ""
        return f"Phase 2: trains {self.optimizer_model} on {self.data_title}, {how}{resumed}."


def check_length(steps: int, every: int) -> None:
    """Check that a nowcast takes place in whole trainings.

    Args:
        steps: their length [steps].
        every: steps between nowcasts [steps].
    Raises:
        InvalidConfig: none does.
    """
    if steps <= every:
        raise InvalidConfig(
            f"inner_steps is {steps}, every is {every}: no nowcast would take place; take more steps than every"
        )
