"""Stores that cannot be used, runs that must not be continued, and names that MLflow refuses: errors before work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from metaopt.core.errors import TrackingError
from metaopt.core.process_identity import is_gone, this_process
from metaopt.tracking import check_metric_names, check_model_name, connect, start_run
from metaopt.tracking.store_errors import store_reason, translate_errors, without_password

SECRET = "battery"


@pytest.mark.parametrize(
    "uri",
    [
        "http://[::1",
        f"http://ada:{SECRET}@127.0.0.1:9",
        "sqlite:////proc/x.db",
        f"postgresql+psycopg2://ada:{SECRET}@127.0.0.1:9/runs",
        f"mysql+nodriver://ada:{SECRET}@127.0.0.1:9/runs",
        "nothing://x",
        "sqlite:///",
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_without_passwords_and_soon(store, config, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    begin = time.monotonic()
    with pytest.raises(TrackingError) as raised, start_run("x", config, tracking_uri=uri):
        pytest.fail("the work began")
    assert time.monotonic() - begin < 20
    message, cause = str(raised.value), raised.value.__cause__
    assert "MLFLOW_TRACKING_URI" in message
    assert "\n" not in message
    assert SECRET not in message
    assert SECRET not in str(cause)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://ada:battery@host/x", "at https://host/x"),
        ("postgresql+psycopg2://u:p@ss:1@host:5432/db?sslmode=x", "postgresql+psycopg2://host:5432/db?sslmode=x"),
        ("x?password=abc&y=1", "x?password=***&y=1"),
        ("models:/name@champion and https://host/y", "models:/name@champion and https://host/y"),
    ],
)
def test_messages_contain_no_password(text, shown):
    assert without_password(text) == shown
    assert store_reason(OSError(f"a\n {text}")) == f"a {shown}"


@pytest.mark.parametrize("error", [OSError("x"), ImportError("x"), ValueError("x"), mlflow.MlflowException("x")])
def test_every_error_of_a_store_becomes_a_tracking_error(error):
    with pytest.raises(TrackingError, match="cannot y: x"), translate_errors("cannot y", "z"):
        raise error


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_ended_is_not_continued(store, client, config, monkeypatch, status):
    run_id = client.create_run("0", run_name="done").info.run_id
    client.set_terminated(run_id, status)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(TrackingError, match=f"is {status}; expected a run that is RUNNING"), start_run("x", config):
        pytest.fail("the work began")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params) == (status, {})


def test_a_deleted_run_is_not_continued(store, client, config, monkeypatch):
    run_id = client.create_run("0").info.run_id
    client.delete_run(run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(TrackingError, match="is deleted"), start_run("x", config):
        pytest.fail("the work began")


def test_a_scheduled_run_is_continued(store, client, config, monkeypatch):
    run_id = client.create_run("0").info.run_id
    client.update_run(run_id, status="SCHEDULED")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with start_run("x", config) as tracker:
        assert tracker.run_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"


def test_the_experiment_is_the_one_that_mlflow_would_use(store, client, config, monkeypatch):
    by_id = client.create_experiment("by id")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", by_id)
    with start_run("x", config) as tracker:
        assert tracker.experiment_id == by_id
    with start_run("x", config, experiment="by argument") as tracker:
        assert client.get_experiment(tracker.experiment_id).name == "by argument"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
    with start_run("x", config) as tracker:
        assert client.get_experiment(tracker.experiment_id).name == "by name"


def test_an_experiment_name_that_mlflow_refuses_is_an_error(store, config):
    refused = pytest.raises(TrackingError, match="MLflow refuses the experiment name")
    with refused, start_run("x", config, experiment="e" * 600):
        pytest.fail("the work began")


def test_names_that_mlflow_refuses_are_refused_at_once():
    assert check_model_name("perceiver-v1_2 ü") == "perceiver-v1_2 ü"
    for name in ("perceiver-v1.2", "a/b", "a:b", "a%b", "a'b", "", " ", ".."):
        with pytest.raises(TrackingError, match="MLflow refuses the model name"):
            check_model_name(name)
    check_metric_names(["mlp", "a b/c.d-e"])
    for name in ("it's", "a,b", "a//b", "../a"):
        with pytest.raises(TrackingError, match="MLflow refuses the name"):
            check_metric_names([name])


def test_the_runs_of_a_killed_process_are_closed_by_the_next_run(store, client, config):
    other = client.create_run("0", tags={"metaopt.host": os.uname().nodename, "metaopt.process": "1 0 another boot"})
    code = """
from metaopt.tracking import start_run
from metaopt.workflows.generate_weights import GenerateConfig
import os, signal
with start_run("parent", GenerateConfig(), description="Trains.") as tracker, tracker.child("child"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, cwd=store).returncode == -9
    experiment = client.get_experiment_by_name("metaopt").experiment_id
    assert {run.info.status for run in client.search_runs([experiment])} == {"RUNNING"}
    with start_run("next", config) as tracker:
        found = {run.info.run_name: run for run in client.search_runs([experiment])}
        assert {name: run.info.status for name, run in found.items()} == {
            "parent": "KILLED",
            "child": "KILLED",
            "next": "RUNNING",
        }
    tags = found["parent"].data.tags
    assert tags["metaopt.closed_by"] == tracker.run_id
    assert tags["mlflow.note.content"].startswith("Trains.\n**Result:** stopped: its process ended")
    assert client.get_run(other.info.run_id).info.status == "RUNNING"


def test_only_a_process_of_this_machine_that_ended_is_gone():
    identity = this_process()
    pid, start, machine = identity.split(" ", 2)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_gone(identity)
    assert is_gone(f"{ended.pid} {start} {machine}")
    assert is_gone(f"{pid} 0 {machine}"), "the number belongs to another process now"
    assert not is_gone(f"{ended.pid} {start} another boot")
    assert not is_gone("")


@pytest.mark.parametrize("name", ["100% x", "it's", 'quo"te', "hash#tag", "what?", "with space", "größe", "a&b;c"])
def test_a_working_folder_with_any_name_holds_its_own_store(store, store_template, config, name, monkeypatch):
    folder = store / name
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(store_template.read_bytes())
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(None)
    with start_run("here", config) as tracker:
        tracker.text("x", "report.md")
    assert [path.parent.parent.name for path in folder.glob("mlruns/**/report.md")] == [tracker.run_id]
    assert connect().download_artifacts(tracker.run_id, "report.md")


def test_a_working_folder_whose_name_mlflow_would_decode_is_refused(store, config, monkeypatch):
    folder = store / "a%20b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(TrackingError, match="rename the folder"), start_run("x", config):
        pytest.fail("the work began")
    assert sorted(path.name for path in store.iterdir()) == ["a%20b", "mlflow.db"]
