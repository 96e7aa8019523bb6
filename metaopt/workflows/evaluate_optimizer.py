"""Evaluate a generative optimizer against its baselines, in an MLflow run, and promote it if it is better."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from ..core.config import Range
from ..core.tracker import Tracker
from ..diagnostics import ProbedRun, diagnose
from ..evaluation.config import EvaluateConfig
from ..evaluation.paired_runs import RunSetup
from ..evaluation.promotion import Verdict, verdict
from ..evaluation.results import CHAMPION as CHAMPION_CONTENDER
from ..evaluation.results import Comparison
from ..evaluation.runner import PairedEvaluation, contender_name
from ..evaluation.summary import best_rate
from ..generative.base import GenerativeOptimizer
from ..generative.files import load_optimizer
from ..reporting.publish import publish
from ..reporting.text import case, judgement
from ..tasks import load_task, task_config
from ..tracking import (
    CHAMPION,
    MlflowTracker,
    RunReference,
    add_judgement,
    champion_version,
    is_registered,
    judged_version,
    judges_version,
    promote,
    registered_version,
    run_link,
    start_run,
    version_link,
)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured.

    Attributes:
        run: the MLflow run with the charts and reports.
        comparison: all measurements.
        promotion: what happened to the alias `champion`, in a sentence; None where `promote` was not asked for.
    """

    run: RunReference
    comparison: Comparison
    promotion: str | None


def evaluate(config: EvaluateConfig) -> Evaluation:
    """Load the optimizer, evaluate it in an MLflow run, and promote it where the configuration asks for that.

    Raises:
        MetaoptError: as for `load_optimizer` and `compare`; or the tracking store does not answer.
    """
    candidate = _candidate(config.optimizer) if config.promote else None
    optimizer = load_optimizer(config.optimizer)
    champion = candidate.load_champion() if candidate else None
    version = registered_version(config.optimizer) if is_registered(config.optimizer) else None
    name = f"{version[0]} {version[1]}" if version else PurePath(config.optimizer).stem
    with start_run(f"evaluate {name} on {config.target_model}, {config.task}", config) as tracker:
        tracker.note(see=f"Judged: {version_link(*version) if version else f'`{config.optimizer}`'}")
        comparison = compare_tracked(config, optimizer, tracker, version, champion)
        promotion = candidate.decide(comparison) if candidate else None
        if promotion:
            tracker.tags({"metaopt.promotion": promotion})
            tracker.note(see=promotion)
    return Evaluation(tracker.reference, comparison, promotion)


def compare(
    config: EvaluateConfig,
    optimizer: GenerativeOptimizer,
    tracker: Tracker,
    champion: GenerativeOptimizer | None = None,
) -> Comparison:
    """Compare an optimizer with its baselines on held-out random seeds, and publish the result.

    Args:
        optimizer: the one to evaluate, ready to predict.
        tracker: as for `publish`.
        champion: a further contender: the registered version that it is to beat.
    Raises:
        InvalidConfig, UnknownName, TaskDataError, TrajectoryError: something that the configuration names does not
            exist or cannot be used.
        Diverged: the base optimizer alone diverges at every learning rate.
    """
    task = load_task(config.task, **task_config(config.task, config.task_options, config.data_dir))
    name = contender_name(optimizer)
    told = case(config.to_mapping(), [str(rate) for rate in config.rates])
    tracker.note(does=f"Judges {name}: {told}. Each run below is one contender.")
    rival = {CHAMPION_CONTENDER: champion} if champion is not None else {}
    paired = PairedEvaluation(config, task, {**rival, name: optimizer})
    with paired.shown():
        comparison = paired.compare()
        setup = RunSetup(config, task, config.seed, Range.parse(best_rate(comparison, name)))
        diagnostics = diagnose(ProbedRun(setup, paired.hold(setup).snapshots), optimizer)
    publish(comparison, diagnostics, config, task, tracker)
    return comparison


def compare_tracked(
    config: EvaluateConfig,
    optimizer: GenerativeOptimizer,
    tracker: MlflowTracker,
    version: tuple[str, int] | None,
    champion: GenerativeOptimizer | None = None,
) -> Comparison:
    """The same, with links between the run and the registered version, whose card then shows the result.

    Args:
        version: name and number of the registered version that the optimizer is; None for one that is not registered.
    """
    tracker.tags({"metaopt.phase": "evaluation"})
    if version is not None:
        judges_version(tracker, *version)
    comparison = compare(config, optimizer, tracker, champion)
    if version is not None:
        told, figures = judgement(comparison)
        add_judgement(*version, f"{told} ({run_link(tracker.client, tracker.run_id)})")
        judged_version(tracker, *version, figures, config.steps)
    return comparison


class _Candidate(NamedTuple):
    """A registered version that may become champion, and the version that is champion now."""

    name: str
    version: int
    champion: int | None

    def load_champion(self) -> GenerativeOptimizer | None:
        """The present champion, if that is another version."""
        return None if self.champion in (None, self.version) else load_optimizer(f"models:/{self.name}/{self.champion}")

    def decide(self, comparison: Comparison) -> str:
        """Let the alias point to the candidate if it is better; what was decided, in a sentence."""
        decided = self._verdict(comparison)
        who = f"version {self.version} of {self.name}"
        if not decided.better:
            return f"{who} is not promoted: {decided.reason}"
        promote(self.name, self.version)
        return f"{who} is now {CHAMPION}: {decided.reason}"

    def _verdict(self, comparison: Comparison) -> Verdict:
        if self.champion is None:
            return Verdict(True, "there was no champion yet")
        if self.champion == self.version:
            return Verdict(False, "it is the champion already")
        return verdict(comparison)


def _candidate(source: str) -> _Candidate:
    name, version = registered_version(source)
    return _Candidate(name, version, champion_version(name))
