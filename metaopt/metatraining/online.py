"""Online meta-training: rounds of inner trainings, nowcast by the optimizer that is being trained."""

from collections import defaultdict
from statistics import fmean
from typing import Any

from ..core.progress import Progress, progress
from ..core.rng import generator
from ..core.tracker import Tracker
from .cohort import WARM_UP_COHORTS, Cohort, OnlineSettings, WarmUpTrainings, seed_from
from .config import TrainOptimizerConfig
from .lookahead import forecast_at_best_horizon, lookahead_update
from .mixture import read_mixture
from .objectives import log_loss
from .paired_speedup import paired_speedup
from .state import MetaTrainingState


class OnlineSource:
    """Inner trainings of the components of a mixture, each from its first step.

    Args:
        config: the mixture and the settings of its trainings.
        history: length of the optimizer's history [count].
        averaging: decay of the EMA that the snapshots hold; 0 for the weights themselves.
    Raises:
        InvalidConfig, UnknownName, TaskDataError: a component of the mixture is invalid, or its data is missing.
    """

    held_out_names: list[str]

    def __init__(self, config: TrainOptimizerConfig, history: int, averaging: float) -> None:
        assert config.mixture is not None
        self.components = read_mixture(config.mixture, config.data_dir)
        self.warm_up = config.warm_up
        self.validate_every = config.checkpoint_every
        self.inner = OnlineSettings(config.inner_steps, config.policy, history, averaging, config.task_batch)
        self.seed = config.seed
        self.training_names, self.held_out_names = [each.name for each in self.components], []
        problem_names = (f"{each.config.target_model} on {each.config.task}" for each in self.components)
        self.problem_names = list(dict.fromkeys(problem_names))
        self.layouts = list(dict.fromkeys(each.problem.layout for each in self.components))
        self.stride = float(config.stride)
        self._warm_up_trainings: list[WarmUpTrainings] = []
        self._random = generator(self.seed, -2)
        self._digests = {each.name: each.problem.task.digest() for each in self.components}
        mixture = {each.name: [each.config.to_mapping(), self._digests[each.name]] for each in self.components}
        self.settings: dict[str, Any] = {**config.settings(), "mixture": mixture}

    def log_data(self, tracker: Tracker) -> None:
        """Record each data set of the mixture with a tracker, once."""
        uses: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for each in self.components:
            source = str(each.config.data_dir or "part of the installed packages")
            uses[each.config.task, source, self._digests[each.name]].append(each.name)
        for (task, source, digest), names in uses.items():
            tracker.dataset(task, source, digest, ", ".join(names))

    def updates(self, epoch: int) -> int:
        """Approximate number of updates in a round; the first round includes the warm-up [count]."""
        warm_up = 0 if epoch else self.warm_up
        return warm_up + len(self.components) * max(self.inner.steps // self.inner.policy.every - 1, 1)

    def prepare(self, state: MetaTrainingState) -> None:
        """Run the inner trainings of the warm-up, before the first round."""
        if state.epoch or not self.warm_up:
            return
        steps = len(self.components) * WARM_UP_COHORTS * self.inner.steps
        with progress(steps, "inner trainings of the warm-up") as bar:
            self._warm_up_trainings = [WarmUpTrainings(each, self.inner, self._random, bar) for each in self.components]

    def train(self, state: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """Run a round: a cohort of each component, from its first step to its last.

        The cohorts start one after another, so that consecutive updates come from all stages of training.
        """
        if state.epoch == 0:
            self._train_on_warm_up(state, bar)
        count = len(self.components)
        seeds = [seed_from(self.seed, state.epoch, number) for number in range(count)]
        cohorts = [
            Cohort(each, self.inner, seed, offset=number * self.inner.steps // count)
            for number, (each, seed) in enumerate(zip(self.components, seeds, strict=True))
        ]
        values: dict[str, list[float]] = defaultdict(list)
        while running := [cohort for cohort in cohorts if not cohort.finished]:
            cohort = min(running, key=lambda each: each.round_step)
            update = lookahead_update(state.model, cohort)
            state.update(update.objective)
            bar.update(loss=update.metrics["log_loss_change"])
            for name, value in update.metrics.items():
                values[f"train_{name}"].append(value)
                values[f"train_{name}/{cohort.component.name}"].append(value)
        return {name: fmean(each) for name, each in values.items()}

    def _train_on_warm_up(self, state: MetaTrainingState, bar: Progress) -> None:
        """Minimise the log-loss of forecasts in inner trainings without nowcasts, with many updates per training."""
        random = self._random
        for number in range(self.warm_up):
            trainings = self._warm_up_trainings[number % len(self._warm_up_trainings)]
            problem = trainings.component.problem
            history, times = trainings.draw(random)
            examples = problem.task.sample("meta", self.inner.examples, random)
            predicted = forecast_at_best_horizon(
                state.model, history, times, self.inner.policy, problem, examples, random
            )
            loss = log_loss(problem, predicted, examples).mean()
            state.update(loss)
            bar.update(loss=loss.item())
        self._warm_up_trainings = []  # frees their memory

    def validate(self, state: MetaTrainingState) -> dict[str, float]:
        """Measure the speed-up on one component every `checkpoint_every` rounds, with a random seed that no round uses.

        The components take turns.
        """
        turn, rest = divmod(state.epoch + 1, self.validate_every)
        if rest:
            return {}
        each = self.components[(turn - 1) % len(self.components)]
        result = paired_speedup(state.predictor, each, self.inner.steps, self.inner.policy, seed_from(self.seed, -1, 0))
        return {f"val_{name}/{each.name}": value for name, value in result.items()}
