"""`metaopt reports`: the reports in a folder, newest first."""

from pathlib import Path

import click

from ..core.text import aligned
from ..diagnostics.report_folder import REPORTS, list_reports
from .options import EPILOG
from .output import Result, show


@click.command("reports", epilog=EPILOG)
@click.option(
    "--report-dir", type=click.Path(path_type=Path), default=REPORTS, show_default=True, help="Folder of the reports."
)
def command(report_dir: Path) -> None:
    """List the reports of inspections and probes, newest first.

    A report is a folder `<tool>/<tag>/` with `report.md`, `summary.json`, `summary.csv` and `inputs.json`.
    """
    found = list_reports(report_dir)
    table = aligned([["created", "report", "title"], *([each.created, str(each.path), each.title] for each in found)])
    facts = {"reports": [{**each._asdict(), "path": str(each.path)} for each in found]}
    lines = {} if found else {"no reports": f"in {report_dir}/"}
    show(Result(facts, lines, table="\n".join(table) if found else ""), "reports")
