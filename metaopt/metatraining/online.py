"""Online meta-training: the generative optimizer is trained on training runs that use its own nowcasts."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch

from ..core.devices import CPU
from ..core.errors import InvalidConfig
from ..core.progress import Progress, progress
from ..core.registry import suggest
from ..core.rng import generator
from ..core.text import shown
from ..core.tracker import Tracker
from ..tasks import TASKS
from ..trajectories.origin import Parent, data_set
from ..trajectories.parents import trajectory_parent
from .cohort import WARM_UP_COHORTS, OnlineSettings, WarmUpTrainings, seed_from
from .config import TrainOptimizerConfig, check_length
from .curriculum import ONLINE_METRICS, Curriculum, StageConfig
from .evolution import PAIRS, evolve
from .lookahead import forecast_at_best_horizon, look_ahead
from .mixture import MixtureComponent, read_mixture
from .objectives import log_loss
from .paired_speedup import paired_speedup
from .recorded_components import recorded_components
from .source import recorded_trajectories
from .state import MetaTrainingState
from .trained import problem_name

_METHODS = {"look-ahead": look_ahead, "evolution": evolve}


class OnlineSource:
    """Data source of online meta-training: rounds of inner trainings, on a mixture or on networks like recorded ones.

    Args:
        config: the mixture or the run names, and the settings of the inner trainings.
        history: length of the optimizer's history [count].
        averaging: EMA decay of the weights in the snapshots; 0 without averaging.
        device: device of the optimizer and of the inner trainings.
        trusted_names: dotted paths of networks that trajectories may name, in addition to what `config` trusts.
    Raises:
        InvalidConfig, UnknownName, TaskDataError: a component of the mixture is invalid, or its data is missing.
        TrajectoryError: a trajectory is missing, or does not describe its training.
    """

    held_out_names: list[str]

    def __init__(
        self,
        config: TrainOptimizerConfig,
        history: int,
        averaging: float,
        device: torch.device = CPU,
        trusted_names: Collection[str] = (),
    ) -> None:
        if config.mixture is not None:
            self._recorded = []
            self.components = read_mixture(config.mixture, config.data_dir, trusted=config.trust_config, device=device)
        else:
            self._recorded = recorded_trajectories(config)
            self.components = recorded_components(
                self._recorded,
                config.data_dir,
                trusted=config.trust_config,
                trusted_names=trusted_names,
                device=device,
            )
        self.method = config.method
        self.warm_up = config.warm_up
        self.validate_every = config.checkpoint_every
        self.inner = OnlineSettings(config.inner_steps, config.policy, history, averaging, config.task_batch)
        self.seed = config.seed
        self._names = [each.name for each in self.components]
        self.training_names, self.held_out_names = [each.name for each in self._recorded] or self._names, []
        problem_names = (problem_name(each.config.target_model, each.config.task) for each in self.components)
        self.problem_names = list(dict.fromkeys(problem_names))
        self.layouts = list(dict.fromkeys(each.problem.layout for each in self.components))
        self.stride = float(config.stride)
        self._warm_up_trainings: list[WarmUpTrainings] = []
        self._random = generator(self.seed, -2)
        self._digests = {each.name: each.problem.task.digest() for each in self.components}
        mixture = {each.name: [each.config.to_mapping(), self._digests[each.name]] for each in self.components}
        self.settings: dict[str, Any] = {**config.settings(), "mixture": mixture}

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The trajectories, or each data set of the mixture once."""
        if self._recorded:
            return tuple(map(trajectory_parent, self._recorded))
        configs = {(each.config.task, self._digests[each.name]): each.config for each in self.components}
        return tuple(
            data_set(task, TASKS.get(task).Config.from_mapping(config.task_options), digest)
            for (task, digest), config in configs.items()
        )

    def log_data(self, tracker: Tracker) -> None:
        """Log the trajectories, or each data set of the mixture once."""
        for trajectory in self._recorded:
            tracker.dataset(trajectory.name, str(trajectory.folder), trajectory.digest, "online")
        if self._recorded:
            return
        uses: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for each in self.components:
            source = str(each.config.data_dir or "part of the installed packages")
            uses[each.config.task, source, self._digests[each.name]].append(each.name)
        for (task, source, digest), names in uses.items():
            tracker.dataset(task, source, digest, ", ".join(names))

    def check_curriculum(self, curriculum: Curriculum) -> None:
        """Check that each stage has components.

        Raises:
            InvalidConfig: a stage has none or names an unknown one, or the metric is one of recorded pairs.
        """
        if curriculum.config.metric not in ONLINE_METRICS:
            raise InvalidConfig(
                f"the metric of the curriculum is {curriculum.config.metric}, which online rounds do not measure; "
                f"expected {' or '.join(ONLINE_METRICS)}"
            )
        for number, stage in enumerate(curriculum.stages, 1):
            for name in stage.components:
                if name not in self._names:
                    known = suggest(name, self._names)
                    raise InvalidConfig(f"stage {number} of the curriculum names the component {shown(name)}: {known}")
            if self.method == "evolution" and stage.inner_steps is not None:
                check_length(stage.inner_steps, self.inner.policy.every)
            if not self._components(stage):
                raise InvalidConfig(
                    f"stage {number} of the curriculum has no component of at most {stage.weights} weights; the "
                    f"smallest has {min(each.problem.layout.size for each in self.components):,}"
                )

    def updates(self, epoch: int) -> int:
        """Approximate number of updates in a round, including the warm-up updates in the first round [count].

        In a round of evolution, an update is the training of a candidate.
        """
        if self.method == "evolution":
            return 2 * PAIRS
        warm_up = 0 if epoch else self.warm_up
        return warm_up + len(self.components) * max(self.inner.steps // self.inner.policy.every - 1, 1)

    def prepare(self, state: MetaTrainingState) -> None:
        """Record the snapshots for the warm-up, before the first round."""
        if state.epoch or not self.warm_up:
            return
        stage = _stage(state)
        components, inner = self._components(stage), self._inner(stage)
        steps = len(components) * WARM_UP_COHORTS * inner.steps
        with progress(steps, "inner trainings of the warm-up") as bar:
            self._warm_up_trainings = [WarmUpTrainings(each, inner, self._random, bar) for each in components]

    def train(self, state: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """Run one round, by the method of the configuration; returns the training metrics.

        In the first round, the warm-up updates come first. With a curriculum, the components, the length of the inner
        trainings and the horizons are those of its present stage.
        """
        if state.epoch == 0:
            self._train_on_warm_up(state, bar)
        stage = _stage(state)
        components, inner = self._components(stage), self._inner(stage)
        seeds = [seed_from(self.seed, state.epoch, self._names.index(each.name)) for each in components]
        return _METHODS[self.method](state, components, inner, seeds, bar)

    def _train_on_warm_up(self, state: MetaTrainingState, bar: Progress) -> None:
        """Minimise the log-loss of forecasts from the snapshots of the warm-up.

        The training runs of the warm-up have no nowcasts. Their snapshots are used for many updates.
        """
        random, policy = self._random, self._inner(_stage(state)).policy
        for index in range(self.warm_up):
            trainings = self._warm_up_trainings[index % len(self._warm_up_trainings)]
            problem = trainings.component.problem
            history, times = trainings.draw(random)
            examples = problem.sample("meta", self.inner.examples, random)
            predicted = forecast_at_best_horizon(state.model, history, times, policy, problem, examples, random)
            loss = log_loss(problem, predicted, examples).mean()
            state.update(loss)
            bar.update(loss=loss.item())
        self._warm_up_trainings = []  # free the memory

    def validate(self, state: MetaTrainingState) -> dict[str, float]:
        """Every `checkpoint_every` rounds, measure the speed-up on one component of the mixture.

        The components, those of the present stage if there is a curriculum, are selected in cyclic order. Length and
        horizons are those of the configuration. The random seed differs from all seeds of `train`.

        Returns: the validation metrics; empty in all other rounds.
        """
        turn, rest = divmod(state.epoch + 1, self.validate_every)
        if rest:
            return {}
        components = self._components(_stage(state))
        component = components[(turn - 1) % len(components)]
        seed = seed_from(self.seed, -1, 0)
        result = paired_speedup(state.predictor, component, self.inner.steps, self.inner.policy, seed)
        return {f"val_{name}/{component.name}": value for name, value in result.items()}

    def result(self, curriculum: Curriculum, metrics: Mapping[str, float]) -> float | None:
        """The metric of the curriculum on the component that was validated; None in rounds without validation."""
        prefix = f"val_{curriculum.config.metric}/"
        return next((value for name, value in metrics.items() if name.startswith(prefix)), None)

    def _components(self, stage: StageConfig) -> list[MixtureComponent]:
        """The components of a stage."""
        largest = stage.weights or max(each.problem.layout.size for each in self.components)
        names = stage.components or self._names
        return [each for each in self.components if each.name in names and each.problem.layout.size <= largest]

    def _inner(self, stage: StageConfig) -> OnlineSettings:
        """The settings of inner trainings in a stage. The shortest horizon of the policy always remains."""
        steps, policy = min(self.inner.steps, stage.inner_steps or self.inner.steps), self.inner.policy
        if stage.horizon is not None:
            kept = tuple(each for each in policy.all_horizons if each <= stage.horizon)
            policy = replace(policy, horizons=kept or (min(policy.all_horizons),))
        return self.inner._replace(steps=steps, policy=policy)


def _stage(state: MetaTrainingState) -> StageConfig:
    """The present stage of the curriculum; one without bounds if there is none."""
    return StageConfig() if state.curriculum is None else state.curriculum.stage
