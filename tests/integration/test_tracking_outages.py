"""A store that fails during a run does not end the run, hold it up, or lose what it logged."""

import json
import os
import sqlite3
import threading
import time
from pathlib import Path

import mlflow
import pytest

from metaopt.core.errors import TrackingError
from metaopt.tracking import outbox, start_run, upload_unsent, write_queue


@pytest.fixture
def patient(monkeypatch):
    """Shorter pauses and waits, so that the tests are fast. MLflow itself waits 20 s for a locked file."""
    monkeypatch.setattr(write_queue, "_PAUSES", (0.1, 0.5))
    monkeypatch.setattr(write_queue, "MAX_DELAY", 0.05)
    monkeypatch.setattr(write_queue, "MOMENT", 0.5)
    monkeypatch.setattr(outbox, "PATIENCE", 10.0)
    monkeypatch.setattr(outbox, "PATIENCE_OF_SIGNALS", 0.5)


class Lock:
    """Another writer's lock of the store, in a thread-safe connection."""

    def __init__(self, path):
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("BEGIN EXCLUSIVE")

    def release(self):
        self._connection.execute("ROLLBACK")
        self._connection.close()


def steps_of(client, run_id, name="loss"):
    return sorted(metric.step for metric in client.get_metric_history(run_id, name))


def test_a_locked_store_receives_everything_afterwards(store, client, config, patient, caplog):
    with start_run("locked", config) as tracker:
        lock = Lock(store / "mlflow.db")
        threading.Timer(2.0, lock.release).start()
        begin, longest = time.monotonic(), 0.0
        for step in range(500):
            before = time.monotonic()
            tracker.metrics({"loss": 1 / (step + 1)}, step)
            longest = max(longest, time.monotonic() - before)
        tracker.tags({"order": "first"})
        tracker.tags({"order": "second"})
        tracker.params({"p": 1})
        with tracker.child("during the lock") as child:
            child.metrics({"loss": 3.0}, 0)
        assert time.monotonic() - begin < 2.0, "the training waits for a moment only"
        assert longest < 0.1
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert steps_of(client, tracker.run_id) == list(range(500))
    assert (run.data.tags["order"], run.data.params["p"]) == ("second", "1")
    found = client.get_run(child.run_id)
    assert (found.info.run_name, found.info.status) == ("during the lock", "FINISHED")
    assert found.data.tags["mlflow.parentRunId"] == tracker.run_id
    assert steps_of(client, child.run_id) == [0]
    assert not list(Path().glob("unsent/*"))


