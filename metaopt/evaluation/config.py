"""Configuration of an evaluation: the case, the budget, the random seeds and the baselines."""

from dataclasses import replace
from pathlib import Path

from ..adapters.config import FineTuningConfig
from ..core.clock import fires
from ..core.config import Options, Range, option, trust_option
from ..core.devices import ComputeConfig
from ..core.errors import InvalidConfig
from ..nowcast.policy import NowcastPolicy, PolicyConfig
from ..targets import names_code

BUDGETS = (0.25, 0.5, 0.75, 1.0)
"""Parts of the budget at whose end losses are compared, each schedule with a length of its own."""

DELAYS = (0, 50, 200)
"""Delays after a nowcast at which the loss is compared with hold's [steps]."""

_NO_GROWTH = (
    "the runs of an evaluation are paired, and networks that grow would grow differently in each. Leave it out, to "
    "evaluate on the network as it is without growth"
)


def budgets_of(steps: int) -> tuple[int, ...]:
    """The ends of the parts of a budget, the whole budget last [steps]."""
    return tuple(dict.fromkeys(max(round(part * steps), 1) for part in BUDGETS))


class EvaluateConfig(PolicyConfig, FineTuningConfig, ComputeConfig):
    """One case: a task, a network, a base optimizer, a budget, and held-out random seeds.

        config = EvaluateConfig(optimizer="builtin", target_model="MLP", learning_rates="3e-4,1e-3,3e-3", seeds=5)
        metaopt.workflows.evaluate(config)

    The command `metaopt evaluate` has a flag for each parameter.
    """

    absent = dict.fromkeys(("controller", "growth_options", "grown_as", "twins"), _NO_GROWTH)

    optimizer: str = option(
        default="champion",
        help="Optimizer to evaluate: `champion` of the task and network, `builtin`, a model URI, a run ID or a file.",
    )
    task: str = option(default="digits", help="Task of the training runs.")
    data_dir: Path | None = option(
        default=None, help="Folder of the data, for tasks that read files.", changes_result=False
    )
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="TargetCNN", help="Network to train.", runs_code=names_code)
    target_options: Options = option(default={}, help="Further parameters of the network.")
    base_optimizer: str = option(default="Adam", help="Base optimizer: a class of torch.optim.")
    base_optimizer_options: Options = option(default={}, help="Further keyword arguments of the base optimizer.")
    lr: Range = option(
        default=Range(1e-3, 1e-3), help="Learning rate, or low:high to draw one for each random seed.", above=0.0
    )
    learning_rates: tuple[float, ...] = option(
        default=(),
        help="Learning rates for all contenders, in place of lr; each contender is compared at its best one. "
        "A claim needs three.",
        above=0.0,
    )
    batch_size: int = option(default=64, help="Training examples per step [count].", at_least=1)
    steps: int = option(default=480, help="Budget of every contender [steps].", at_least=2, at_most=1_000_000)
    horizons: tuple[int, ...] = option(
        default=(),
        help="Horizons to propose at each nowcast, of which the guard chooses the best; by default four from half to "
        "eight times `every` [steps].",
        at_least=1,
    )
    seed: int = option(
        default=1000, help="First of consecutive random seeds, all held out from meta-training.", at_least=0
    )
    seeds: int = option(
        default=3, help="Random seeds [count]; an interval needs two, a claim five.", at_least=1, at_most=10_000
    )
    evaluate_every: int = option(
        default=20, help="Steps between two measurements of the validation loss [steps].", at_least=1
    )
    guard_batch: int = option(
        default=128, help="Held-out examples of the guard, drawn again for each nowcast [count].", at_least=1
    )
    baselines: str = option(
        default="quick",
        help="Baselines beside the base optimizer alone and averages of its weights: none; quick, nowcasts without "
        "learned parameters; all, also schedules, trainable averaging, momentum of displacements, Muon, SOAP, and no "
        "guard.",
        choices=("none", "quick", "all"),
    )
    controls: bool = option(default=True, help="Whether to run the controls that must fail.")
    seen: Path | None = option(
        default=None, help="Folder of the meta-training trajectories, to measure the novelty of predictions."
    )
    cache_dir: Path | None = option(
        default=Path("checkpoints/.evaluations"),
        help="Folder that stores finished runs for later evaluations.",
        changes_result=False,
    )
    promote: bool = option(
        default=False, help="Assign the alias champion to the evaluated version if it beats the present champion."
    )
    trust_config: bool = trust_option()
    output: Path | None = option(default=None, help="JSON file for the result.", changes_result=False)
    overwrite: bool = option(default=False, help="Replace an existing file of the result.", changes_result=False)

    def __post_init__(self) -> None:
        """Check the values, and their combination.

        Raises:
            InvalidConfig: a value is out of range, or the budget is too short for a nowcast or for a measurement within
                its first half.
        """
        super().__post_init__()
        _ = self.policy
        if self.every > self.steps:
            raise InvalidConfig(f"every is {self.every}, steps is {self.steps}: no nowcast would take place")
        if 2 * self.evaluate_every > self.steps:
            raise InvalidConfig(
                f"evaluate_every is {self.evaluate_every}, steps is {self.steps}: nothing would be measured in the "
                f"first half; take evaluate_every={self.steps // 2} or less"
            )

    @property
    def rates(self) -> tuple[Range, ...]:
        """The learning rates of all contenders, without duplicates."""
        return tuple(Range(rate, rate) for rate in dict.fromkeys(self.learning_rates)) or (self.lr,)

    @property
    def policy(self) -> NowcastPolicy:
        """The policy of the nowcasts."""
        return replace(super().policy, horizons=self.horizons)

    @property
    def horizon(self) -> int:
        """The horizon of single predictions: the middle one of the horizons [steps]."""
        horizons = sorted(self.policy.all_horizons)
        return horizons[(len(horizons) - 1) // 2]

    @property
    def budgets(self) -> tuple[int, ...]:
        """The ends of the parts of the budget [steps]."""
        return budgets_of(self.steps)

    @property
    def measured_steps(self) -> list[int]:
        """All steps after which the validation loss is measured."""
        return [step for step in range(self.steps + 1) if self.measured_at(step)]

    def measured_at(self, step: int) -> bool:
        """Whether the validation loss is measured after a step.

        It is measured every `evaluate_every` steps, at the ends of the parts of the budget, and after nowcasts if these
        are at least as far apart.
        """
        regular = fires(step, self.evaluate_every)
        after_nowcast = self.every >= self.evaluate_every and step >= self.every and step % self.every in DELAYS
        return step in self.budgets or regular or after_nowcast
