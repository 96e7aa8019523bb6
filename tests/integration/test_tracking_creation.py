"""A new tracking store in SQLite appears as a whole."""

import sqlite3
import threading
import time

from metaopt.tracking import connect

from ..conftest import import_mlflow


def tables(file) -> set[str]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()


def test_a_new_store_has_all_tables_when_it_gets_its_name(tmp_path, monkeypatch):
    """A process that was killed while MLflow made the tables left a store that no process could use or repair."""
    mlflow = import_mlflow()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = tmp_path / "mlflow.db"
    making = threading.Thread(target=connect, args=[f"sqlite:///{file}"])
    making.start()
    try:
        while making.is_alive() and not file.exists():
            time.sleep(0.001)
        first = tables(file)
        making.join()
        assert first == tables(file) >= {"alembic_version", "runs", "experiments"}
        assert not list(tmp_path.glob(".mlflow.db*"))
    finally:
        making.join()
        mlflow.set_tracking_uri(None)
