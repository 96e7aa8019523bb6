"""Evaluation of a controller: compares it with others on held-out random seeds, and promotes it if it is better."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import option, trust_option
from ..core.devices import ComputeConfig, device_name, find_device, threads_for
from ..core.errors import InvalidConfig
from ..growth.controllers import Controller
from ..reinforcement.comparison import CHAMPION, Played, compare, compare_with_champion, resolved
from ..reinforcement.comparison_report import comparison_metrics, comparison_report, describe_comparison
from ..reinforcement.config import EpisodeConfig
from ..reinforcement.problem import Problem
from ..reinforcement.twins import Twins
from ..tracking import (
    MlflowTracker,
    RunReference,
    add_evaluation,
    champion_version,
    is_registered,
    link_evaluation,
    policy_file,
    registered_version,
    run_link,
    start_run,
    version_link,
)
from .model_names import controller_name
from .promotion import Candidate, Promotion


class EvaluateControllerConfig(ComputeConfig):
    """Settings of a comparison of controllers. Task, network and training are those that the policy was trained for."""

    controller: str | None = option(
        default=None, help="Policy to evaluate: a file, models:/<name>/<version>, models:/<name>@<alias> or runs:/<ID>."
    )
    against: tuple[str, ...] = option(
        default=(CHAMPION,),
        help="Controllers to compare with: champion, and what train-target --controller takes, such as "
        "heuristic,schedule:conv@0.1.",
    )
    seeds: int = option(
        default=5,
        help="Held-out random seeds [count]; each costs a training with each of the controllers, and one without "
        "growth. A test needs two, a claim five.",
        at_least=1,
        at_most=10_000,
    )
    promote: bool = option(
        default=False, help="Assign the alias champion to the evaluated version if it beats the present champion."
    )
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data; by default that of the training.", changes_result=False
    )
    twin_dir: Path | None = option(
        default=None,
        help="Folder that keeps the losses of runs without growth, for later comparisons.",
        changes_result=False,
    )
    trust_config: bool = trust_option()


@dataclass(frozen=True)
class ControllerEvaluation:
    """Result of a comparison of controllers.

    Attributes:
        run: the MLflow run with the report.
        played: the trainings of each controller, those of the evaluated one first.
        promotion: the decision about the alias `champion`; None if the configuration has no `promote`.
    """

    run: RunReference
    played: list[Played]
    promotion: Promotion | None


def evaluate_policy(config: EvaluateControllerConfig) -> ControllerEvaluation:
    """Compare a controller with the champion and with others, on random seeds on which nothing was trained.

    With `config.promote`, the alias `champion` moves to the evaluated version if that beats the present champion.

        from metaopt import workflows

        trained = workflows.train_policy(
            workflows.TrainControllerConfig(task="digits", steps=60, episodes=2, n_envs=2, train_seeds=2)
        )
        config = workflows.EvaluateControllerConfig(controller=trained.model_uri, against=("heuristic",), seeds=2)
        evaluation = workflows.evaluate_policy(config)
        print([(each.name, each.mean_return) for each in evaluation.played])

    Raises:
        InvalidConfig: no controller is given, or a controller is for other actions.
        TrackingError: the controller does not exist, or `promote` is set and it is no registered version.
        MetaoptError: as for `Problem`, or a training diverges without growth.
    """
    if config.controller is None:
        raise InvalidConfig(
            "no controller given; expected a policy file, models:/<name>/<version>, models:/<name>@<alias> or "
            "runs:/<run ID> of train-controller"
        )
    is_version = config.promote or is_registered(config.controller)
    candidate = Candidate.of(*registered_version(config.controller)) if is_version else None
    with policy_file(config.controller) as path:
        episodes = EpisodeConfig.of_policy(path, trusted=config.trust_config)
        episodes = replace(episodes, data_dir=config.data_dir or episodes.data_dir)
        problem = Problem(episodes, find_device(config.device))
        policy = resolved(problem, str(path))
    rivals = _rivals(config, problem, candidate)
    name = f"{candidate.name} {candidate.version}" if candidate else Path(config.controller).stem
    purpose = (
        f"Evaluates {name}: {episodes.title}, trainings of {episodes.steps} steps, compared on "
        f"{config.seeds} held-out random seeds."
    )
    with (
        threads_for(problem.weights, config.threads),
        start_run(f"evaluate {name} on {episodes.title}", config, description=purpose) as tracker,
    ):
        tracker.tags({"metaopt.phase": "evaluation", "metaopt.device": device_name(problem.device)})
        tracker.dataset(episodes.task, episodes.data_source, problem.facts["data"], "train, guard")
        if candidate is not None:
            tracker.describe(links=f"Evaluated: {version_link(candidate.name, candidate.version)}")
            link_evaluation(tracker, candidate.name, candidate.version)
        twins, controllers = Twins(problem, config.twin_dir), {config.controller: policy, **rivals}
        found = compare_tracked(problem, twins, controllers, config.seeds, tracker, candidate)
        tracker.describe(result=f"{describe_comparison(found)}.")
        if candidate is None or not config.promote:
            return ControllerEvaluation(tracker.reference, found, None)
        promotion = candidate.decide(lambda: compare_with_champion(found)).log(tracker)
        return ControllerEvaluation(tracker.reference, found, promotion)


def compare_tracked(
    problem: Problem,
    twins: Twins,
    controllers: Mapping[str, str | Controller],
    seeds: int,
    tracker: MlflowTracker,
    version: Candidate | None,
) -> list[Played]:
    """Compare controllers on held-out random seeds, and log the figures in a run and on the card of a version.

    Args:
        controllers: by name, the evaluated one first.
        seeds: random seeds [count].
        version: its registered version; None if it is not registered.
    """
    config = problem.config
    found = compare(problem, twins, controllers, config.evaluation_seeds(seeds))
    tracker.metrics(comparison_metrics(found), config.steps)
    tracker.text(comparison_report(config, found), "report.md")
    if version is not None:
        line = f"{describe_comparison(found)} ({run_link(tracker.client, tracker.run_id)})"
        add_evaluation(version.name, version.version, line)
    return found


def _rivals(
    config: EvaluateControllerConfig, problem: Problem, candidate: Candidate | None
) -> dict[str, str | Controller]:
    """The controllers to compare with, without the champion if there is none, or if it is the evaluated version."""
    names = [CHAMPION, *config.against] if config.promote else config.against
    sources = {name: _champion(problem, candidate) if name == CHAMPION else name for name in names}
    return {name: resolved(problem, source) for name, source in sources.items() if source is not None}


def _champion(problem: Problem, candidate: Candidate | None) -> str | None:
    if candidate is not None:
        return candidate.rival
    name = controller_name(problem.config.task, problem.config.target_model)
    return None if champion_version(name) is None else f"models:/{name}@{CHAMPION}"
