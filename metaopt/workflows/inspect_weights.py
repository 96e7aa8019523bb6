"""Inspection: tells from the headers of safetensors files what they contain, and writes a report."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..adapters.aliases import ALIASES
from ..core.config import Config, option
from ..core.errors import InvalidConfig
from ..core.tracker import Tracker
from ..diagnostics.inspector import Inspection, inspect_files
from ..diagnostics.inspector.report import report_of
from ..diagnostics.report_folder import REPORTS, write_report


class InspectConfig(Config):
    """Settings of an inspection: the files, a comparison, the choice of matrices, and the folder of the report."""

    path: str | None = option(
        default=None, help="File or folder to inspect, runs:/<run ID>/<path>, or models:/<name>@<alias>."
    )
    against: str | None = option(default=None, help="File or folder to compare names and shapes with.")
    aliases: str = option(
        default="wan",
        help="Other spellings of names, for comparisons and choices: wan knows those of Wan and of diffusers.",
        choices=(*ALIASES, "none"),
    )
    include: str | None = option(
        default=None, help="Show the matrices that an adapter would change: names that this regular expression matches."
    )
    exclude: str | None = option(default=None, help="Leave out matrices whose names this regular expression matches.")
    layers: str | None = option(default=None, help="Only matrices in these layers, such as 20-29 or 0,4,8-11.")
    report_dir: Path | None = option(
        default=REPORTS, help="Folder of the report; none writes no report.", changes_result=False
    )


@dataclass(frozen=True)
class Inspected:
    """Result of an inspection: what was found, and the folder of the report; None if none was asked for."""

    inspection: Inspection
    report: Path | None


def inspect(config: InspectConfig, tracker: Tracker | None = None) -> Inspected:
    """Read the headers of safetensors files, and write a report of what they contain.

    Time and memory depend on the number of tensors and not on their size. Only files of a run or of a registered model
    are read as a whole, because they are downloaded.

        from metaopt import workflows

        config = workflows.InspectConfig(path="trajectories/digits/seed_0", include="layers")
        inspected = workflows.inspect(config)
        print(inspected.report, inspected.inspection.networks[0].size)

    Args:
        tracker: a run that receives the files of the report.
    Raises:
        InvalidConfig: nothing to inspect is given, or a choice does not fit the networks.
        FileFormatError: a file is a pickle, damaged or incomplete.
        TrackingError: the run or the model does not exist.
        StorageError: the report cannot be written.
    """
    if config.path is None:
        raise InvalidConfig("nothing to inspect is given; expected a file or a folder: metaopt inspect x.safetensors")
    with ExitStack() as stack:
        inspection = inspect_files(
            stack.enter_context(_local(config.path)),
            config.path,
            against=(stack.enter_context(_local(config.against)), config.against) if config.against else None,
            aliases=config.aliases,
            include=config.include,
            exclude=config.exclude,
            layers=config.layers,
        )
    if config.report_dir is None:
        return Inspected(inspection, None)
    parameters = {name: value for name, value in config.to_mapping().items() if name != "report_dir"}
    return Inspected(inspection, write_report(report_of(inspection, parameters), config.report_dir, tracker))


@contextmanager
def _local(source: str) -> Iterator[Path]:
    """A local path of a file or folder, which is downloaded if it is that of a run or of a registered model."""
    if not source.startswith(("runs:/", "models:/")):
        yield Path(source)
        return
    from ..tracking import download_artifact  # MLflow takes seconds to import

    with tempfile.TemporaryDirectory(prefix="metaopt-") as folder:
        yield download_artifact(source, Path(folder))
