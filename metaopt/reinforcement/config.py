"""Configuration of phase 3."""

from pathlib import Path
from typing import Any

from ..core.config import Config, Options, option, trust_option
from ..core.devices import ComputeConfig
from ..core.errors import FileFormatError, InvalidConfig
from ..growth.config import GrowthConfig
from ..growth.policy import KIND as POLICY
from ..targets import names_code
from ..tasks import Task, load_task, task_config
from ..trajectories import check_run_name
from ..weights.files import read_facts
from .rewards import REWARDS

FACTS = "training"
"""Key of the facts of a training in the files of its policy and its checkpoints."""

BEST_SCHEDULE = "best schedule"
"""The value of `imitate` that lets the best fixed schedule be found and imitated."""

_MOST_SEEDS = 1_000_000


class EpisodeConfig(Config):
    """What an episode is: a training of one network, which a controller lets grow, and how it is rewarded."""

    task: str = option(default="digits", help="Task to train on.")
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, for tasks that read files.", changes_result=False
    )
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="HostCNN", help="Network that can grow.", runs_code=names_code)
    target_options: Options = option(default={}, help="Parameters of the network.")
    base_optimizer: str = option(default="Adam", help="Any optimizer of torch.optim.")
    base_optimizer_options: Options = option(default={}, help="Its keyword arguments, apart from lr.")
    lr: float = option(default=3e-3, help="Learning rate of the network.", above=0.0)
    batch_size: int = option(default=64, help="Examples per batch [count].", at_least=1)
    steps: int = option(
        default=400, help="Length of an episode [steps]; a multiple of the interval between decisions.", at_least=1
    )
    growth_options: Options = option(
        default={}, help="Settings of growth, such as interval, taps, train_steps, blend_steps."
    )
    reward: str = option(
        default="twin",
        help="Reward: twin is the advantage over the run without growth; spec is that of the specification.",
        choices=REWARDS,
    )
    rent: float = option(
        default=0.02, help="Cost of grown weights at each decision, for the reward twin [sigma].", at_least=0.0
    )
    train_seeds: int = option(
        default=32,
        help="Random seeds that episodes of training are drawn from [count].",
        at_least=1,
        at_most=_MOST_SEEDS,
    )

    def __post_init__(self) -> None:
        """Check each value, and that the episode consists of whole intervals.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        interval = self.growth.interval
        if self.steps % interval or self.steps < 2 * interval:
            raise InvalidConfig(
                f"steps is {self.steps} and interval of growth_options {interval}; expected a multiple of interval, "
                "from two intervals on"
            )

    @property
    def growth(self) -> GrowthConfig:
        """The settings of growth."""
        return GrowthConfig.from_mapping(self.growth_options)

    @property
    def decisions(self) -> int:
        """Decisions in an episode [count]: one after each interval, but not at the end of the training."""
        return self.steps // self.growth.interval - 1

    @property
    def training_seeds(self) -> range:
        """Random seeds of the episodes that train a controller."""
        return range(self.train_seeds)

    @staticmethod
    def selection_seeds(count: int) -> range:
        """Random seeds on which the best fixed schedule is chosen; no controller is trained on them."""
        return range(_MOST_SEEDS, _MOST_SEEDS + count)

    @staticmethod
    def evaluation_seeds(count: int) -> range:
        """Random seeds on which controllers are compared; nothing is trained or chosen on them."""
        return range(2 * _MOST_SEEDS, 2 * _MOST_SEEDS + count)

    def load_task(self) -> Task:
        """The task with its data.

        Raises:
            UnknownName, InvalidConfig, TaskDataError: the task is unknown, an option is invalid, or data is missing.
        """
        return load_task(self.task, **self.task_settings)

    @property
    def task_settings(self) -> dict[str, Any]:
        """All options of the task."""
        return task_config(self.task, self.task_options, self.data_dir)

    @property
    def data_source(self) -> str:
        """Where the data comes from, for people."""
        return str(self.task_settings.get("data_dir", "part of the installed packages"))

    @property
    def episode(self) -> "EpisodeConfig":
        """These settings alone, without those of a subclass."""
        return EpisodeConfig(**{name: getattr(self, name) for name in EpisodeConfig.names()})

    @classmethod
    def of_policy(cls, path: Path, *, trusted: bool) -> "EpisodeConfig":
        """The episodes with which the policy of a file was trained.

        Args:
            trusted: whether the user permits the file to name code.
        Raises:
            FileFormatError: the file is damaged, or states no episodes.
            UntrustedCode: the file names code, and is not trusted.
            InvalidConfig: the file states an unknown name, or an invalid value.
        """
        try:
            values = read_facts(path, POLICY)[FACTS]["episode"]
            return EpisodeConfig.from_file_values(values, path, trusted=trusted)
        except (LookupError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path} states no training; expected a policy of train-controller") from error

    @property
    def title(self) -> str:
        """Network and task, human-readable."""
        return f"{self.target_model} on {self.task}"


class TrainControllerConfig(EpisodeConfig, ComputeConfig):
    """Configuration of phase 3: the episodes, the training of the policy by PPO, and the folder of its checkpoints.

    The networks of the episodes are on `device`. The policy stays on the CPU, where it decides on 23 numbers faster.
    """

    run_name: str = option(default="controller", help="Name of the checkpoint folder.")
    episodes: int = option(
        default=320, help="Episodes to train in all; a resumed training goes on to this number [count].", at_least=1
    )
    n_envs: int = option(default=8, help="Episodes that are played side by side [count].", at_least=1, at_most=1024)
    rollout_episodes: int = option(
        default=1, help="Episodes of each environment between two updates of the policy [count].", at_least=1
    )
    hidden: tuple[int, ...] = option(
        default=(64, 64), help="Widths of the hidden layers of the policy.", at_least=1, at_most=4096
    )
    policy_lr: float = option(default=3e-3, help="Learning rate of the policy.", above=0.0)
    minibatch: int = option(default=64, help="Decisions in each gradient of PPO [count].", at_least=2)
    ppo_epochs: int = option(default=10, help="Passes over the decisions of a rollout.", at_least=1)
    discount: float = option(default=1.0, help="Discount of a later reward, gamma.", above=0.0, at_most=1.0)
    gae_lambda: float = option(
        default=0.95, help="Weight of later values in an advantage, lambda of GAE.", at_least=0.0, at_most=1.0
    )
    clip_range: float = option(default=0.2, help="Clip range of PPO.", above=0.0)
    entropy: float = option(default=0.01, help="Weight of the entropy of the policy.", at_least=0.0)
    imitate: str | None = option(
        default=None,
        help="Controller that the policy imitates before it learns from its own returns, such as heuristic or "
        "schedule:conv@0.2; or 'best schedule', which is found first.",
    )
    imitate_episodes: int = option(
        default=16, help="Episodes of the controller that is imitated, at most train_seeds [count].", at_least=1
    )
    selection_episodes: int = option(
        default=5,
        help="With imitate: held-out random seeds that choose the best schedule, and after each rollout the best "
        "policy so far [count]. 0: the last policy is the result.",
        at_least=0,
        at_most=10_000,
    )
    seed: int = option(default=0, help="Random seed of the policy and of the order of episodes.", at_least=0)
    trust_config: bool = trust_option()
    resume_from: str | None = option(
        default=None, help="Checkpoint to resume from: a run ID, a runs:/ URI or a file.", changes_result=False
    )
    overwrite: bool = option(default=False, help="Replace checkpoints of the same name.", changes_result=False)
    checkpoint_every: int = option(
        default=5, help="Rollouts between checkpoints; the last rollout always has one.", at_least=1
    )
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.", changes_result=False)
    twin_dir: Path | None = option(
        default=None,
        help="Folder that keeps the losses of runs without growth, for later trainings.",
        changes_result=False,
    )
    model_name: str | None = option(
        default="auto",
        help="Name in the model registry; auto is metaopt-controller-<task>-<network>, none registers nothing.",
    )
    comparison_seeds: int = option(
        default=5,
        help="Held-out random seeds on which the new version is compared with the champion, if there is one [count]; "
        "each costs three trainings: with each of the two policies, and without growth. 0: no comparison.",
        at_least=0,
        at_most=10_000,
    )

    def __post_init__(self) -> None:
        """Check each value, the run name, and that the episodes fill whole rollouts.

        Raises:
            InvalidConfig, RunNameError: names the value and the rule.
        """
        super().__post_init__()
        check_run_name(self.run_name)
        if self.episodes % self.episodes_per_rollout:
            raise InvalidConfig(
                f"episodes is {self.episodes}; expected a multiple of {self.episodes_per_rollout}, the number of a "
                f"rollout (n_envs {self.n_envs} · rollout_episodes {self.rollout_episodes})"
            )
        if self.imitate == BEST_SCHEDULE and not self.selection_episodes:
            raise InvalidConfig(
                f"imitate is {BEST_SCHEDULE} and selection_episodes 0; expected 1 or more, on which it is chosen"
            )
        if self.decisions * self.episodes_per_rollout < 2:
            raise InvalidConfig("a rollout has one decision; expected two or more: give more n_envs, or more steps")

    @property
    def episodes_per_rollout(self) -> int:
        """Episodes between two updates of the policy [count]."""
        return self.n_envs * self.rollout_episodes

    @property
    def rollouts(self) -> int:
        """Updates of the policy in all [count]."""
        return self.episodes // self.episodes_per_rollout

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of this training's checkpoints."""
        return self.checkpoint_dir / self.run_name

    def settings(self) -> dict[str, Any]:
        """The values that must be equal when a training is resumed."""
        names = ("reward", "rent", "train_seeds", "n_envs", "rollout_episodes", "hidden", "policy_lr", "minibatch",
                 "ppo_epochs", "discount", "gae_lambda", "clip_range", "entropy", "imitate", "imitate_episodes",
                 "selection_episodes", "seed")  # fmt: skip
        values = self.to_mapping()
        return {name: values[name] for name in names}
