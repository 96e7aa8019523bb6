"""The commands: each joins a configuration, a workflow and the output of its result.

A builder imports its workflow when it is called, because MLflow and torch take seconds to import.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.text import counted
from . import operations
from .compare import compare_command
from .next_commands import evaluate_words
from .options import config_command
from .output import Result, plain

if TYPE_CHECKING:
    from ..adapters.export import ExportedAdapter
    from ..evaluation.results import Comparison
    from ..metatraining.trained import TrainedOptimizer
    from ..workflows.diagnose_change import Diagnosed
    from ..workflows.evaluate_controller import ControllerEvaluation
    from ..workflows.evaluate_optimizer import Evaluation
    from ..workflows.generate_weights import GeneratedWeights
    from ..workflows.inspect_weights import Inspected
    from ..workflows.main_job import MainResult
    from ..workflows.promotion import Made
    from ..workflows.record_trajectories import RecordedTrajectories
    from ..workflows.register_optimizer import Registered
    from ..workflows.train_controller import ControllerVersion
    from ..workflows.train_optimizer import TrainedVersion


def main_command(summary: str) -> click.Command:
    """`metaopt main`."""
    from ..workflows import main
    from ..workflows.main_job import MainConfig

    def to_result(result: "MainResult", config: MainConfig) -> Result:
        from ..trajectories import Trajectory

        t_end = Trajectory.open(result.folders[0]).steps[-1] + config.every
        generate = ["metaopt", "generate", "--optimizer", result.model_uri, "--trajectory", str(result.folders[0])]
        return Result(
            {
                "run_id": result.run.run_id,
                "trajectories": result.folders,
                "checkpoint": result.trained.checkpoint,
                "version": result.version,
                "model_uri": result.model_uri,
                "promotion": result.promotion.sentence,
                **_measured(result.comparison),
            },
            {
                "result": _sentence(result.comparison),
                "registered": result.promotion.sentence,
                "report": str(result.run),
            },
            [["mlflow", "ui"], [*generate, "--t-end", str(t_end), "--output", "next.safetensors"]],
            _table(result.comparison),
        )

    return config_command("main", summary, MainConfig, main, to_result)


def train_target_command(summary: str) -> click.Command:
    """`metaopt train-target`."""
    from ..recording.config import TrainTargetConfig
    from ..recording.record import describe_recordings
    from ..workflows import record

    def to_result(recorded: "RecordedTrajectories", config: TrainTargetConfig) -> Result:
        folders, losses = recorded.folders, recorded.validation_losses
        single = len(folders) == 1
        lines = {"recorded": str(folders[0]) if single else f"{len(folders)} trajectories in {folders[0].parent}"}
        if losses:
            lines["result"] = f"validation loss {losses[0]:.4g}" if single else plain(describe_recordings(losses))
        if recorded.twins:
            ratios = (f"{name.replace('_', ' ')} {value:.3g}" for name, value in recorded.twins.items())
            lines["twins"] = ", ".join(ratios)
        default = config.trajectory_dir == Path("trajectories")
        folder = [] if default else ["--trajectory-dir", str(config.trajectory_dir)]
        return Result(
            {"run_id": recorded.run.run_id, "trajectories": folders, "val_loss": losses, "twins": recorded.twins},
            {**lines, "run": str(recorded.run)},
            [["metaopt", "train-optimizer", "--run-name", config.run_name, *folder]],
        )

    return config_command("train-target", summary, TrainTargetConfig, record, to_result)


def train_optimizer_command(summary: str) -> click.Command:
    """`metaopt train-optimizer`."""
    from ..metatraining.config import TrainOptimizerConfig
    from ..workflows import train

    def to_result(result: "TrainedVersion", config: TrainOptimizerConfig) -> Result:
        trained, evaluation, files = result.trained, result.evaluation, {"checkpoint": result.trained.checkpoint}
        if evaluation is None:
            data = config.trajectory_dir, config.mixture, config.data_dir
            words = evaluate_words(result.model_uri or str(trained.checkpoint), trained, *data)
            following = [*filter(None, [words]), *_comparing(words, result)]
            return _result(result, trained.metrics, files, _validation(trained), following)
        shown = _result(result, trained.metrics, files, _sentence(evaluation.comparison), [["mlflow", "ui"]])
        facts = {**shown.facts, "evaluation": _facts(evaluation)}
        lines = {**shown.lines, "report": str(evaluation.run)}
        return Result(facts, lines, shown.next_commands, _table(evaluation.comparison))

    return config_command("train-optimizer", summary, TrainOptimizerConfig, train, to_result)


def train_controller_command(summary: str) -> click.Command:
    """`metaopt train-controller`."""
    from ..reinforcement.config import TrainControllerConfig
    from ..workflows import train_policy

    def to_result(result: "ControllerVersion", config: TrainControllerConfig) -> Result:
        from ..reinforcement.training import describe_training

        trained = result.trained
        data = [] if config.data_dir is None else ["--data-dir", str(config.data_dir)]
        words = ["metaopt", "train-target", "--task", config.task, *data, "--target-model", config.target_model]
        policy = result.model_uri or str(trained.file)
        use = [*words, "--controller", policy, "--run-name", "grown"]
        compare = _comparing(["metaopt", "evaluate-controller", policy], result)
        files = {"policy": trained.file, "checkpoint": trained.checkpoint}
        return _result(result, trained.metrics, files, plain(describe_training(trained)), [use, *compare])

    return config_command("train-controller", summary, TrainControllerConfig, train_policy, to_result)


def register_command(summary: str) -> click.Command:
    """`metaopt register`."""
    from ..workflows import register
    from ..workflows.register_optimizer import RegisterConfig

    def to_result(result: "Registered", config: RegisterConfig) -> Result:
        words = evaluate_words(result.model_uri, result.trained, Path("trajectories"))
        validation = _validation(result.trained)
        following = [*filter(None, [words]), *_comparing(words, result)]
        return _result(result, result.trained.metrics, {}, validation, following)

    return config_command("register", summary, RegisterConfig, register, to_result, argument="checkpoint")


def evaluate_command(summary: str) -> click.Command:
    """`metaopt evaluate`."""
    from ..evaluation.config import EvaluateConfig
    from ..workflows import evaluate

    def to_result(evaluation: "Evaluation", config: EvaluateConfig) -> Result:
        return Result(_facts(evaluation), _lines(evaluation), [["mlflow", "ui"]], _table(evaluation.comparison))

    return config_command("evaluate", summary, EvaluateConfig, evaluate, to_result)


def evaluate_controller_command(summary: str) -> click.Command:
    """`metaopt evaluate-controller`."""
    from ..workflows import evaluate_policy
    from ..workflows.evaluate_controller import EvaluateControllerConfig

    def to_result(evaluation: "ControllerEvaluation", config: EvaluateControllerConfig) -> Result:
        from ..core.text import aligned
        from ..reinforcement.comparison_report import comparison_metrics, comparison_table, describe_comparison

        found, promotion = evaluation.played, evaluation.promotion.sentence if evaluation.promotion else None
        heads, rows = comparison_table(found)
        lines = {"result": plain(describe_comparison(found)), **({"promotion": promotion} if promotion else {})}
        return Result(
            {
                "run_id": evaluation.run.run_id,
                "judged": found[0].name,
                "figures": comparison_metrics(found),
                "standings": [{"controller": each.name, **each.figures} for each in found],
                "promotion": promotion,
            },
            {**lines, "report": str(evaluation.run)},
            [["mlflow", "ui"]],
            "\n".join(aligned([heads, *rows])),
        )

    name = "evaluate-controller"
    return config_command(name, summary, EvaluateControllerConfig, evaluate_policy, to_result, argument="controller")


def generate_command(summary: str) -> click.Command:
    """`metaopt generate`."""
    from ..workflows import generate
    from ..workflows.generate_weights import GenerateConfig

    def to_result(generated: "GeneratedWeights", config: GenerateConfig) -> Result:
        path = generated.file.path
        return Result(
            {"run_id": generated.run.run_id, **generated.file._asdict()},
            {
                "generated": f"{generated.summary}: {path}",
                "run": str(generated.run),
                "use": f"metaopt.load_model_weights(model, {str(path)!r}) in Python",
            },
        )

    return config_command("generate", summary, GenerateConfig, generate, to_result)


def export_adapter_command(summary: str) -> click.Command:
    """`metaopt export-adapter`."""
    from ..workflows import export_adapter
    from ..workflows.adapter_files import ExportAdapterConfig

    def to_result(exported: "ExportedAdapter", config: ExportAdapterConfig) -> Result:
        facts = {"folder": exported.folder, "rank": exported.rank, "modules": list(exported.modules)}
        found = f"{exported.folder}: rank {exported.rank}, {counted(len(exported.modules), 'module')}"
        use = f"peft.PeftModel.from_pretrained(model, {str(exported.folder)!r}) in Python"
        return Result(facts, {"exported": found, "use": use})

    return config_command("export-adapter", summary, ExportAdapterConfig, export_adapter, to_result, argument="weights")


def inspect_command(summary: str) -> click.Command:
    """`metaopt inspect`."""
    from ..workflows import inspect
    from ..workflows.inspect_weights import InspectConfig

    def to_result(inspected: "Inspected", config: InspectConfig) -> Result:
        from ..diagnostics.inspector.report import notes, terminal_text
        from ..diagnostics.inspector.tables import facts

        found = inspected.inspection
        lines = {"notes": "; ".join(notes(found))} if notes(found) else {}
        if inspected.report is not None:
            lines["report"] = str(inspected.report / "report.md")
        return Result({**facts(found), "report": inspected.report}, lines, table=terminal_text(found))

    return config_command("inspect", summary, InspectConfig, inspect, to_result, argument="path")


def diagnose_command(summary: str) -> click.Command:
    """`metaopt diagnose`."""
    from ..workflows import diagnose
    from ..workflows.diagnose_change import DiagnoseConfig

    def to_result(diagnosed: "Diagnosed", config: DiagnoseConfig) -> Result:
        from ..core.text import aligned

        found = diagnosed.diagnosis
        heads, rows = found.table
        lines = {"before": found.before, "after": found.after, "examples": found.examples}
        if found.reasons:
            lines["left out"] = "; ".join(f"{name}: {reason}" for name, reason in found.reasons.items())
        lines["report"] = str(diagnosed.report / "report.md")
        if diagnosed.run_id is not None:
            lines["run"] = f"{diagnosed.run_id} has a copy"
        facts = {**found.facts, "report": diagnosed.report, "run_id": diagnosed.run_id}
        return Result(facts, lines, table="\n".join(aligned([heads, *rows])))

    return config_command("diagnose", summary, DiagnoseConfig, diagnose, to_result, argument="probes")


_MODULES = ("campaign", "config", "hosts", "queue", "reports", "ledger", "list", "upload")
"""Commands that have a module of their own in this room."""


def _of_module(name: str) -> Callable[[str], click.Command]:
    """The builder of a command that a module of this room defines; its summary is its docstring."""

    def build(summary: str) -> click.Command:
        command: click.Command = import_module(f".{name}", __package__).command
        return command

    return build


BUILDERS: Mapping[str, Callable[[str], click.Command]] = {
    "main": main_command,
    "train-target": train_target_command,
    "train-optimizer": train_optimizer_command,
    "train-controller": train_controller_command,
    "evaluate": evaluate_command,
    "evaluate-controller": evaluate_controller_command,
    "compare": compare_command,
    "register": register_command,
    "generate": generate_command,
    "export-adapter": export_adapter_command,
    "inspect": inspect_command,
    "diagnose": diagnose_command,
    "validate": operations.validate_command,
    "worker": operations.worker_command,
    "dashboard": operations.dashboard_command,
    "lineage": operations.lineage_command,
    "prune": operations.prune_command,
    **{name: _of_module(name) for name in _MODULES},
}
"""Builder of each command; its argument is the summary of the command."""


def _validation(trained: "TrainedOptimizer") -> str:
    """How a trained optimizer scored on held-out data."""
    from ..metatraining.trained import describe_validation

    found = describe_validation(trained.metrics) or "nothing was held out to validate on"
    return plain(f"{found}; {trained.setback}" if trained.setback else found)


def _comparing(words: list[str], made: "Made") -> list[list[str]]:
    """The command that compares a version with the champion, unless it was promoted, or nothing is registered."""
    compared = made.promotion is None or made.promotion.promoted
    return [] if compared or not words else [[*words, "--promote", "true"]]


def _result(
    made: "Made", figures: Mapping[str, float], files: Mapping[str, Path], result: str, next_commands: list[list[str]]
) -> Result:
    """What a training or a registration has made: files, a registered version, and which version is champion."""
    uri, promotion = made.model_uri, made.promotion.sentence if made.promotion else None
    version = None if uri is None else int(uri.rpartition("/")[2])
    facts = {"run_id": made.run.run_id, **files, "version": version, "model_uri": uri, "promotion": promotion}
    lines = {**{name: str(path) for name, path in files.items()}, "result": result}
    lines |= {"registered": promotion} if promotion else {}
    return Result({**facts, "figures": figures}, {**lines, "run": str(made.run)}, next_commands)


def _lines(evaluation: "Evaluation") -> dict[str, str]:
    """Summary of an evaluation."""
    promotion = {"promotion": evaluation.promotion.sentence} if evaluation.promotion else {}
    return {"result": _sentence(evaluation.comparison), **promotion, "report": str(evaluation.run)}


def _facts(evaluation: "Evaluation") -> dict[str, Any]:
    """Result of an evaluation as JSON values."""
    promotion = evaluation.promotion.sentence if evaluation.promotion else None
    return {"run_id": evaluation.run.run_id, "promotion": promotion, **_measured(evaluation.comparison)}


def _sentence(comparison: "Comparison") -> str:
    from ..evaluation.summary import Summary, at_best_rates
    from ..reporting.findings import describe_result

    return plain(describe_result(Summary(at_best_rates(comparison))))


def _measured(comparison: "Comparison") -> dict[str, Any]:
    """Figures of the evaluated optimizer and of all contenders."""
    from ..evaluation.summary import Summary, at_best_rates
    from ..reporting.publish import contender_metrics

    summary = Summary(at_best_rates(comparison))
    figures = contender_metrics(summary.candidate)
    return {"judged": comparison.candidate, "figures": figures, **summary.to_mapping()}


def _table(comparison: "Comparison") -> str:
    from ..reporting.report import terminal_table

    return terminal_table(comparison)
