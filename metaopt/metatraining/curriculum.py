"""A curriculum of phase 2: stages of training data, from short horizons and small networks to all of it.

The stage advances when the mean of some validation results passes a threshold, and steps back when it fails another.
Each result is that of another checkpoint: a state that is validated twice, as after a resume, counts once.

Easy data first is curriculum learning (Bengio et al. 2009, doi:10.1145/1553374.1553380). Chen et al. 2020,
arXiv:2010.09089, lengthen the inner trainings of learned optimizers in that way. Departs: a stage also bounds the size
of the networks, and a curriculum can go back.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ..core.config import Config, option, read_config_file
from ..core.errors import InvalidConfig, MetaoptError
from ..core.text import shown

OFFLINE_METRICS = ("relative_error", "log_loss_change", "objective")
"""Metrics that recorded pairs can give: the lower, the better."""

ONLINE_METRICS = ("speedup", "final_log_ratio")
"""Metrics of paired inner trainings."""

_HIGHER_IS_BETTER = ("speedup",)
_STAGES = "stages"


class StageConfig(Config):
    """Bounds of the training data of a stage; without any, a stage has all of it."""

    horizon: int | None = option(default=None, help="Longest horizon [steps].", at_least=1)
    weights: int | None = option(default=None, help="Largest network [weights].", at_least=1)
    components: tuple[str, ...] = option(default=(), help="Components of the mixture; all by default. Online only.")
    inner_steps: int | None = option(default=None, help="Longest inner training [steps]. Online only.", at_least=1)


class CurriculumConfig(Config):
    """When a curriculum moves to another stage."""

    metric: str = option(
        default="relative_error",
        help="Validation metric that decides.",
        choices=OFFLINE_METRICS + ONLINE_METRICS,
    )
    checkpoints: int = option(
        default=3, help="Checkpoints whose validation results are averaged [count].", at_least=1, at_most=10_000
    )
    advance_at: float | None = option(default=None, help="Mean from which on the next stage begins.")
    step_back_at: float | None = option(default=None, help="Mean from which on the stage before comes back.")

    def __post_init__(self) -> None:
        """Check each value, and that no mean advances and steps back.

        Raises:
            InvalidConfig: names the value and the rule.
        """
        super().__post_init__()
        (advance_at, step_back_at), sign = self.thresholds, _sign(self.metric)
        if sign * step_back_at <= sign * advance_at:
            raise InvalidConfig(
                f"advance_at is {advance_at:g} and step_back_at {step_back_at:g}, and a "
                f"{'higher' if sign < 0 else 'lower'} {self.metric} is better; expected a worse value of step_back_at"
            )

    @property
    def thresholds(self) -> tuple[float, float]:
        """The means at which a curriculum advances and steps back.

        Raises:
            InvalidConfig: one is missing.
        """
        if self.advance_at is None or self.step_back_at is None:
            name = "advance_at" if self.advance_at is None else "step_back_at"
            raise InvalidConfig(f"{name} is missing; expected a number, the mean {self.metric} at which it happens")
        return self.advance_at, self.step_back_at


class Curriculum:
    """The stages of a meta-training, and the present one.

    The present stage follows from the results that `observe` was given, and from nothing else.

        from metaopt.metatraining.curriculum import Curriculum, CurriculumConfig, StageConfig

        config = CurriculumConfig(checkpoints=2, advance_at=0.9, step_back_at=1.1)
        curriculum = Curriculum(config, [StageConfig(horizon=40), StageConfig()])
        curriculum.observe(step=100, result=0.8)
        curriculum.observe(step=200, result=0.7)
        curriculum.stage.horizon  # None: the second stage has all horizons

    Attributes:
        number: number of the present stage, from 1.
    """

    def __init__(self, config: CurriculumConfig, stages: list[StageConfig]) -> None:
        self.config = config
        self.stages = list(stages)
        self.number = 1
        self._last_step = 0
        self._results: list[float] = []

    @property
    def stage(self) -> StageConfig:
        """The present stage."""
        return self.stages[self.number - 1]

    def observe(self, step: int, result: float | None) -> None:
        """Take the validation result of a checkpoint, and move to another stage if it is time.

        A mean of results moves by one stage, after which it needs as many new results. A result that is not finite is
        a regression by itself.

        Args:
            step: updates before the checkpoint [count]. Results of this or a later checkpoint that are known are kept:
                no checkpoint counts twice.
            result: value of the metric; None if it was not measured.
        """
        if result is None or step <= self._last_step:
            return
        self._last_step = step
        if not math.isfinite(result):
            self._move(-1)
            return
        self._results = [*self._results, result][-self.config.checkpoints :]
        if len(self._results) < self.config.checkpoints:
            return
        (advance_at, step_back_at), sign = self.config.thresholds, _sign(self.config.metric)
        mean = fmean(self._results)
        if sign * mean <= sign * advance_at:
            self._move(+1)
        elif sign * mean >= sign * step_back_at:
            self._move(-1)

    def settings(self) -> dict[str, Any]:
        """The values that must be equal when a training is resumed."""
        return {**self.config.to_mapping(), _STAGES: [stage.to_mapping() for stage in self.stages]}

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"number": self.number, "last_step": self._last_step, "results": list(self._results)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            ValueError: there is no such state.
        """
        number, last_step, results = state["number"], state["last_step"], state["results"]
        counts = all(isinstance(each, int) and not isinstance(each, bool) for each in (number, last_step))
        if not counts or not 1 <= number <= len(self.stages) or last_step < 0:
            raise ValueError(f"a curriculum of {len(self.stages)} stages cannot be at {shown(dict(state))}")
        if len(results) > self.config.checkpoints or not all(math.isfinite(each) for each in results):
            raise ValueError(f"a curriculum cannot have the results {shown(results)}")
        self.number, self._last_step, self._results = number, last_step, [float(each) for each in results]

    def _move(self, stages: int) -> None:
        """Move up or down where there is a stage; new results are collected if the stage changes."""
        number = min(max(self.number + stages, 1), len(self.stages))
        if number != self.number:
            self.number, self._results = number, []


def read_curriculum(path: Path) -> Curriculum:
    """Read a curriculum, at its first stage.

        metric: relative_error
        checkpoints: 3
        advance_at: 0.9
        step_back_at: 1.0
        stages:
        - {horizon: 40, weights: 5000}
        - {}

    Args:
        path: a YAML file.
    Raises:
        InvalidConfig: the file is missing, or a value is invalid; the message names the stage.
    """
    values = read_config_file(path)
    given = values.pop(_STAGES, None)
    if not isinstance(given, list) or not given:
        raise InvalidConfig(f"{path} has the stages {shown(given)}; expected a list such as `- {{horizon: 40}}`")
    try:
        return Curriculum(CurriculumConfig.from_mapping(values), [_stage(*each) for each in enumerate(given, 1)])
    except MetaoptError as error:
        raise InvalidConfig(f"the curriculum {path}: {error}") from error


def _stage(number: int, values: Any) -> StageConfig:
    if not isinstance(values, Mapping):
        raise InvalidConfig(f"stage {number} is {shown(values)}; expected names with values, such as `horizon: 40`")
    try:
        return StageConfig.from_mapping({name.replace("-", "_"): value for name, value in values.items()})
    except MetaoptError as error:
        raise InvalidConfig(f"stage {number}: {error}") from error


def _sign(metric: str) -> int:
    """What a metric is multiplied by so that lower is better."""
    return -1 if metric in _HIGHER_IS_BETTER else 1
