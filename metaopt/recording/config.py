"""What phase 1 trains, how, and where the trajectories go."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core.config import Config, Options, Range, option
from ..core.errors import InvalidConfig
from ..trajectories.recorder import SNAPSHOT_DTYPES

ENGINES = ("local", "ray")


class TrainTargetConfig(Config):
    """What to train, how, and where the trajectory goes."""

    run_name: str = option(default="target", help="Name of the trajectory folder; must be new.")
    task: str = option(default="digits", help="Task to train on.")
    data_dir: Path | None = option(default=None, help="Folder of the task's data, for tasks that read files.")
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="TargetCNN", help="Network to train.")
    target_options: Options = option(default={}, help="Parameters of the network.")
    base_optimizer: str = option(default="Adam", help="Any optimizer of torch.optim.")
    base_optimizer_options: Options = option(default={}, help="Its keyword arguments, apart from lr.")
    lr: Range = option(
        default=Range.parse("1e-3"), help="Learning rate, or low:high to draw one for each run.", above=0.0
    )
    batch_size: int = option(default=64, help="Examples in a batch.", at_least=1)
    epochs: int = option(default=10, help="Epochs to train in total.", at_least=1)
    snapshot_every: int = option(
        default=0, help="Steps between snapshots, beside those at each epoch; 0 for none.", at_least=0
    )
    snapshot_dtype: str = option(default="float32", help="Number format of recorded weights.", choices=SNAPSHOT_DTYPES)
    averaging: float = option(
        default=0.0,
        help="Decay of the running average of the weights that is recorded; 0 records the weights themselves.",
        at_least=0.0,
        below=1.0,
    )
    keep_last: int = option(default=0, help="Snapshots to keep of a trajectory; 0 for all.", at_least=0)
    seed: int = option(default=0, help="Random seed; further runs count up from it.", at_least=0)
    runs: int = option(default=1, help="How many trajectories to record.", at_least=1)
    workers: int = option(default=1, help="Processes that record trajectories at the same time.", at_least=1)
    vectorize: int = option(
        default=1, help="Targets trained together as one batched network in each process; for small ones.", at_least=1
    )
    engine: str = option(
        default="local", help="What runs the workers: this machine, or a Ray cluster.", choices=ENGINES
    )
    space: str | None = option(
        default=None, help="Regular expression: only weights whose names match it are trained and recorded."
    )
    resume: bool = option(default=False, help="Go on with a run that was stopped.")
    overwrite: bool = option(default=False, help="Replace a run of the same name.")
    checkpoint_every: int = option(
        default=1, help="Epochs between checkpoints, from which a stopped run goes on.", at_least=1
    )
    trajectory_dir: Path = option(default=Path("trajectories"), help="Folder of all trajectories.")
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.")
    device: str = option(default="cpu", help="Where to train.", choices=("cpu", "cuda", "auto"))

    def __post_init__(self) -> None:
        """Check each value, and that `space` is a regular expression.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        try:
            re.compile(self.space or "")
        except re.error as error:
            raise InvalidConfig(f"space is {self.space!r}, which is no regular expression: {error}") from error

    def single_runs(self) -> list["TrainTargetConfig"]:
        """A plan for each trajectory, with consecutive random seeds."""
        return [replace(self, seed=self.seed + index, runs=1) for index in range(self.runs)]

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return f"{self.target_model} on {self.task}"

    @property
    def place(self) -> Path:
        """Where a single run lies below the folders of trajectories and checkpoints."""
        return Path(self.run_name, f"seed_{self.seed}")


def in_groups(plans: Sequence[TrainTargetConfig], size: int) -> list[list[TrainTargetConfig]]:
    """Neighbouring plans together, at most `size` of them."""
    return [list(plans[start : start + size]) for start in range(0, len(plans), size)]
