"""`metaopt upload`: sends what a tracking store did not accept while a run was running."""

from pathlib import Path

import click

from .options import EPILOG
from .output import Result, show


@click.command("upload", epilog=EPILOG)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
def command(folders: tuple[Path, ...]) -> None:
    """Send what a tracking store did not accept while a run was running.

    FOLDERS are those that a run named when it ended, such as `unsent/1b2c…`; without any, all folders in `unsent/`.
    """
    from ..tracking import UNSENT, upload_unsent

    chosen = folders or tuple(sorted(Path(UNSENT).glob("*")))
    counts = {str(folder): upload_unsent(folder) for folder in chosen}
    lines = {folder: f"{count} writes sent" for folder, count in counts.items()}
    show(Result({"sent": counts}, lines or {"nothing to send": f"no folder in {UNSENT}/"}), "upload")
