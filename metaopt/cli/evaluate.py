"""`metaopt evaluate`: judge a generative optimizer."""

from typing import NamedTuple

import click

from ..evaluation import Comparison, EvaluateConfig, Verdict, evaluate, terminal_table, verdict
from ..nowcast import load_optimizer
from ..optimizers.base import GenerativeOptimizer
from ..tracking import CHAMPION, champion_version, promote, registered_version, start_run
from .options import config_command


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


@config_command(EvaluateConfig, "evaluate")
def command(config: EvaluateConfig) -> None:
    """Judge a generative optimizer on held-out random seeds against baselines; a case is a file for --config."""
    candidate = _candidate(config.optimizer) if config.promote else None
    optimizer = load_optimizer(config.optimizer)
    rival = candidate.rival if candidate else None
    with start_run(f"evaluate on {config.task}", config, tags={"metaopt.phase": "evaluation"}) as tracker:
        comparison = evaluate(config, optimizer, tracker, rival)
        said = _decide(candidate, comparison) if candidate else None
        if said:
            tracker.tags({"metaopt.promotion": said})
    click.echo(terminal_table(comparison))
    if said:
        click.echo(said)
    click.echo(f"figures and report.md: run {tracker.run_id} in `mlflow ui`")


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
