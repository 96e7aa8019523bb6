"""Errors of the tracking store: `TrackingError` with the cause and a remedy, without user names and passwords."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

from ..core.addresses import without_password as without_password
from ..core.errors import MetaoptError, TrackingError
from ..core.text import shortened

_ACCESS_ERRORS = {
    "UNAUTHENTICATED": "a user name and password of the server; set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD",
    "PERMISSION_DENIED": "permission for this; ask the owner on the server, or choose names of your own "
    "(MLFLOW_EXPERIMENT_NAME for runs, --model-name for models)",
}
"""What was expected and what to do, by error code of MLflow, for servers with users."""

MISSING = "RESOURCE_DOES_NOT_EXIST"
"""Error code of MLflow for a run, model or experiment that does not exist."""

_STORE_ERRORS = (MlflowException, SQLAlchemyError, HTTPError)
"""What MLflow raises for a store that fails, besides `OSError`."""

_LONGEST_REASON = 600  # [characters]


@contextmanager
def translate_errors(failure: str, remedy: str) -> Iterator[None]:
    """Replace every error of MLflow and of what it uses by a `TrackingError` with the cause and a remedy.

    No message contains the user name or the password of an address.

    Args:
        failure: what failed, such as "cannot read run 'x'".
        remedy: what to do.
    Raises:
        TrackingError: the address is invalid, a driver is missing, or the store fails, does not respond or denies
            access.
    """
    try:
        yield
    except MetaoptError:
        raise
    except (*_STORE_ERRORS, OSError, ImportError, ValueError) as error:
        default = f"the store to be reachable and the name to exist; {remedy}"
        expected = _ACCESS_ERRORS.get(getattr(error, "error_code", ""), default)
        message = f"{without_password(failure)}: {store_reason(error)}. Expected {without_password(expected)}"
        raise TrackingError(message) from _cause(error)


@contextmanager
def translate_store_errors(client: MlflowClient) -> Iterator[None]:
    """Replace errors of MLflow during a run by a `TrackingError`; other errors pass.

    Raises:
        TrackingError: the store raised an error or no longer responds.
    """
    try:
        yield
    except _STORE_ERRORS as error:
        raise TrackingError(
            f"the tracking store {without_password(client.tracking_uri)} failed: {store_reason(error)}. Expected it to "
            "respond until the run ends; check the store and run again: local files are kept"
        ) from _cause(error)


def store_reason(error: BaseException) -> str:
    """The message of a store's error in one line, shortened, without user names and passwords."""
    line = without_password(" ".join(str(error).split())).rstrip(".") or type(error).__name__
    return shortened(line, _LONGEST_REASON)


def _cause(error: BaseException) -> BaseException | None:
    """The error for a stack trace; None if that would show a password."""
    return error if without_password(str(error)) == str(error) else None
