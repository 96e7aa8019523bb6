"""The main job: records trajectories, trains an optimizer and evaluates it, in one MLflow run."""

from dataclasses import dataclass
from pathlib import Path

from ..core.config import Options, Range, option, trust_option
from ..core.devices import ComputeConfig
from ..evaluation.config import EvaluateConfig
from ..evaluation.promotion import compare_with_champion
from ..evaluation.results import Comparison
from ..evaluation.summary import Summary, at_best_rates
from ..generative.files import load_optimizer
from ..metatraining.trained import TrainedOptimizer
from ..metatraining.trainer import TrainOptimizerConfig, claim_checkpoints
from ..recording.record import TrainTargetConfig, prepared_recording
from ..reporting.publish import log_candidate
from ..reporting.report import report_markdown
from ..targets import names_code
from ..tracking import MlflowTracker, RunReference, link_version, run_link, start_run, version_link
from .evaluate_optimizer import compare_tracked, prepared_comparison
from .model_names import AUTO, check_given_name
from .promotion import Promotion
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
    objective: str = option(default="mix", help="What the optimizer is trained for.")
    optimizer_epochs: int = option(default=8, help="Epochs of meta-training.", at_least=1)
    pairs_per_epoch: int = option(default=1600, help="Pairs per epoch of meta-training [count].", at_least=1)
    evaluation_lr: float = option(default=1e-3, help="Learning rate of the held-out trainings.", above=0.0)
    seeds: int = option(default=3, help="Held-out random seeds of the evaluation [count].", at_least=1, at_most=10_000)
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
        run: the MLflow run, parent of the three phases.
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
        MetaoptError: as for the workflows of the three phases; or the tracking store cannot be used.
    """
    check_given_name(config.model_name)
    name, tags = f"main job: {config.run_name}", {"metaopt.phase": "main", "metaopt.run_name": config.run_name}
    config.evaluation(Path())
    with claim_checkpoints(config.optimizer(), resumed=False):
        pass
    with (
        prepared_recording(config.target()) as recording,
        start_run(name, config, tags=tags, description=_description(config), folder=recording.folder) as tracker,
    ):
        with tracker.child("phase 1: record trajectories") as phase:
            folders = recording.run(phase)
        with tracker.child("phase 2: train the optimizer") as phase:
            with tracked_training(config.optimizer(), tracker.experiment_id, [config.target_model]) as training:
                trained = training.run(phase)
            candidate = register_version(trained, config.model_name, phase)
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


def _description(config: MainConfig) -> str:
    return (
        f"All phases: records {config.runs} trajectories of {config.target_model} on {config.task}, trains a "
        f"generative optimizer on them, registers it and evaluates it on {config.seeds} held-out random seeds."
    )


def _conclude(tracker: MlflowTracker, comparison: Comparison, phase: MlflowTracker, version: tuple[str, int]) -> None:
    """Show the result in the main run, with links to the optimizer and to the evaluation."""
    log_candidate(Summary(at_best_rates(comparison)), tracker)
    tracker.text(report_markdown(comparison), "report.md")
    link_version(tracker, *version)
    details = run_link(tracker.client, phase.run_id)
    tracker.describe(links=f"Optimizer: {version_link(*version)}. Figures and contenders: {details}")
