"""Runs in a real store: their records, and their status after every kind of end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure

from metaopt.core.errors import TrackingError
from metaopt.tracking import ERROR_TAG, MlflowTracker, outbox, start_run, write_queue

REPOSITORY = Path(__file__).parents[2]


def read(run_id, path, folder):
    return Path(mlflow.MlflowClient().download_artifacts(run_id, path, str(folder))).read_text(encoding="utf-8")


def measure_and_raise(tracker, error):
    tracker.metrics({"loss": 1.0}, 0)
    raise error


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def destroy_and_raise(database, error):
    database.write_bytes(b"not a database" * 1000)
    raise error


def in_a_process(code, folder, *arguments, **options):
    """Start a Python script with the repository on its path, in the folder of the test's store."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    variables |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    prelude = """
    import os, sys, time
    from metaopt.core.config import Config, option
    from metaopt.tracking import start_run
    class C(Config):
        epochs: int = option(default=3, help="How many.")
    """
    script = textwrap.dedent(prelude) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=folder, env=variables, text=True, **options)


def test_a_run_records_its_configuration(store, client, config, tmp_path):
    with start_run("first", config, tags={"metaopt.phase": "target"}, description="**purpose**") as tracker:
        assert client.get_run(tracker.run_id).info.status == "RUNNING"
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params == {"epochs": "3", "lr": "0.001", "note": "none"}
    assert run.data.tags["metaopt.phase"] == "target"
    assert run.data.tags["mlflow.note.content"] == "**purpose**"
    assert json.loads(read(tracker.run_id, "config.json", tmp_path)) == config.to_mapping()
    assert client.get_experiment(run.info.experiment_id).name == "metaopt"


def test_the_default_store_is_a_file_in_the_working_directory(store, config):
    (store / "mlflow.db").unlink()
    with start_run("fresh", config):
        pass
    assert (store / "mlflow.db").is_file()
    assert list((store / "mlruns").iterdir())


def test_another_store_can_be_chosen(store, store_template, config, tmp_path):
    uri = f"sqlite:///{shutil.copyfile(store_template, tmp_path / 'other.db')}"
    with start_run("other", config, tracking_uri=uri, experiment="other") as tracker:
        pass
    assert mlflow.MlflowClient(uri).get_run(tracker.run_id).info.status == "FINISHED"


def test_ten_thousand_metrics_are_stored(store, client, config):
    with start_run("many", config) as tracker:
        for step in range(5000):
            tracker.metrics({"loss/train": 1 / (step + 1), "loss/held_out": float("nan")}, step)
    history = client.get_metric_history(tracker.run_id, "loss/train")
    assert [metric.step for metric in sorted(history, key=lambda metric: metric.step)] == list(range(5000))
    assert len(client.get_metric_history(tracker.run_id, "loss/held_out")) == 5000


def test_metrics_are_written_in_batches_or_after_a_delay(store, client, config, monkeypatch):
    with start_run("batches", config) as tracker:
        tracker.metrics({"loss": 1.0}, 0)
        time.sleep(0.1)
        assert not client.get_run(tracker.run_id).data.metrics
        monkeypatch.setattr(write_queue, "MAX_DELAY", 0.0)
        tracker.metrics({"loss": 0.5}, 1)
        wait_for(lambda: client.get_run(tracker.run_id).data.metrics == {"loss": 0.5})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("loss is NaN at step 7"), "FAILED"),
        (SystemExit(2), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_the_status_of_a_run_that_ended_early_and_its_metrics(store, client, config, error, status):
    with pytest.raises(type(error)) as raised, start_run("ends", config) as tracker:
        measure_and_raise(tracker, error)
    assert raised.value is error
    run = client.get_run(tracker.run_id)
    assert run.info.status == status
    assert run.data.metrics == {"loss": 1.0}
    assert run.data.tags.get(ERROR_TAG) == (f"{type(error).__name__}: {error}" if status == "FAILED" else None)
    assert mlflow.active_run() is None


def test_a_lost_store_does_not_hide_the_error_of_the_run(store, config, caplog, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 0.1)
    with pytest.raises(RuntimeError, match="the real one"), start_run("lost", config):
        destroy_and_raise(store / "mlflow.db", RuntimeError("the real one"))
    assert "metaopt upload unsent/" in caplog.text
    (store / "mlflow.db").unlink()


def test_sigterm_ends_the_run_as_killed(store, client):
    code = """
    with start_run("killed", C()) as tracker:
        tracker.metrics({"loss": 1.0}, 0)
        print(tracker.run_id, flush=True)
        while True:  # one long sleep does not notice a signal that comes just before it
            time.sleep(0.1)
    """
    process = in_a_process(code, store, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert client.get_run(run_id).info.status == "KILLED"
    assert client.get_run(run_id).data.metrics == {"loss": 1.0}


SIGNALS = {
    "Ctrl-C twice": [signal.SIGINT, signal.SIGINT],
    "Ctrl-C many times": [signal.SIGINT] * 8,
    "SIGTERM, then Ctrl-C": [signal.SIGTERM, signal.SIGINT],
    "a closed terminal": [signal.SIGHUP],
}


def test_several_signals_end_a_run_as_killed_without_a_stack_trace(store, client):
    code = """
    import mlflow.store.tracking.sqlalchemy_store, signal  # once, not in each process
    from metaopt.core.signals import terminable
    for name in sys.argv[1:]:
        if not os.fork():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                with terminable(until_exit=True), start_run(name, C()) as tracker:
                    print(os.getpid(), tracker.run_id, name, sep="|", flush=True)
                    while True:
                        time.sleep(0.1)
            except KeyboardInterrupt:
                sys.exit(130)
    for _ in sys.argv[1:]:
        os.wait()
    """
    process = in_a_process(code, store, *SIGNALS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    runs = {}
    for _ in SIGNALS:
        pid, run_id, name = process.stdout.readline().strip().split("|")
        for signum in SIGNALS[name]:
            os.kill(int(pid), signum)
            time.sleep(0.003)
        runs[name] = run_id
    _, errors = process.communicate(timeout=60)
    assert {name: client.get_run(run_id).info.status for name, run_id in runs.items()} == dict.fromkeys(
        SIGNALS, "KILLED"
    )
    assert "Traceback" not in errors


def test_the_signal_handler_is_restored(store, config):
    before = signal.getsignal(signal.SIGTERM)
    with start_run("handler", config):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_can_be_in_another_thread(store, client, config):
    ids = []

    def train():
        with start_run("threaded", config) as tracker:
            ids.append(tracker.run_id)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert client.get_run(ids[0]).info.status == "FINISHED"


def test_a_launched_run_is_continued(store, client, config, monkeypatch):
    group = client.create_experiment("launched")
    run_id = client.create_run(group, run_name="by launcher").info.run_id
    client.log_param(run_id, "lr", "'1e-3'")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with start_run("ours", config, experiment="not this one", tags={"metaopt.phase": "target"}) as tracker:
        assert tracker.run_id == run_id
        assert "MLFLOW_RUN_ID" not in os.environ
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.experiment_id, run.info.status) == ("by launcher", group, "FINISHED")
    assert run.data.params == {"lr": "'1e-3'", "epochs": "3", "note": "none"}
    assert client.get_experiment_by_name("not this one") is None


def test_a_missing_launched_run_is_an_error(store, config, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(TrackingError, match="MLFLOW_RUN_ID"), start_run("ours", config):
        pass


def test_existing_parameters_keep_their_values(store, client, config):
    with start_run("params", config) as tracker:
        tracker.params(
            {"epochs": 99, "target_config": {"hidden": 64}, "nested": True, **{f"p{i}": i for i in range(150)}}
        )
    params = client.get_run(tracker.run_id).data.params
    assert (params["epochs"], params["target_config"], params["nested"]) == ("3", '{"hidden": 64}', "true")
    assert params["p149"] == "149"


def test_child_runs_have_their_own_status_and_metrics(store, client, config):
    with start_run("parent", config) as parent:
        with parent.child("good") as good:
            good.metrics({"loss": 1.0}, 3)
        with pytest.raises(RuntimeError), parent.child("bad") as bad:
            raise RuntimeError("no")
        assert client.get_run(parent.run_id).info.status == "RUNNING"
    for child, status in ((good, "FINISHED"), (bad, "FAILED")):
        run = client.get_run(child.run_id)
        assert run.info.status == status
        assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert client.get_run(good.run_id).data.metrics == {"loss": 1.0}
    assert not client.get_run(parent.run_id).data.metrics


def test_a_run_of_another_process_can_have_a_parent(store, client, config):
    with start_run("parent", config, experiment="family") as parent:
        pass
    with start_run("worker", config, parent=parent.run_id) as worker:
        pass
    run = client.get_run(worker.run_id)
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert client.get_experiment(run.info.experiment_id).name == "family"


def test_data_sets_are_inputs_of_the_run(store, client, config):
    with start_run("data", config) as tracker:
        tracker.dataset("digits", "scikit-learn", "d" * 64, "training")
        tracker.dataset("mnist", "https://example.org/mnist.gz", "e" * 32, "held out")
    inputs = {each.dataset.name: each for each in client.get_run(tracker.run_id).inputs.dataset_inputs}
    assert inputs["digits"].dataset.digest == "d" * 36
    assert inputs["mnist"].dataset.source_type == "http"
    assert [(tag.key, tag.value) for tag in inputs["mnist"].tags] == [("mlflow.data.context", "held out")]


def test_concurrent_runs_record_the_same_data_set(store, client):
    runs = [client.create_run("0").info.run_id for _ in range(4)]
    trackers = [MlflowTracker(outbox.Outbox(client.tracking_uri, run), run) for run in runs]
    names, barrier = [f"data {number}" for number in range(4)], threading.Barrier(len(trackers))

    def record(tracker):
        for name in names:
            barrier.wait(timeout=20)
            tracker.dataset(name, "scikit-learn", "d" * 36, "training")
        tracker.flush()

    with ThreadPoolExecutor(len(trackers)) as pool:
        list(pool.map(record, trackers))
    for tracker in trackers:
        inputs = client.get_run(tracker.run_id).inputs.dataset_inputs
        assert sorted(each.dataset.name for each in inputs) == names


def test_texts_figures_and_files_become_artifacts(store, client, config, tmp_path):
    figure = Figure()
    figure.subplots().plot(np.arange(3))
    (tmp_path / "a.safetensors").write_bytes(b"abc")
    with start_run("artifacts", config) as tracker:
        tracker.text("# Report", "report.md")
        tracker.figure(figure, "figures/loss")
        tracker.files([tmp_path / "a.safetensors"], "checkpoints/epoch_0000")
    assert read(tracker.run_id, "report.md", tmp_path) == "# Report"
    assert [item.path for item in client.list_artifacts(tracker.run_id, "figures")] == [
        "figures/loss.png",
        "figures/loss.svg",
    ]
    manifest = json.loads(read(tracker.run_id, "checkpoints/epoch_0000/manifest.json", tmp_path))
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest == {"schema": 1, "files": {"a.safetensors": {"size": 3, "sha256": sha256}}}


def test_files_of_the_same_name_are_rejected(store, config, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text(folder)
    with pytest.raises(TrackingError, match="different names"), start_run("clash", config) as tracker:
        tracker.files([tmp_path / "one" / "a", tmp_path / "two" / "a"], "folder")


def test_a_deleted_experiment_is_an_error(store, client, config):
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(TrackingError, match="mlflow experiments restore"), start_run("x", config, experiment="gone"):
        pass


@pytest.mark.parametrize("uri", ["file:./mlruns", "sqlite:////proc/nowhere/mlflow.db"])
def test_a_store_that_cannot_be_used_is_an_error(store, config, uri):
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"), start_run("x", config, tracking_uri=uri):
        pass


def test_four_processes_write_concurrently(store, client):
    code = """
    import mlflow.store.tracking.sqlalchemy_store  # once, not in each worker
    workers = []
    for name in "abcd":
        worker = os.fork()
        if not worker:
            with start_run(name, C()) as tracker:
                for step in range(1000):
                    tracker.metrics({"loss": step, "lr": 0.1}, step)
                tracker.text("x", "report.md")
            os._exit(0)
        workers.append(worker)
    sys.exit(any([os.waitpid(worker, 0)[1] for worker in workers]))
    """
    process = in_a_process(code, store, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    runs = client.search_runs([client.get_experiment_by_name("metaopt").experiment_id])
    assert sorted(run.info.run_name for run in runs) == list("abcd")
    assert all(run.info.status == "FINISHED" for run in runs)
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 1000 for run in runs)
