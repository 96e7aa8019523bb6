"""`metaopt evaluate`: judge a generative optimizer."""

from pathlib import PurePath
from typing import Any, NamedTuple

from ..evaluation import (
    Comparison,
    EvaluateConfig,
    Summary,
    Verdict,
    at_best_rates,
    evaluate,
    judgement,
    terminal_table,
    verdict,
)
from ..evaluation.headline import result
from ..nowcast import load_optimizer
from ..optimizers.base import GenerativeOptimizer
from ..tracking import (
    CHAMPION,
    MlflowTracker,
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
from .options import config_command
from .results import Result, unmarked, where


class Candidate(NamedTuple):
    """A registered version that would be champion, and the present one's version."""

    name: str
    version: int
    champion: int | None

    @property
    def rival(self) -> GenerativeOptimizer | None:
        """The present champion, if that is another version."""
        return None if self.champion in (None, self.version) else load_optimizer(f"models:/{self.name}/{self.champion}")

    def verdict(self, comparison: Comparison) -> Verdict:
        """Whether it is to be champion, and why."""
        if self.champion is None:
            return Verdict(True, "there was no champion yet")
        if self.champion == self.version:
            return Verdict(False, "it is the champion already")
        return verdict(comparison)


class Judged(NamedTuple):
    """An evaluation that has ended: where it is tracked, what it found, and what became of the alias."""

    tracker: MlflowTracker
    comparison: Comparison
    promotion: str | None

    @property
    def facts(self) -> dict[str, Any]:
        """Everything, for scripts."""
        return {"run_id": self.tracker.run_id, "promotion": self.promotion, **figures_of(self.comparison)}

    @property
    def lines(self) -> dict[str, str]:
        """What came of it, for people."""
        promotion = {"promotion": self.promotion} if self.promotion else {}
        return {"result": in_a_sentence(self.comparison), **promotion, "report": where(self.tracker)}


@config_command(EvaluateConfig, "evaluate")
def command(config: EvaluateConfig) -> Result:
    """Judge a generative optimizer on held-out random seeds against baselines; a case is a file for --config."""
    judged = judge(config)
    return Result(judged.facts, judged.lines, [["mlflow", "ui"]], terminal_table(judged.comparison))


def judge(config: EvaluateConfig) -> Judged:
    """Evaluate in a run of its own, and promote where the configuration asks for it."""
    candidate = _candidate(config.optimizer) if config.promote else None
    optimizer = load_optimizer(config.optimizer)
    rival = candidate.rival if candidate else None
    version = registered_version(config.optimizer) if is_registered(config.optimizer) else None
    with start_run(f"evaluate {_source(config, version)} on {config.target_model}, {config.task}", config) as tracker:
        tracker.note(see=f"Judged: {version_link(*version) if version else f'`{config.optimizer}`'}")
        comparison = evaluate_tracked(config, optimizer, tracker, version, rival)
        said = _decide(candidate, comparison) if candidate else None
        if said:
            tracker.tags({"metaopt.promotion": said})
            tracker.note(see=said)
    return Judged(tracker, comparison, said)


def in_a_sentence(comparison: Comparison) -> str:
    """Whether it worked."""
    return unmarked(result(Summary(at_best_rates(comparison))))


def figures_of(comparison: Comparison) -> dict[str, Any]:
    """What an evaluation found, for scripts: the judged optimizer's figures, and those of all contenders."""
    summary = Summary(at_best_rates(comparison)).to_mapping()
    return {"judged": comparison.judged, "figures": judgement(comparison).figures, **summary}


def evaluate_tracked(
    config: EvaluateConfig,
    optimizer: GenerativeOptimizer,
    tracker: MlflowTracker,
    judged: tuple[str, int] | None,
    rival: GenerativeOptimizer | None = None,
) -> Comparison:
    """Judge with what the tracking server adds: the judged version is linked, and its card says how it did.

    Args:
        judged: name and number of the registered version that the optimizer is; None for one that is not registered.
    """
    tracker.tags({"metaopt.phase": "evaluation"})
    if judged is not None:
        judges_version(tracker, *judged)
    comparison = evaluate(config, optimizer, tracker, rival)
    if judged is not None:
        told, figures = judgement(comparison)
        add_judgement(*judged, f"{told} ({run_link(tracker.client, tracker.run_id)})")
        judged_version(tracker, *judged, figures, config.steps)
    return comparison


def _source(config: EvaluateConfig, judged: tuple[str, int] | None) -> str:
    """What is judged, in a word."""
    return f"{judged[0]} {judged[1]}" if judged else PurePath(config.optimizer).stem


def _candidate(source: str) -> Candidate:
    name, version = registered_version(source)
    return Candidate(name, version, champion_version(name))


def _decide(candidate: Candidate, comparison: Comparison) -> str:
    decided = candidate.verdict(comparison)
    who = f"version {candidate.version} of {candidate.name}"
    if not decided.better:
        return f"{who} is not promoted: {decided.reason}"
    promote(candidate.name, candidate.version)
    return f"{who} is now {CHAMPION}: {decided.reason}"
