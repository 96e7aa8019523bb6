"""What an evaluation compares, and for how long."""

from dataclasses import replace
from pathlib import Path

from ..core.config import Options, Range, option
from ..core.errors import InvalidConfig
from ..nowcast.policy import NowcastPolicy, PolicyConfig

DELAYS = (0, 50, 200)
"""When after a nowcast its worth is measured [steps]."""


class EvaluateConfig(PolicyConfig):
    """One case: a task, a target, a base optimizer, a budget, and held-out random seeds."""

    optimizer: str = option(
        default="models:/metaopt-perceiver@champion",
        help="Optimizer to judge: `builtin`, a model URI, a run ID or a file.",
    )
    task: str = option(default="digits", help="Task that the target is trained on.")
    data_dir: Path | None = option(default=None, help="Folder that holds the task's data, for tasks that read files.")
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="TargetCNN", help="Network that is trained.")
    target_options: Options = option(default={}, help="Further parameters of the network.")
    base_optimizer: str = option(default="Adam", help="Base optimizer: a class of torch.optim.")
    base_optimizer_options: Options = option(default={}, help="Further keyword arguments of the base optimizer.")
    lr: Range = option(
        default=Range(1e-3, 1e-3), help="Learning rate, or low:high to draw one for each random seed.", above=0.0
    )
    learning_rates: tuple[float, ...] = option(
        default=(),
        help="Learning rates to run all contenders at, in place of lr; each is then judged at its best. "
        "A claim needs three.",
        above=0.0,
    )
    batch_size: int = option(default=64, help="Training examples per step [count].", at_least=1)
    steps: int = option(default=480, help="Budget of every contender [steps].", at_least=2)
    horizons: tuple[int, ...] = option(
        default=(),
        help="Horizons to propose at each nowcast, of which the guard keeps the best; four from half to eight times "
        "`every` unless given [steps].",
        at_least=1,
    )
    seed: int = option(
        default=1000, help="First random seed; it and the following must be held out from meta-training.", at_least=0
    )
    seeds: int = option(default=3, help="Random seeds [count]; an interval needs two, a claim five.", at_least=1)
    evaluate_every: int = option(
        default=20, help="Steps from one look at the validation loss to the next [steps].", at_least=1
    )
    guard_batch: int = option(
        default=128, help="Held-out examples that the guard looks at, others at each nowcast [count].", at_least=1
    )
    baselines: str = option(
        default="quick",
        help="Baselines beside hold and what is read out of it: none; quick, nowcasts without anything learned; all, "
        "cosine and schedule-free, too.",
        choices=("none", "quick", "all"),
    )
    controls: bool = option(default=True, help="Whether to run the controls that must fail.")
    seen: Path | None = option(
        default=None, help="Folder of the trajectories of meta-training: predictions are compared with their weights."
    )
    cache_dir: Path | None = option(
        default=Path("checkpoints/.evaluations"), help="Folder that keeps finished twins for later evaluations."
    )
    promote: bool = option(
        default=False, help="Let the alias champion point to the judged version if that beats the present champion."
    )
    output: Path | None = option(default=None, help="JSON file for the result.")

    def __post_init__(self) -> None:
        """Check each value, then that they fit together.

        Raises:
            InvalidConfig: no nowcast, or no look at the early loss, would fit into the budget, or `straight` is no
                cosine.
        """
        super().__post_init__()
        _ = self.policy
        if self.every > self.steps:
            raise InvalidConfig(f"every is {self.every}, steps is {self.steps}: no nowcast would take place")
        if 2 * self.evaluate_every > self.steps:
            raise InvalidConfig(
                f"evaluate_every is {self.evaluate_every}, steps is {self.steps}: nothing is measured early; "
                f"take evaluate_every={self.steps // 2} or less"
            )

    @property
    def rates(self) -> tuple[Range, ...]:
        """The learning rates to compare at."""
        return tuple(Range(rate, rate) for rate in dict.fromkeys(self.learning_rates)) or (self.lr,)

    @property
    def policy(self) -> NowcastPolicy:
        """The policy of the nowcasts."""
        return replace(super().policy, horizons=self.horizons)

    @property
    def horizon(self) -> int:
        """How far ahead single predictions look: the middle one of the horizons [steps]."""
        horizons = sorted(self.policy.all_horizons)
        return horizons[(len(horizons) - 1) // 2]

    @property
    def measured(self) -> list[int]:
        """All steps after which the validation loss is looked at."""
        return [step for step in range(self.steps + 1) if self.measured_at(step)]

    def measured_at(self, step: int) -> bool:
        """Whether the validation loss is looked at after a step: regularly, at the end, and after rare nowcasts."""
        regular = step % self.evaluate_every == 0
        after_nowcast = self.every >= self.evaluate_every and step >= self.every and step % self.every in DELAYS
        return step == self.steps or (step > 0 and (regular or after_nowcast))
