"""The main job: records trajectories, trains an optimizer and evaluates it, in one MLflow run."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import Options, Range, option, trust_option
from ..core.devices import ComputeConfig
from ..core.errors import InvalidConfig
from ..evaluation.config import EvaluateConfig
from ..evaluation.promotion import compare_with_champion
from ..evaluation.results import Comparison
from ..evaluation.summary import Summary, at_best_rates
from ..generative.files import load_optimizer
from ..generative.perceiver import PerceiverConfig
from ..metatraining.problem import InnerProblem
from ..metatraining.trained import TrainedOptimizer
from ..metatraining.trainer import TrainOptimizerConfig, claim_checkpoints
from ..recording.record import PreparedRecording, TrainTargetConfig, prepared_recording
from ..reporting.publish import log_candidate
from ..reporting.report import report_markdown
from ..targets import names_code, target_config
from ..tasks import Task
from ..tracking import MlflowTracker, RunReference, link_version, run_link, start_run, version_link
from .evaluate_optimizer import compare_tracked, prepared_comparison
from .model_names import AUTO, check_given_name
from .promotion import Candidate, Promotion
from .register_optimizer import register_version
from .train_optimizer import tracked_training


class MainConfig(ComputeConfig):
    """Settings of the main job: the task, the target, and the size of each phase."""

    run_name: str = option(default="digits", help="Name of the trajectories and checkpoints.")
    task: str = option(default="digits", help="Task to train on.")
    data_dir: Path | None = option(
        default=None, help="Folder of the task's data, for tasks that read files.", changes_result=False
    )
    task_options: Options = option(default={}, help="Further parameters of the task.")
    target_model: str = option(default="MLP", help="Network to train.", runs_code=names_code)
    target_options: Options = option(default={}, help="Parameters of the network.")
    lr: Range = option(default=Range(5e-4, 6e-3), help="Learning rates of the recorded runs, low:high.", above=0.0)
    runs: int = option(
        default=16, help="Trajectories to record [count]; a quarter is held out.", at_least=2, at_most=10_000
    )
    target_epochs: int = option(default=28, help="Epochs of each recorded run.", at_least=1)
    snapshot_every: int = option(default=20, help="Steps between snapshots.", at_least=1)
    averaging: float = option(
        default=0.98,
        help="Decay of the running average of the weights that is recorded, predicted and evaluated; 0 for none.",
        at_least=0.0,
        below=1.0,
    )
    optimizer_options: Options = option(
        default={"start": "slopes", "history": 9, "spacing": "doubling", "gains": True},
        help="Parameters of the Perceiver; by default its untrained forecast is that of the baseline slopes.",
    )
    objective: str = option(default="weights", help="What the optimizer is trained for.")
    optimizer_epochs: int = option(default=8, help="Epochs of meta-training.", at_least=1)
    pairs_per_epoch: int = option(default=1600, help="Pairs per epoch of meta-training [count].", at_least=1)
    generations: int = option(
        default=5,
        help="Generations of evolution after the epochs, which learns the gains of the optimizer; each takes eight "
        "trainings of every recorded network. 0 for none, also for an optimizer without gains.",
        at_least=0,
    )
    evaluation_lr: float = option(default=1e-3, help="Learning rate of the held-out trainings.", above=0.0)
    seeds: int = option(default=10, help="Held-out random seeds of the evaluation [count].", at_least=1, at_most=10_000)
    steps: int = option(default=480, help="Budget of a held-out training [steps].", at_least=2, at_most=1_000_000)
    every: int = option(default=20, help="Steps between nowcasts.", at_least=1)
    horizons: tuple[int, ...] = option(
        default=(20, 60, 160),
        help="Horizons of the candidates at each nowcast, of which the guard accepts the best [steps].",
        at_least=1,
    )
    seed: int = option(default=0, help="Random seed.", at_least=0)
    model_name: str = option(default=AUTO, help="Name in the model registry; auto is metaopt-<task>-<network>.")
    overwrite: bool = option(
        default=True, help="Replace trajectories and checkpoints of the same name.", changes_result=False
    )
    resume: bool = option(
        default=False,
        help="Go on with the trajectories that an earlier main job of the same name has recorded.",
        changes_result=False,
    )
    trust_config: bool = trust_option()

    def __post_init__(self) -> None:
        """Check each value, also those of the optimizer, and that it has what evolution changes.

        Raises:
            InvalidConfig: a value is invalid, or there are generations and no gains.
        """
        super().__post_init__()
        if self.generations and not PerceiverConfig.from_mapping(self.optimizer_options).gains:
            raise InvalidConfig(
                f"generations is {self.generations}, and optimizer_options has no gains for evolution to learn; add "
                "gains=true, or give generations=0"
            )

    def target(self) -> TrainTargetConfig:
        """Configuration of phase 1."""
        return TrainTargetConfig(
            run_name=self.run_name,
            task=self.task,
            data_dir=self.data_dir,
            task_options=self.task_options,
            target_model=self.target_model,
            target_options=self.target_options,
            lr=self.lr,
            runs=self.runs,
            epochs=self.target_epochs,
            snapshot_every=self.snapshot_every,
            averaging=self.averaging,
            checkpoint_every=self.target_epochs,
            seed=self.seed,
            resume=self.resume,
            overwrite=self.overwrite and not self.resume,
            device=self.device,
            threads=self.threads,
        )

    def optimizer(self) -> TrainOptimizerConfig:
        """Configuration of phase 2."""
        return TrainOptimizerConfig(
            run_name=self.run_name,
            optimizer_options=self.optimizer_options,
            objective=self.objective,
            epochs=self.optimizer_epochs,
            pairs_per_epoch=self.pairs_per_epoch,
            seed=self.seed,
            model_name=self.model_name,
            trust_config=self.trust_config,
            overwrite=self.overwrite or self.resume,
            device=self.device,
            threads=self.threads,
        )

    def evolution(self, checkpoint: Path) -> TrainOptimizerConfig:
        """Configuration of the second part of phase 2, which goes on from a checkpoint of the first."""
        return replace(
            self.optimizer(),
            optimizer_options={},
            start_from=str(checkpoint),
            checkpoint_name=f"{self.run_name}_evolved",
            rounds=self.generations,
            method="evolution",
            inner_steps=self.steps,
            every=self.every,
            stride=self.snapshot_every,
            checkpoint_every=self.generations,
        )

    def evaluation(self, checkpoint: Path) -> EvaluateConfig:
        """Configuration of phase 3, with random seeds that no recorded run has."""
        return EvaluateConfig(
            optimizer=str(checkpoint),
            task=self.task,
            data_dir=self.data_dir,
            task_options=self.task_options,
            target_model=self.target_model,
            target_options=self.target_options,
            lr=Range(self.evaluation_lr, self.evaluation_lr),
            steps=self.steps,
            every=self.every,
            horizons=self.horizons,
            stride=self.snapshot_every,
            seed=self.seed + 1000,
            seeds=self.seeds,
            device=self.device,
            threads=self.threads,
        )


@dataclass(frozen=True)
class MainResult:
    """Result of the main job.

    Attributes:
        run: the MLflow run, parent of its phases.
        folders: folders of the recorded trajectories.
        trained: the optimizer and its last checkpoint.
        version: number of the registered version.
        model_uri: URI of that version.
        promotion: which version is champion, and why.
        comparison: the evaluation on held-out random seeds.
    """

    run: RunReference
    folders: list[Path]
    trained: TrainedOptimizer
    version: int
    model_uri: str
    promotion: Promotion
    comparison: Comparison


def main(config: MainConfig) -> MainResult:
    """Record trajectories, train an optimizer on them, register it and evaluate it on held-out random seeds.

    It becomes champion of its task and network if there is no champion, or if it beats the champion in the evaluation.

        from metaopt import workflows

        config = workflows.MainConfig(runs=4, target_epochs=2, optimizer_epochs=1, pairs_per_epoch=16, steps=40)
        result = workflows.main(config)
        print(result.model_uri, result.comparison.candidate)

    Raises:
        MetaoptError: as for the workflows of its phases; or the tracking store cannot be used.
    """
    check_given_name(config.model_name)
    name, tags = f"main job: {config.run_name}", {"metaopt.phase": "main", "metaopt.run_name": config.run_name}
    config.evaluation(Path())
    for training in (config.optimizer(), *([config.evolution(Path())] if config.generations else [])):
        with claim_checkpoints(training, resumed=False):
            pass
    with prepared_recording(config.target()) as recording:
        if config.generations:
            _check_inner_trainings(config, recording.task)
        with start_run(name, config, tags=tags, description=_description(config), folder=recording.folder) as tracker:
            return _run_phases(config, recording, tracker)


def _check_inner_trainings(config: MainConfig, task: Task) -> None:
    """Check that evolution can train the network as phase 1 does.

    Raises:
        InvalidConfig: it cannot.
    """
    options = target_config(config.target_model, task.model_facts, config.target_options)
    try:
        InnerProblem(task, config.target_model, options).check_inner_trainings()
    except InvalidConfig as error:
        raise InvalidConfig(f"{error}; generations=0 leaves evolution out") from error


def _run_phases(config: MainConfig, recording: PreparedRecording, tracker: MlflowTracker) -> MainResult:
    with tracker.child("phase 1: record trajectories") as phase:
        folders = recording.run(phase)
    trained, candidate = _train(config, tracker)
    version = (candidate.name, candidate.version)
    with tracker.child("phase 3: evaluate on held-out random seeds") as phase:
        phase.describe(links=f"Evaluated: {version_link(*version)}")
        case = config.evaluation(trained.checkpoint)
        champion = load_optimizer(candidate.rival) if candidate.rival else None
        with prepared_comparison(case, trained.optimizer, champion) as prepared:
            comparison = compare_tracked(prepared, phase, version)
        promotion = candidate.decide(lambda: compare_with_champion(comparison)).log(phase)
    tracker.dataset(config.task, config.task, recording.task.digest(), "recording, meta-training and evaluation")
    _conclude(tracker, comparison, phase, version)
    return MainResult(tracker.reference, folders, trained, candidate.version, candidate.uri, promotion, comparison)


def _train(config: MainConfig, tracker: MlflowTracker) -> tuple[TrainedOptimizer, Candidate]:
    """Phase 2: epochs on the recordings, then evolution; returns the optimizer and its registered version."""

    def train(part: TrainOptimizerConfig, phase: MlflowTracker) -> TrainedOptimizer:
        with tracked_training(part, tracker.experiment_id, [config.target_model]) as training:
            return training.run(phase)

    with tracker.child("phase 2: train the optimizer") as phase:
        trained = train(config.optimizer(), phase)
        if not config.generations:
            return trained, register_version(trained, config.model_name, phase)
    with tracker.child("phase 2: evolve its gains on whole trainings") as phase:
        trained = train(config.evolution(trained.checkpoint), phase)
        return trained, register_version(trained, config.model_name, phase)


def _description(config: MainConfig) -> str:
    return (
        f"All phases: records {config.runs} trajectories of {config.target_model} on {config.task}, trains a "
        "generative optimizer on them and on whole trainings, registers it and evaluates it on "
        f"{config.seeds} held-out random seeds."
    )


def _conclude(tracker: MlflowTracker, comparison: Comparison, phase: MlflowTracker, version: tuple[str, int]) -> None:
    """Show the result in the main run, with links to the optimizer and to the evaluation."""
    log_candidate(Summary(at_best_rates(comparison)), tracker)
    tracker.text(report_markdown(comparison), "report.md")
    link_version(tracker, *version)
    details = run_link(tracker.client, phase.run_id)
    tracker.describe(links=f"Optimizer: {version_link(*version)}. Figures and contenders: {details}")
