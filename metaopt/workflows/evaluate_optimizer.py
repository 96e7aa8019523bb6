"""Evaluation: compares a generative optimizer with baselines in an MLflow run, and promotes it if it is better."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath

from ..core.config import Range
from ..core.devices import device_name, find_device, threads_for
from ..core.rng import isolated
from ..core.tracker import Tracker
from ..diagnostics import ProbedRun, diagnose
from ..evaluation.config import EvaluateConfig
from ..evaluation.paired_runs import RunSetup
from ..evaluation.promotion import compare_with_champion
from ..evaluation.results import CHAMPION as CHAMPION_CONTENDER
from ..evaluation.results import Comparison
from ..evaluation.runner import PairedEvaluation, contender_name
from ..evaluation.summary import Summary, at_best_rates, best_rate
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..metatraining.trained import trained_network
from ..reporting.findings import describe_case, describe_evaluation
from ..reporting.publish import contender_metrics, publish
from ..targets import get_target_model, target_config
from ..tasks import Task, load_task, task_config
from ..tracking import (
    MlflowTracker,
    RunReference,
    add_evaluation,
    is_registered,
    link_evaluation,
    log_evaluation_metrics,
    registered_version,
    run_link,
    start_run,
    version_link,
)
from ..weights.building import check_memory
from .model_names import CHAMPION_OF_CASE, champion_uri
from .output_file import check_output
from .promotion import Candidate, Promotion


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        run: the MLflow run with charts and reports.
        comparison: all measurements.
        promotion: the decision about the alias `champion`; None if the configuration has no `promote`.
    """

    run: RunReference
    comparison: Comparison
    promotion: Promotion | None


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Compare a generative optimizer with its baselines on held-out random seeds.

    With `config.promote`, the alias `champion` moves to the evaluated version if that beats the current champion.

        from metaopt import workflows

        config = workflows.EvaluateConfig(optimizer="builtin", target_model="MLP", steps=80, seeds=1, controls=False)
        evaluation = workflows.evaluate(config)
        print(evaluation.run, evaluation.comparison.candidate)

    Raises:
        InvalidConfig: the file of `config.output` exists.
        MetaoptError: as for `load_optimizer` and `compare`; or the tracking store cannot be used.
    """
    if config.output is not None:
        check_output(config.output, config.overwrite)
    if config.optimizer == CHAMPION_OF_CASE:
        network = trained_network(config.target_model, config.adapter)
        config = replace(config, optimizer=champion_uri(config.task, network))
    candidate = Candidate.of(*registered_version(config.optimizer)) if config.promote else None
    optimizer = load_optimizer(config.optimizer)
    champion = load_optimizer(candidate.rival) if candidate and candidate.rival else None
    version = registered_version(config.optimizer) if is_registered(config.optimizer) else None
    name = f"{version[0]} {version[1]}" if version else PurePath(config.optimizer).stem
    with (
        prepared_comparison(config, optimizer, champion) as prepared,
        start_run(f"evaluate {name} on {config.target_model}, {config.task}", config) as tracker,
    ):
        tracker.describe(links=f"Evaluated: {version_link(*version) if version else f'`{config.optimizer}`'}")
        comparison = compare_tracked(prepared, tracker, version)
        promotion = candidate.decide(lambda: compare_with_champion(comparison)).log(tracker) if candidate else None
        return Evaluation(tracker.reference, comparison, promotion)


def compare(
    config: EvaluateConfig,
    optimizer: GenerativeOptimizer,
    tracker: Tracker,
    champion: GenerativeOptimizer | None = None,
) -> Comparison:
    """Compare an optimizer with its baselines on held-out random seeds, and publish the measurements.

    Args:
        optimizer: the optimizer to evaluate, in evaluation mode.
        tracker: receives figures, charts and reports.
        champion: the current champion as a further contender.
    Raises:
        InvalidConfig, UnknownName, TaskDataError, TrajectoryError: the configuration is invalid, or names something
            that does not exist.
        Diverged: the base optimizer alone diverges at every learning rate.
    """
    with prepared_comparison(config, optimizer, champion) as prepared:
        return prepared.run(tracker)


@dataclass(frozen=True)
class PreparedComparison:
    """A comparison whose configuration is checked and whose data is loaded."""

    config: EvaluateConfig
    task: Task
    optimizer: GenerativeOptimizer
    paired: PairedEvaluation

    def run(self, tracker: Tracker) -> Comparison:
        """Train all contenders and publish the measurements, as `compare` does."""
        config, name = self.config, contender_name(self.optimizer)
        setting = describe_case(config.to_mapping(), [str(rate) for rate in config.rates])
        tracker.describe(purpose=f"Evaluates {name}: {setting}. Each child run is one contender.")
        tracker.tags({"metaopt.device": device_name(find_device(config.device))})
        with self.paired.progress_bar():
            comparison = self.paired.compare()
            setup = RunSetup(config, self.task, config.seed, Range.parse(best_rate(comparison, name)))
            diagnostics = diagnose(ProbedRun(setup, self.paired.hold_run(setup).snapshots), self.optimizer)
        publish(comparison, diagnostics, config, self.task, tracker)
        return comparison


@contextmanager
def prepared_comparison(
    config: EvaluateConfig, optimizer: GenerativeOptimizer, champion: GenerativeOptimizer | None = None
) -> Iterator[PreparedComparison]:
    """Check all that can be checked, before a run starts in a tracking store.

    Raises:
        MetaoptError: the case is refused, as in `compare`.
    """
    current = {CHAMPION_CONTENDER: champion} if champion is not None else {}
    task, weights = check_case(config)
    with threads_for(weights, config.threads):
        paired = PairedEvaluation(config, task, {**current, contender_name(optimizer): optimizer})
        yield PreparedComparison(config, task, optimizer, paired)


def check_case(config: EvaluateConfig) -> tuple[Task, int]:
    """Check that the network and the base optimizer of a case can be built and fit the task.

    Returns: the task, and the number of trainable weights.
    Raises:
        MetaoptError: something of the case is unknown, invalid or missing.
    """
    task = load_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    options = target_config(config.target_model, task.model_facts, config.target_options)
    check_memory(lambda: get_target_model(config.target_model, **options), config.target_options, copies=3)
    setup = RunSetup(config, task, config.seed)
    with isolated():
        setup.base_optimizer(setup.build())
    return task, setup.layout.size


def compare_tracked(
    prepared: PreparedComparison, tracker: MlflowTracker, version: tuple[str, int] | None
) -> Comparison:
    """Compare, and link the run with the registered version, whose card then shows the result.

    Args:
        version: name and number of the registered version of the optimizer; None if it is not registered.
    """
    tracker.tags({"metaopt.phase": "evaluation"})
    if version is not None:
        link_evaluation(tracker, *version)
    comparison = prepared.run(tracker)
    if version is not None:
        add_evaluation(*version, f"{describe_evaluation(comparison)} ({run_link(tracker.client, tracker.run_id)})")
        metrics = contender_metrics(Summary(at_best_rates(comparison)).candidate)
        log_evaluation_metrics(tracker, *version, metrics, prepared.config.steps)
    return comparison
