"""Closes runs whose process ended without setting a status, as after SIGKILL."""

import logging
import platform

from mlflow import MlflowClient
from mlflow.entities import Run

from ..core.process_identity import is_gone, this_process
from .descriptions import UNKNOWN_RESULT
from .tags import CLOSED_BY_TAG, DESCRIPTION_TAG, HOST_TAG, PROCESS_TAG

_AT_ONCE = 200  # runs that are looked at [count]
_NOTE = "stopped: its process ended without setting a status, as after SIGKILL or a power failure"

log = logging.getLogger(__name__)


def process_tags() -> dict[str, str]:
    """Tags by which a later run can tell whether this process is gone."""
    identity = this_process()
    return {} if identity is None else {HOST_TAG: platform.node(), PROCESS_TAG: identity}


def close_stale_runs(client: MlflowClient, experiment_id: str, closed_by: str) -> None:
    """End the running runs of an experiment whose process is gone as KILLED; those of other machines stay as they are.

    A failure is only logged, because a run does not need it.

    Args:
        closed_by: ID of the run that closes them.
    """
    host = platform.node().replace("'", "")
    query = f"attributes.status = 'RUNNING' and tags.`{HOST_TAG}` = '{host}'"
    try:
        for run in client.search_runs([experiment_id], query, max_results=_AT_ONCE):
            if is_gone(run.data.tags.get(PROCESS_TAG, "")):
                _close(client, run, closed_by)
    except Exception as error:
        log.debug("could not close the runs of processes that are gone: %s", error)


def _close(client: MlflowClient, run: Run, closed_by: str) -> None:
    run_id, description = run.info.run_id, run.data.tags.get(DESCRIPTION_TAG, "")
    result = f"**Result:** {_NOTE}"
    noted = description.replace(UNKNOWN_RESULT, result) if UNKNOWN_RESULT in description else f"{description}\n{result}"
    client.set_tag(run_id, DESCRIPTION_TAG, noted.strip())
    client.set_tag(run_id, CLOSED_BY_TAG, closed_by)
    client.set_terminated(run_id, "KILLED")
    log.info("run %s is closed as KILLED: its process is gone", run_id)
