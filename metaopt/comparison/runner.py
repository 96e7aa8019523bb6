"""Runs the trainings of a comparison in turn: those that are stored are read, the others are run and stored."""

import logging
from collections.abc import Iterator
from dataclasses import replace

from ..core.control import StopRequested, control
from ..core.errors import InvalidConfig
from ..core.progress import progress
from ..core.text import counted
from .checks import check_metrics_equal, check_seeds_differ, chosen_metric, doubts_about_twins
from .config import CompareConfig
from .messages import AdviceOnce
from .results import Arm, Failure, TrainingComparison, TrialResult
from .running import TrialSettings, run_here, run_in_process
from .store import TrialStore
from .training import Training

log = logging.getLogger(__name__)


class ComparisonRunner:
    """Trains a user's function with and without nowcasts.

    Args:
        training: the function.
        config: the comparison.
    Attributes:
        store: its finished trainings.
    Raises:
        MetaoptError: the forecaster of the configuration cannot be loaded.
    """

    def __init__(self, training: Training, config: CompareConfig) -> None:
        self.training, self.config = training, config
        self.store, self._advice = TrialStore(training, config), AdviceOnce()
        if config.processes and training.path is None:
            raise InvalidConfig(
                f"processes is true, but {training.name} is not a function at the top level of a file; move it to a "
                "script, or leave processes out"
            )

    def run(self) -> TrainingComparison:
        """Run all trainings.

        A training that raises is told, and the others go on; those that ended are stored.

        Raises:
            InvalidConfig: the function does not use the trial as it should, or both trainings of the first random seed
                raise.
            StorageError: a training cannot be stored.
            StopRequested: the process was asked to stop; the trainings that ended are stored.
        """
        config, results, failures = self.config, list[TrialResult](), list[Failure]()
        title = f"comparing {self.training.name}, {counted(config.seeds, 'random seed')}"
        with progress(2 * config.seeds, title, "training") as bar:
            for settings in self._trials():
                if control.stop_requested:
                    raise StopRequested
                stored = self.store.read(settings.arm, settings.seed)
                found = stored or self._run(settings)
                if isinstance(found, Failure):
                    failures.append(found)
                    self._check_failures(failures)
                    log.warning("%s", found.sentence)
                    bar.skip(1)
                    continue
                results.append(found)
                self._check(results)
                if stored:
                    bar.skip(1)
                else:
                    bar.update(1, **{next(iter(found.metrics)): next(iter(found.metrics.values()))})
        if not results:
            raise InvalidConfig("; ".join(failure.sentence for failure in failures))
        metric = chosen_metric(self.training.name, [*results[0].metrics], config.metric)
        return TrainingComparison(
            self.training.name,
            metric,
            config.better == "lower",
            config.least,
            list(config.random_seeds),
            [result.with_metric(metric) for result in results],
            failures,
            doubts_about_twins(results),
        )

    def _trials(self) -> Iterator[TrialSettings]:
        """The trainings in their order: the arm that is first changes, so that a warm-up favours neither."""
        for number, seed in enumerate(self.config.random_seeds):
            arms = (Arm.NOWCAST, Arm.PLAIN) if number % 2 == 0 else (Arm.PLAIN, Arm.NOWCAST)
            for arm in arms:
                yield TrialSettings(arm, seed, self.config.forecaster, self.config.nowcast, self.config.ema)

    def _run(self, settings: TrialSettings) -> TrialResult | Failure:
        if self.config.processes:
            found = run_in_process(self.training, settings, self._advice)
        else:
            with self._advice.active():
                found = run_here(self.training, settings)
        if isinstance(found, Failure):
            return found
        found = replace(found, comparison=self.store.comparison)
        self.store.write(found)
        return found

    def _check(self, results: list[TrialResult]) -> None:
        name = self.training.name
        check_metrics_equal(name, results)
        chosen_metric(name, [*results[0].metrics], self.config.metric)
        check_seeds_differ(name, results)

    def _check_failures(self, failures: list[Failure]) -> None:
        """Stop if nothing can be compared: both trainings of the first random seed failed."""
        first = [each for each in failures if each.seed == self.config.seed]
        if len(first) == len(Arm):
            reasons = "; ".join(dict.fromkeys(failure.reason for failure in first))
            raise InvalidConfig(
                f"both trainings of random seed {self.config.seed} failed: {reasons}. Correct the function, and run it "
                "alone first, as in train(metaopt.Trial())"
            )
