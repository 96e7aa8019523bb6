"""Registration: makes a trained optimizer a version in the model registry, after its training or later."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.config import Config, option
from ..core.errors import InvalidConfig
from ..metatraining.trained import TrainedOptimizer, describe_validation
from ..tracking import (
    CANDIDATE,
    MlflowTracker,
    check_alias,
    origin_tag,
    promote,
    register_optimizer,
    resolve_checkpoint,
    run_link,
    start_run,
    version_link,
)
from ..trajectories.origin import Generator, Origin
from ..trajectories.parents import file_parents, made_from
from .model_names import AUTO, check_given_name, chosen_name
from .promotion import Candidate, Made, Promotion

_MOST_NAMES = 8  # in a description [count]


class RegisterConfig(Config):
    """Settings of a registration: the checkpoint, the name and an alias."""

    checkpoint: str | None = option(
        default=None, help="Checkpoint to register: a file, a run ID or runs:/<run ID>/checkpoints/<folder>."
    )
    model_name: str = option(default=AUTO, help="Name in the model registry; auto is metaopt-<task>-<network>.")
    alias: str | None = option(
        default=None,
        help="Alias of the version, beside candidate; by default it becomes champion only if there is none.",
    )


@dataclass(frozen=True)
class Registered(Made):
    """Result of a registration.

    Attributes:
        trained: the optimizer, and what is known about its training.
    """

    model_uri: str
    trained: TrainedOptimizer


def register(config: RegisterConfig) -> Registered:
    """Register a checkpoint of `train`, for example one whose training was killed before it was registered.

        from metaopt import workflows

        made = workflows.train(workflows.TrainOptimizerConfig(run_name="digits", epochs=1, model_name=None))
        registered = workflows.register(workflows.RegisterConfig(checkpoint=str(made.trained.checkpoint)))
        print(registered.model_uri, registered.promotion)

    Raises:
        InvalidConfig: no checkpoint is given.
        CheckpointError: the checkpoint does not exist, or does not say what it was trained on.
        FileFormatError: the checkpoint is damaged.
        TrackingError: the run does not exist, the store cannot be used, or MLflow reserves the alias.
    """
    check_given_name(config.model_name)
    if config.alias is not None:
        check_alias(config.alias)
    if config.checkpoint is None:
        raise InvalidConfig("no checkpoint given; expected a file, a run ID or runs:/<run ID>/checkpoints/<folder>")
    with tempfile.TemporaryDirectory() as downloads:
        point = resolve_checkpoint(config.checkpoint, Path(downloads))
        trained = TrainedOptimizer.from_checkpoint(point.path)
        purpose = f"Registers the checkpoint `{config.checkpoint}`."
        tags = {"metaopt.phase": "registration"}
        with start_run(f"register {point.path.stem}", config, tags=tags, description=purpose) as tracker:
            if point.run_id is not None:
                tracker.describe(links=f"Trained by: {run_link(tracker.client, point.run_id)}")
            candidate = register_version(trained, config.model_name, tracker)
            if config.alias in (None, CANDIDATE):
                promotion = candidate.decide()
            else:
                promote(candidate.name, candidate.version, config.alias)
                requested = f"version {candidate.version} of {candidate.name} is now {config.alias}: as requested"
                promotion = Promotion(True, requested)
            return Registered(tracker.reference, candidate.uri, promotion.log(tracker), trained)


def register_version(trained: TrainedOptimizer, name: str, tracker: MlflowTracker) -> Candidate:
    """Register a trained optimizer as a new version of a run, with the alias `candidate`.

    Args:
        name: name in the registry, or `auto`.
    """
    name = chosen_name(name, trained.problem_names, trained.data_name)
    origin = _origin(trained)
    version = register_optimizer(
        tracker,
        trained.optimizer,
        trained.layouts,
        name=name,
        description=_description(trained),
        tags={
            "trained_on": ", ".join(trained.problem_names),
            "averaging": trained.optimizer.averaging,
            **trained.data,
            **origin_tag(origin),
        },
        stride=trained.stride,
        facts={
            "learned_from": trained.training_names,
            "held_out": trained.held_out_names,
            "figures": trained.metrics,
            **made_from(origin.parents),
        },
    )
    tracker.describe(links=f"Registered as {version_link(name, version)}")
    return Candidate.of(name, version)


def _origin(trained: TrainedOptimizer) -> Origin:
    """The checkpoint of a version; the sidecar says more, if there is one."""
    parents = file_parents(trained.checkpoint)
    return Origin(Generator.of("register", {"checkpoint": parents[0].digest}), parents)


def _description(trained: TrainedOptimizer) -> str:
    """The data of a training and its validation metrics, in Markdown."""
    how = "online trainings" if "mixture" in trained.data else "recorded trajectories"
    if "method" in trained.data:
        how = "online trainings like the recorded ones"
    names = _first_names(trained.training_names)
    held_out = f"; held out: {_first_names(trained.held_out_names)}" if trained.held_out_names else ""
    validation = describe_validation(trained.metrics) or "nothing was held out"
    setback = f"; {trained.setback}" if trained.setback else ""
    return (
        f"**Task and data:** {', '.join(trained.problem_names)}; {how}: {names}{held_out}.\n"
        f"**Validation in meta-training:** {validation}{setback}."
    )


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
