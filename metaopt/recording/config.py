"""Configuration of phase 1."""

import math
from dataclasses import replace
from pathlib import Path

from ..adapters.config import FineTuningConfig
from ..core.config import Options, Range, option, trust_option
from ..core.devices import ComputeConfig
from ..core.errors import InvalidConfig
from ..targets import names_code
from ..tasks import Task, load_task, task_config
from ..trajectories.recorder import SNAPSHOT_DTYPES

ENGINES = ("local", "ray")


class TrainTargetConfig(FineTuningConfig, ComputeConfig):
    """Configuration of phase 1: which network to train, how, and where to store the trajectories."""

    run_name: str = option(default="target", help="Name of the trajectory folder; must be new.")
    task: str = option(default="digits", help="Task to train on.")
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, for tasks that read files.", changes_result=False
    )
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="TargetCNN", help="Network to train.", runs_code=names_code)
    target_options: Options = option(default={}, help="Parameters of the network.")
    base_optimizer: str = option(default="Adam", help="Any optimizer of torch.optim.")
    base_optimizer_options: Options = option(default={}, help="Its keyword arguments, apart from lr.")
    lr: Range = option(default=Range.parse("1e-3"), help="Learning rate, or low:high to draw one per run.", above=0.0)
    batch_size: int = option(default=64, help="Examples per batch [count].", at_least=1)
    epochs: int = option(default=10, help="Epochs to train in total.", at_least=1)
    snapshot_every: int = option(
        default=0, help="Steps between snapshots, in addition to those after each epoch; 0 for none.", at_least=0
    )
    snapshot_dtype: str = option(default="float32", help="Number format of recorded weights.", choices=SNAPSHOT_DTYPES)
    averaging: float = option(
        default=0.0,
        help="Decay of the exponential moving average (EMA) of the weights to record; 0 records the weights.",
        at_least=0.0,
        below=1.0,
    )
    keep_last: int = option(default=0, help="Newest snapshots to keep of a trajectory [count]; 0 for all.", at_least=0)
    seed: int = option(default=0, help="Random seed of the first run; each further run adds 1.", at_least=0)
    runs: int = option(default=1, help="Trajectories to record [count].", at_least=1, at_most=10_000)
    workers: int = option(
        default=1,
        help="Processes that record trajectories in parallel.",
        at_least=1,
        at_most=1_000,
        changes_result=False,
    )
    vectorize: int = option(
        default=1, help="Small networks that each process trains as one batched network [count].", at_least=1
    )
    engine: str = option(
        default="local", help="Where workers run: this machine or a Ray cluster.", choices=ENGINES, changes_result=False
    )
    controller: str | None = option(
        default=None,
        help="What decides how the network grows: wait, random, heuristic, schedule:<blueprint>@<share>, a policy "
        "file, or models:/<name>@<alias>; none: it does not grow.",
    )
    growth_options: Options = option(default={}, help="Settings of growth, such as `interval=20 taps=[blocks.1]`.")
    grown_as: Path | None = option(
        default=None,
        help="Trajectory of a network that grew, or folder of several with the same random seeds: this network has its "
        "growth seeds from the first step.",
    )
    twins: bool = option(
        default=False,
        help="Also train each network without growth, and one of its final size, from the same random seed.",
    )
    probes: tuple[str, ...] = option(
        default=(),
        help="What to measure after each epoch, between the network at the first step and now, such as "
        "weight-norms,loss-line; all: all that apply. `metaopt list probes` lists them.",
    )
    space: str | None = option(
        default=None, help="Regular expression: only weights whose names match it are trained and recorded."
    )
    resume: bool = option(default=False, help="Resume a run that was stopped.", changes_result=False)
    overwrite: bool = option(default=False, help="Replace a run of the same name.", changes_result=False)
    checkpoint_every: int = option(
        default=1, help="Epochs between checkpoints; a stopped run resumes from the last one.", at_least=1
    )
    trajectory_dir: Path = option(
        default=Path("trajectories"), help="Folder of all trajectories.", changes_result=False
    )
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.", changes_result=False)
    trust_config: bool = trust_option()

    def __post_init__(self) -> None:
        """Check each value, and how they combine.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        if self.controller is None and self.growth_options:
            raise InvalidConfig("growth_options needs a controller, such as heuristic")
        if self.twins and self.controller is None:
            raise InvalidConfig("twins are those of a network that grows; give a controller, such as heuristic")
        if self.controller is not None and self.adapter is not None:
            raise InvalidConfig("adapters freeze the network, and a controller lets it grow; give one of them")
        if self.controller is not None and self.probes:
            raise InvalidConfig("probes compare networks of one architecture, but this one grows; give no controller")
        if self.controller is not None and self.vectorize > 1:
            raise InvalidConfig(f"vectorize is {self.vectorize}, but networks that grow train apart; expected 1")

    def single_runs(self) -> list["TrainTargetConfig"]:
        """One configuration per run, with consecutive random seeds."""
        return [replace(self, seed=self.seed + index, runs=1) for index in range(self.runs)]

    def load_task(self) -> Task:
        """The task with its data.

        Raises:
            UnknownName, InvalidConfig, TaskDataError: the task is unknown, an option is invalid, or data is missing.
        """
        return load_task(self.task, **task_config(self.task, self.task_options, self.data_dir))

    def step_count(self, task: Task) -> int:
        """Number of training steps of one run [steps]."""
        return self.epochs * math.ceil(len(task.splits["train"]) / self.batch_size)

    @property
    def title(self) -> str:
        """Network and task, human-readable."""
        return f"{self.target_model} on {self.task}"

    @property
    def run_folder(self) -> Path:
        """Folder of a single run, relative to `trajectory_dir` and to `checkpoint_dir`."""
        return Path(self.run_name, f"seed_{self.seed}")
