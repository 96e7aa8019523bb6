"""Configuration of a comparison of a user's own training with and without nowcasts."""

import inspect
from pathlib import Path

from ..core.config import Config, Options, option, trust_option
from ..core.errors import InvalidConfig
from ..core.registry import suggest
from ..core.text import shown

_NOT_OPTIONS = ("self", "base", "model", "forecaster", "guard", "reestimate", "policy", "old_keywords")


class CompareConfig(Config):
    """Settings of a comparison of a user's own training with and without nowcasts."""

    train: str | None = option(
        default=None,
        help="Training function to compare: my_script.py:train, or package.module:train. It takes a Trial.",
        runs_code=lambda name: name is not None,
    )
    seeds: int = option(
        default=3,
        help="Random seeds [count]; each costs a training with nowcasts and one without. An interval needs two, a "
        "claim five.",
        at_least=1,
        at_most=10_000,
    )
    seed: int = option(default=0, help="First of consecutive random seeds.", at_least=0, at_most=2**32 - 10_001)
    metric: str | None = option(
        default=None,
        help="Metric to compare, if the function returns several.",
        changes_result=False,
    )
    better: str = option(
        default="lower",
        help="Whether lower or higher values of the metric are better.",
        choices=("lower", "higher"),
        changes_result=False,
    )
    least: float = option(
        default=0.5,
        help="Size of a difference that counts; below it there is none [% of the metric without nowcasts].",
        at_least=0.0,
        changes_result=False,
    )
    forecaster: str | None = option(
        default=None,
        help="Generative optimizer: builtin, builtin-fast, a model URI, a run ID or a file; by default the one that "
        "the function gives to Trial.optimizer, or builtin.",
    )
    nowcast: Options = option(
        default={}, help="Arguments of Nowcast that replace those of the function, such as every=20 stride=10."
    )
    ema: tuple[float, ...] = option(
        default=(0.9, 0.98, 0.99),
        help="Decays of the running averages of the training without nowcasts, which are free baselines.",
        at_least=0.0,
        below=1.0,
    )
    processes: bool = option(
        default=False,
        help="Run each training in a process of its own, so that none depends on what an earlier one left in memory.",
        changes_result=False,
    )
    cache_dir: Path | None = option(
        default=Path("checkpoints/.comparisons"),
        help="Folder that stores finished trainings, with which the same command goes on.",
        changes_result=False,
    )
    overwrite: bool = option(
        default=False, help="Run trainings again that the folder already contains.", changes_result=False
    )
    trust_config: bool = trust_option()

    def __post_init__(self) -> None:
        """Check the values, and the names of the arguments of `Nowcast`.

        Raises:
            InvalidConfig: a value is out of range, or `Nowcast` has no such argument.
        """
        super().__post_init__()
        if self.nowcast:
            _check_arguments(self.nowcast)

    @property
    def random_seeds(self) -> range:
        """The random seeds of the trainings."""
        return range(self.seed, self.seed + self.seeds)


def _check_arguments(given: Options) -> None:
    from ..nowcast.optimizer import Nowcast  # imports torch, which the other checks do not need

    known = [name for name in inspect.signature(Nowcast.__init__).parameters if name not in _NOT_OPTIONS]
    for name in given:
        if name not in known:
            raise InvalidConfig(f"unknown argument {shown(name)} of Nowcast in nowcast: {suggest(name, known)}")
