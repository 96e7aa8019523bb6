"""What phase 2 learns from, how, and where the checkpoints go."""

from pathlib import Path
from typing import Any

from ..core.config import Options, option
from ..core.errors import InvalidConfig
from ..nowcast.policy import PolicyConfig
from ..recording.text import count
from ..trajectories import check_run_name
from ..trajectories.dataset import MODES
from .objectives import OBJECTIVES


class TrainOptimizerConfig(PolicyConfig):
    """What to learn from, how, and where the checkpoints go."""

    run_name: str = option(
        default="target", help="Trajectories to learn from: the run name of phase 1, or several, by commas."
    )
    checkpoint_name: str | None = option(default=None, help="Folder of the checkpoints; the run name where not given.")
    optimizer_model: str = option(default="PerceiverOptimizer", help="Generative optimizer to train.")
    optimizer_options: Options = option(default={}, help="Its parameters.")
    start_from: str | None = option(
        default=None,
        help="Trained optimizer to start from, with its parameters: a file, `builtin`, or models:/<name>@<alias>.",
    )
    training_mode: str = option(
        default="permutation", help="Which pairs of snapshots: next ones, or all.", choices=MODES
    )
    objective: str = option(default="mix", help="What to train for.", choices=tuple(OBJECTIVES))
    epochs: int = option(default=20, help="Epochs to train; when resuming, further epochs.", at_least=1)
    rounds: int = option(
        default=0, help="Rounds of live inner trainings instead of epochs over recordings; needs a mixture.", at_least=0
    )
    mixture: Path | None = option(default=None, help="YAML file of the tasks and targets that train in live rounds.")
    warm_up: int = option(
        default=0, help="Updates on inner trainings without nowcasts, before the first round [count].", at_least=0
    )
    inner_steps: int = option(default=800, help="Length of an inner training [steps].", at_least=1)
    batch_size: int = option(default=8, help="Pairs in a batch [count].", at_least=1)
    pairs_per_epoch: int = option(default=0, help="Pairs drawn for an epoch [count]; 0 for all.", at_least=0)
    task_batch: int = option(
        default=128, help="Examples on which a predicted network's loss is measured [count].", at_least=1
    )
    lr: float = option(default=1e-3, help="Learning rate of AdamW.", above=0.0)
    weight_decay: float = option(default=0.01, help="Weight decay of AdamW.", at_least=0.0)
    average: float = option(default=0.99, help="Decay of the running average of the weights.", at_least=0.0, below=1.0)
    held_out: int | None = option(
        default=None, help="Trajectories held out to judge on [count]; a quarter where not given.", at_least=0
    )
    seed: int = option(default=0, help="Random seed.", at_least=0)
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, if it is not where it was in phase 1."
    )
    trust_code: bool = option(
        default=False, help="Import networks that trajectories name by a dotted path; for your own ones only."
    )
    resume_from: str | None = option(default=None, help="Checkpoint to go on from: a run ID, a runs:/ URI or a file.")
    overwrite: bool = option(default=False, help="Replace checkpoints of the same name.")
    checkpoint_every: int = option(
        default=5,
        help="Epochs between checkpoints, and of rounds between races; the last epoch always has a checkpoint.",
        at_least=1,
    )
    trajectory_dir: Path = option(default=Path("trajectories"), help="Folder of all trajectories.")
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.")
    model_name: str | None = option(
        default="metaopt-perceiver", help="Name in the model registry; none to register nothing."
    )
    promote_on: Path | None = option(
        default=None,
        help="Case of `metaopt evaluate` that decides whether the new version becomes champion; without one it does.",
    )

    def __post_init__(self) -> None:
        """Check each value, and that every run name is one.

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
        if bool(self.rounds) != (self.mixture is not None):
            raise InvalidConfig(
                f"rounds is {self.rounds} and mixture is {self.mixture}: live rounds need both, recordings neither"
            )
        if self.rounds:
            _ = self.policy

    @property
    def run_names(self) -> list[str]:
        """The run names of phase 1, one by one, each once."""
        return list(dict.fromkeys(name.strip() for name in self.run_name.split(",")))

    @property
    def checkpoint_folder(self) -> Path:
        """Where this training's checkpoints lie."""
        origin = self.mixture.stem if self.mixture else "+".join(self.run_names)
        return self.checkpoint_dir / (self.checkpoint_name or origin)

    def settings(self) -> dict[str, Any]:
        """What must not change when a training goes on."""
        names = ("training_mode", "objective", "batch_size", "pairs_per_epoch", "task_batch", "lr", "weight_decay",
                 "average", "seed")  # fmt: skip
        live = ("task_batch", "lr", "weight_decay", "average", "seed", "warm_up", "inner_steps", "every", "stride",
                "min_cosine")  # fmt: skip
        return {name: getattr(self, name) for name in (live if self.rounds else names)}

    @property
    def grounds(self) -> str:
        """What it trains on, for people."""
        return f"live trainings of {self.mixture.name}" if self.mixture else f"the trajectories of {self.run_name}"

    @property
    def title(self) -> str:
        """What it trains on, in a word."""
        return f"{self.mixture.stem}, live" if self.mixture else self.run_name

    @property
    def summary(self) -> str:
        """What it does, for people."""
        how = (
            f"{count(self.rounds, 'round')} of {self.inner_steps} steps, a nowcast every {self.every}"
            if self.rounds
            else f"{self.training_mode} pairs of snapshots, objective {self.objective}, {count(self.epochs, 'epoch')}"
        )
        start = f", going on from {self.resume_from}" if self.resume_from else ""
        return f"Phase 2: trains {self.optimizer_model} on {self.grounds}, {how}{start}."
