"""The connection to the MLflow store: clients, runs and experiments."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking.fluent import _get_experiment_id_from_env
from mlflow.utils.uri import get_uri_scheme

from ..core.errors import TrackingError
from ..core.text import shown
from .names import check_experiment_name
from .store_errors import translate_errors, without_password

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_DEFAULT_EXPERIMENT = "metaopt"

_usable: set[str] = set()  # databases that this process has connected to


def connect(tracking_uri: str | None = None) -> MlflowClient:
    """Connect to the tracking store, which is created if it does not exist.

    A new file of SQLite gets its name when it is complete, so a process that is killed leaves no part of a store, and
    several processes can connect at the same time.

    Args:
        tracking_uri: the store, used by this process from then on. None selects the current store, then
            MLFLOW_TRACKING_URI, then `mlflow.db` in the working directory with artifacts in `mlruns/`.
    Raises:
        TrackingError: the store does not respond.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per file hides metaopt's own
    uri = tracking_uri or mlflow.get_tracking_uri()
    remedy = "start the server, or set MLFLOW_TRACKING_URI to another store, such as sqlite:///mlflow.db"
    with translate_errors(f"the tracking store {uri} cannot be used", remedy):
        _check_database(uri)
        if tracking_uri:
            mlflow.set_tracking_uri(tracking_uri)
        client = MlflowClient(uri)
        with _few_retries():
            client.search_experiments(max_results=1)
    return client


def import_stores() -> None:
    """Import what MLflow imports at the first use of a database, for a process that is forked later."""
    for name in (
        "alembic.command",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about themselves, or about the version of SQLAlchemy
            import_module(name)


def _check_database(uri: str) -> None:
    """Connect to a database once: MLflow repeats it for two minutes, and logs each attempt.

    Raises:
        SQLAlchemyError, OSError, ImportError: the database cannot be used, or its driver is missing.
        TrackingError: MLflow would misread the name of the working directory, where it puts files.
    """
    if get_uri_scheme(uri) not in DATABASE_ENGINES:
        return
    folder = str(Path.cwd())
    if unquote(folder) != folder:
        raise TrackingError(
            f"the working directory is {folder}; MLflow would put files into {unquote(folder)}. Expected no "
            "percent sign with two hexadecimal digits: rename the folder, or set MLFLOW_TRACKING_URI to a server"
        )
    if uri in _usable:
        return
    url = sqlalchemy.make_url(uri)
    if url.database and url.get_backend_name() == "sqlite":
        _make_sqlite(Path(url.database))
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        sqlalchemy.inspect(connection).get_table_names()
    _usable.add(uri)


def _make_sqlite(file: Path) -> None:
    """Make a store in a file that does not exist: MLflow's own way leaves a part of one if the process is killed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder, _few_retries():
        complete = Path(folder, "new.db")
        MlflowClient(f"sqlite:///{complete.absolute()}").search_experiments(max_results=1)
        with suppress(OSError):  # another process was faster, or links are unknown here, and MLflow makes the file
            os.link(complete, file)


@contextmanager
def _few_retries() -> Iterator[None]:
    """Limit retries to seconds: before the work begins, no results can be lost."""
    previous = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "2")
    try:
        yield
    finally:
        if previous is None:
            del os.environ[_RETRIES]


def silence_mlflow() -> None:
    """Turn off MLflow's log messages and hints in this process; its errors are still raised."""
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it logs errors that it also raises
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # else two lines at the end of each run


def get_run(client: MlflowClient, run_id: str) -> Run:
    """Get a run by its ID, including deleted runs, whose files still exist.

    Raises:
        TrackingError: the store has no such run.
    """
    store = without_password(client.tracking_uri)
    remedy = f"find the ID in `mlflow ui`; the current store is {store} (set by MLFLOW_TRACKING_URI)"
    with translate_errors(f"cannot read run {shown(run_id)}", remedy):
        return client.get_run(run_id)


def default_experiment(client: MlflowClient) -> str | None:
    """The ID of the experiment of the next run; None if it does not exist yet."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return str(get_run(client, run_id).info.experiment_id)
    with translate_errors("cannot read the experiment of new runs", "check the name and the store"):
        chosen, name = _chosen_experiment(None)
        if chosen is not None:
            return chosen
        found = client.get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)


def experiment_id(client: MlflowClient, name: str | None) -> str:
    """Get the ID of an experiment (MLflow's term for a group of runs), which is created if missing.

    Args:
        name: None selects the experiment of `mlflow.set_experiment`, MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, or
            "metaopt" if none is set.
    Raises:
        TrackingError: the experiment was deleted, or MLflow refuses its name.
    """
    chosen, name = _chosen_experiment(name)
    found = client.get_experiment(chosen) if chosen else _named_experiment(client, check_experiment_name(name))
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"experiment {shown(found.name)} is deleted; expected an active one. Restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or choose another name"
        )
    return str(found.experiment_id)


def _chosen_experiment(name: str | None) -> tuple[str | None, str]:
    """The ID of the experiment, if it is chosen by its ID, and its name otherwise."""
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    chosen = _get_experiment_id_from_env() if name is None else None  # MLflow also sets it for `set_experiment`
    return str(chosen) if chosen else None, name or _DEFAULT_EXPERIMENT


def _named_experiment(client: MlflowClient, name: str) -> Experiment:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.get_experiment(client.create_experiment(name))
        except MlflowException:  # another process created it at the same time
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found


def store_exists() -> bool:
    """Whether there is a store, which connecting would create."""
    uri = mlflow.get_tracking_uri()
    if get_uri_scheme(uri) not in DATABASE_ENGINES:
        return True
    url = sqlalchemy.make_url(uri)
    return url.get_backend_name() != "sqlite" or not url.database or Path(url.database).exists()
