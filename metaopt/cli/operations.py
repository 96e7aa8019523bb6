"""The commands for operations whose flags are the fields of a configuration. They start without torch and MLflow."""

from pathlib import Path

import click

from ..core.text import counted
from .options import config_command
from .output import Result


def validate_command(summary: str) -> click.Command:
    """`metaopt validate`."""
    from ..operations.validation.records import write_records
    from ..operations.validation.running import Report, ValidateConfig, validate

    def run(config: ValidateConfig) -> tuple[Report, list[Path]]:
        report = validate(config.paths, config.level, config.against, config, config.most)
        return report, write_records(report) if config.record else []

    def to_result(found: tuple[Report, list[Path]], config: ValidateConfig) -> Result:
        report, records = found
        failed = len([subject for subject in report.subjects if any(each.count for each in report.of(subject))])
        number = counted(len(report.subjects), "subject")
        result = f"{failed:,} of {number} failed" if failed else f"{number} passed"
        lines = {"result": f"{result} at the level {report.level}"}
        lines |= {"records": counted(len(records), "file")} if records else {}
        return Result({**report.facts(), "records": records}, lines, table=report.table(), failed=report.failed)

    return config_command("validate", summary, ValidateConfig, run, to_result, argument="paths")


def worker_command(summary: str) -> click.Command:
    """`metaopt worker`."""
    from ..operations.executors import WorkersConfig, run_workers

    def to_result(attempts: int, config: WorkersConfig) -> Result:
        return Result({"attempts": attempts}, {"worker ended": f"after {counted(attempts, 'attempt')}"})

    return config_command("worker", summary, WorkersConfig, run_workers, to_result)


def lineage_command(summary: str) -> click.Command:
    """`metaopt lineage`."""
    from ..operations.lineage_files import LineageConfig, show_lineage
    from .ledger import lineage_result

    return config_command("lineage", summary, LineageConfig, show_lineage, lineage_result, argument="model")


def prune_command(summary: str) -> click.Command:
    """`metaopt prune`."""
    from ..operations.pruning import PruneConfig, prune
    from .ledger import pruned_result

    return config_command("prune", summary, PruneConfig, prune, pruned_result)


def dashboard_command(summary: str) -> click.Command:
    """`metaopt dashboard`."""
    from .dashboard import command

    return command(summary)
