"""Adds files to a run that has ended, such as a report about what it recorded."""

from collections.abc import Sequence
from pathlib import Path

from .connection import connect, get_run
from .manifests import MANIFEST, manifest_of, to_json
from .store_errors import translate_errors


def attach_files(run_id: str, paths: Sequence[Path], folder: str) -> None:
    """Log files as artifacts of a run, and last a manifest with their SHA-256.

    Raises:
        TrackingError: the store or the run cannot be used, or the store does not accept the files.
    """
    client = connect()
    get_run(client, run_id)
    with translate_errors(f"cannot add files to run {run_id}", "check that the tracking store can be written"):
        for path in paths:
            client.log_artifact(run_id, str(path), folder)
        client.log_text(run_id, to_json(manifest_of(paths)), f"{folder}/{MANIFEST}")
