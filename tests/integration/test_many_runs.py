"""Several trajectories at once, in worker processes and on a Ray cluster: tracked, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from metaopt.core.errors import RunsFailed
from metaopt.core.tracker import SilentTracker
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.tracking import start_run
from metaopt.trajectories import Trajectory

COMMAND = "from metaopt.cli import cli; cli()"


@pytest.fixture
def config(store):
    return TrainTargetConfig(
        run_name="many", target_model="MLP", target_options={"widths": [8]}, runs=3, epochs=2, workers=2, lr="1e-3:5e-3"
    )


def record(config):
    with start_run("phase 1", config) as tracker:
        return train_targets(config, tracker), tracker.run_id


def children(run_id):
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    runs = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
    return sorted(runs, key=lambda run: run.info.run_name)


def expect_same(folders, others):
    for folder, other in zip(folders, others, strict=True):
        one, two = Trajectory.open(folder), Trajectory.open(other)
        assert one.steps == two.steps
        assert torch.equal(one.weights(-1), two.weights(-1))


def test_workers_record_the_same_as_one_process_and_track_each_run(config):
    folders, run_id = record(config)
    runs = children(run_id)
    assert [run.info.run_name for run in runs] == ["many seed 0", "many seed 1", "many seed 2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all("val_loss" in run.data.metrics for run in runs)
    files = {Path(each.path).name for each in MlflowClient().list_artifacts(runs[1].info.run_id, "trajectory")}
    assert {"manifest.json", "task.json", "step_00000030.safetensors"} <= files
    expect_same(folders, train_targets(replace(config, run_name="alone", workers=1), SilentTracker()))


def test_a_failed_run_is_reported_and_the_others_are_complete(config):
    config = replace(config, runs=4, base_optimizer="SGD", lr="1e-2:1e20", epochs=1)
    with pytest.raises(RunsFailed, match="of 4 runs failed") as failure:
        record(config)
    client = MlflowClient()
    parent = next(run for run in client.search_runs(["1"]) if "mlflow.parentRunId" not in run.data.tags)
    statuses = {run.info.run_name: run.info.status for run in children(parent.info.run_id)}
    assert set(statuses.values()) == {"FINISHED", "FAILED"}
    for name, status in statuses.items():
        seed = name.rpartition(" ")[2]
        assert (status == "FAILED") == (f"random seed {seed}:" in str(failure.value))
        assert Path(f"trajectories/many/seed_{seed}/task.json").exists() == (status == "FINISHED")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_takes_its_workers_with_it_and_can_be_resumed(config, tmp_path, how):
    config = replace(config, epochs=40, runs=2)
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    words = ["train-target", "--config", "config.json"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(Path("trajectories/many").glob("seed_*/step_00000045.safetensors")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(60)
    wait_for_the_end_of(process.pid)
    if how == signal.SIGTERM:
        runs = [run for run in MlflowClient().search_runs(["1"]) if "mlflow.parentRunId" in run.data.tags]
        assert "KILLED" in {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    folders = train_targets(replace(config, resume=True), SilentTracker())
    expect_same(folders, train_targets(replace(config, run_name="alone", workers=1), SilentTracker()))


def wait_for_the_end_of(session: int) -> None:
    """Wait until no process of a session is left."""
    deadline = time.monotonic() + 30
    while any(session_of(path) == session for path in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.1)


def session_of(path: Path) -> int | None:
    try:
        fields = (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[3]) if fields[0] != "Z" else None


@pytest.mark.slow
def test_a_ray_cluster_records_the_same(config, tmp_path):
    pytest.importorskip("ray")
    config = replace(config, engine="ray", run_name="ray")
    (tmp_path / "config.json").write_text(config.to_json(), encoding="utf-8")
    subprocess.run([sys.executable, "-c", COMMAND, "train-target", "--config", "config.json"], check=True, timeout=300)
    runs = [run for run in MlflowClient().search_runs(["1"]) if "mlflow.parentRunId" in run.data.tags]
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    folders = sorted(Path("trajectories/ray").glob("seed_*"))
    expect_same(folders, train_targets(replace(config, engine="local", workers=1, run_name="alone"), SilentTracker()))