def destroyed(database):
    """Overwrite a store with what is no store; returns a function that brings it back.

    The file stays the same one: MLflow keeps connections open, which would still see another file that was moved away.
    """
    kept = database.read_bytes()
    database.write_bytes(b"not a database" * (len(kept) // 14))
    return lambda: database.write_bytes(kept)


def test_what_a_lost_store_did_not_accept_is_kept_and_sent_later(store, client, config, patient, caplog, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 1.0)
    (store / "weights.safetensors").write_bytes(b"abc")
    with start_run("lost", config) as tracker:
        bring_back = destroyed(store / "mlflow.db")
        for step in range(10):
            tracker.metrics({"loss": 0.5}, step)
            time.sleep(0.01)
        tracker.text("# Report", "report.md")
        tracker.files([store / "weights.safetensors"], "trajectory")
        with pytest.raises(RuntimeError), tracker.child("fails") as child:
            raise RuntimeError("no")
        tracker.describe(result="0.5")
    warnings = [record.message for record in caplog.records if "tracking" in record.name]
    assert len(warnings) == 2, warnings
    assert "writes wait" in warnings[0]
    (folder,) = Path("unsent").iterdir()
    assert f"metaopt upload {folder}" in warnings[1]

    with pytest.raises(TrackingError, match="not a database"):
        upload_unsent(folder)
    bring_back()
    assert client.get_run(tracker.run_id).info.status == "RUNNING"
    assert upload_unsent(folder) > 10
    assert not folder.exists()
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert "**Result:** 0.5" in run.data.tags["mlflow.note.content"]
    assert steps_of(client, tracker.run_id) == list(range(10))
    assert {item.path for item in client.list_artifacts(tracker.run_id)} == {"config.json", "report.md", "trajectory"}
    query = f"tags.`mlflow.parentRunId` = '{tracker.run_id}'"
    (found,) = client.search_runs([run.info.experiment_id], query)
    assert (found.info.run_name, found.info.status) == ("fails", "FAILED")
    assert child.run_id.startswith("new-")


def test_each_outage_gives_one_warning(store, client, config, patient, caplog):
    def waiting():
        return sum("writes wait" in record.message for record in caplog.records)

    root = store / "mlruns"
    with start_run("twice", config) as tracker:
        for outage in (1, 2):
            bring_back, moved = destroyed(store / "mlflow.db"), root.rename(store / "moved")
            root.write_text("a file in the place of the folder", encoding="utf-8")
            tracker.metrics({"loss": 0.5}, outage)
            tracker.text("# Note", f"note_{outage}.md")
            deadline = time.monotonic() + 60
            while not (tracker._outbox._records.error and tracker._outbox._files.error):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert waiting() == outage
            root.unlink()
            moved.rename(root)
            bring_back()
            while not tracker._outbox._records.flush() & tracker._outbox._files.flush():
                assert time.monotonic() < deadline
    assert waiting() == 2
    assert steps_of(client, tracker.run_id) == [1, 2]


def test_a_full_artifact_store_keeps_the_files_and_the_status_is_right(store, client, config, patient, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 1.0)
    root = store / "mlruns"
    with start_run("full", config) as tracker:
        moved = root.rename(store / "moved")
        root.write_text("a file in the place of the folder", encoding="utf-8")  # root may write everywhere
        tracker.text("# Report", "report.md")
        tracker.metrics({"loss": 1.0}, 0)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0}
    assert run.data.tags["metaopt.unsent"] == f"unsent/{tracker.run_id}"
    root.unlink()
    moved.rename(root)
    upload_unsent(Path("unsent", tracker.run_id))
    run = client.get_run(tracker.run_id)
    assert "metaopt.unsent" not in run.data.tags
    assert {item.path for item in client.list_artifacts(tracker.run_id)} == {"config.json", "report.md"}


def test_a_store_that_cannot_be_written_is_an_error_before_work(store, client, config, patient):
    (store / "mlruns").write_text("no folder", encoding="utf-8")
    with pytest.raises(TrackingError, match="does not accept files"), start_run("refused", config):
        pytest.fail("the work began")
    (run,) = client.search_runs([client.get_experiment_by_name("metaopt").experiment_id])
    assert run.info.status == "FAILED"
    assert not Path("unsent").exists()


def test_more_writes_than_fit_in_memory_wait_in_a_file_in_order(store, client, config, patient, monkeypatch):
    monkeypatch.setattr(write_queue, "IN_MEMORY", 10)
    with start_run("many", config) as tracker:
        lock = Lock(store / "mlflow.db")
        for step in range(60):
            tracker.metrics({"loss": float(step)}, step)
            tracker.tags({"last": step})
        records = tracker._outbox._records._waiting
        assert len(records._memory) <= 10
        assert len(records) > 100
        lock.release()
    assert steps_of(client, tracker.run_id) == list(range(60))
    assert client.get_run(tracker.run_id).data.tags["last"] == "59"


def test_what_mlflow_refuses_is_left_out_with_one_warning(store, client, config, patient, caplog):
    with start_run("odd", config) as tracker:
        for step in range(3):
            tracker.metrics({"gain's": 1.0, "loss": 1.0}, step)
        tracker.params({"x" * 300: 1})
        tracker.params({"long": "y" * 10_000, "after": 2})
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == {"loss"}
    assert run.data.params["after"] == "2"
    assert len(run.data.params["long"]) == 6000
    assert [("gain's" in record.message) for record in caplog.records if record.levelname == "WARNING"].count(True) == 1


def test_files_that_change_before_their_upload_are_not_uploaded_as_complete(store, client, config, patient, caplog):
    path = store / "weights.safetensors"
    path.write_bytes(b"abc")
    with start_run("changed", config) as tracker:
        lock = Lock(store / "mlflow.db")
        tracker.files([path], "trajectory")
        path.write_bytes(b"abcd")
        lock.release()
    assert "removed or changed" in caplog.text or client.list_artifacts(tracker.run_id, "trajectory")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no unsent writes"),
        (["{}"], "no unsent writes"),
        ([{"kind": "Nothing", "run": "x"}], "no unsent writes"),
        ([{"kind": "UploadFile", "run": "x", "path": "../secret", "folder": None}], "inside the folder"),
        ([{"kind": "UploadFile", "run": "x", "path": "\0", "folder": None}], "null byte"),
        ([{"kind": "UploadFolder", "run": "x", "paths": [], "folder": "x", "manifest": ""}], "no unsent writes"),
        ([{"kind": "LogMetrics", "run": "x", "values": 5}], "no unsent writes"),
        ([{"kind": "EndRun", "run": "new-x", "status": "FINISHED", "end_time": 0}], "no unsent writes"),
        (["[" * 100_000], "no unsent writes"),
    ],
)
def test_a_folder_of_something_else_is_refused(store, tmp_path, lines, message):
    folder = tmp_path / "unsent" / "x"
    folder.mkdir(parents=True)
    header = {"schema": 1, "tracking_uri": mlflow.get_tracking_uri(), "run_ids": {}}
    texts = [line if isinstance(line, str) else json.dumps(line) for line in [header, *lines]]
    if lines:
        (folder / "operations.jsonl").write_text("\n".join(texts), encoding="utf-8")
    with pytest.raises(TrackingError, match=message):
        upload_unsent(folder)


def test_a_pipe_in_a_folder_is_refused_without_waiting(store, tmp_path):
    os.mkfifo(tmp_path / "operations.jsonl")
    with pytest.raises(TrackingError, match="a pipe"):
        upload_unsent(tmp_path)


def test_a_folder_does_not_choose_the_store(store, tmp_path):
    """The user name and the password of the environment are for the user's store only."""
    header = {"schema": 1, "tracking_uri": f"sqlite:///{tmp_path}/other.db", "run_ids": {}}
    (tmp_path / "operations.jsonl").write_text(json.dumps(header) + "\n", encoding="utf-8")
    with pytest.raises(TrackingError, match="set MLFLOW_TRACKING_URI"):
        upload_unsent(tmp_path)
    assert not (tmp_path / "other.db").exists()


def test_the_command_sends_all_folders(module_store, command_line, config, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 0.5)
    with start_run("by command", config) as tracker:
        bring_back = destroyed(module_store / "mlflow.db")
        tracker.metrics({"loss": 1.0}, 0)
    bring_back()
    result = command_line("upload")
    assert result.exit_code == 0, result.output
    assert f"unsent/{tracker.run_id}" in result.output
    assert mlflow.MlflowClient().get_run(tracker.run_id).info.status == "FINISHED"
    assert "nothing to send" in command_line("upload").output
