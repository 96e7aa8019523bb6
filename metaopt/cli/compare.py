"""The command `metaopt compare`."""

from typing import TYPE_CHECKING

import click

from .options import config_command
from .output import Result

if TYPE_CHECKING:
    from ..comparison.config import CompareConfig
    from ..workflows.training_comparison import ComparedTraining


def compare_command(summary: str) -> click.Command:
    """`metaopt compare`."""
    from ..comparison.config import CompareConfig
    from ..workflows.training_comparison import compare_training

    def to_result(compared: "ComparedTraining", config: "CompareConfig") -> Result:
        from ..reporting.training_report import training_table

        found = compared.summary
        facts = {"run_id": compared.run.run_id, **found.to_mapping()}
        lines = {**found.lines, "report": str(compared.run)}
        return Result(facts, lines, [["mlflow", "ui"]], training_table(found), compared.failure is not None)

    return config_command("compare", summary, CompareConfig, compare_training, to_result, argument="train")
