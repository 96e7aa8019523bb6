"""Checkpoints and other files are downloaded completely and verified, or not at all."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from metaopt.core.errors import CheckpointError, TrackingError, TrajectoryError
from metaopt.tracking import (
    ResumePoint,
    download_files,
    fetch_trajectories,
    resolve_checkpoint,
    start_run,
)
from metaopt.trajectories import Recorder, Trajectory, WeightTrajectoryDataset, find_trajectories
from metaopt.weights.layout import Layout


@pytest.fixture
def run(store, config):
    with start_run("meta", config) as tracker:
        yield tracker


def upload(tracker, epoch, content=None):
    path = Path(f"PerceiverOptimizer_epoch_{epoch}.safetensors")
    path.write_text(content or f"epoch {epoch}")
    tracker.files([path], f"checkpoints/epoch_{epoch:04d}")
    path.unlink()


def upload_incomplete(tracker, epoch):
    tracker.text("incomplete", f"checkpoints/epoch_{epoch:04d}/PerceiverOptimizer_epoch_{epoch}.safetensors")
    tracker.check()


def stored(store, run_id, path):
    """Path of an artifact in the local artifact folder of the store."""
    return next(store.glob(f"mlruns/*/{run_id}/artifacts/{path}"))


def test_a_file_needs_no_download(store, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"x")
    assert resolve_checkpoint("x.safetensors", tmp_path) == ResumePoint(Path("x.safetensors"), None)


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("{id}", "epoch 10000"),
        ("runs:/{id}", "epoch 10000"),
        ("runs:/{id}/checkpoints", "epoch 10000"),
        ("runs:/{id}/checkpoints/epoch_0009", "epoch 9"),
        ("runs:/{id}/checkpoints/epoch_0009/PerceiverOptimizer_epoch_9.safetensors", "epoch 9"),
    ],
)
def test_a_run_gives_its_last_or_the_chosen_checkpoint(run, tmp_path, form, content):
    for epoch in (9, 9999, 10000):
        upload(run, epoch)
    point = resolve_checkpoint(form.format(id=run.run_id), tmp_path / "cache")
    assert point.run_id == run.run_id
    assert point.path.read_text() == content
    assert tmp_path / "cache" in point.path.parents


def test_an_incomplete_upload_is_skipped(run, tmp_path, caplog):
    upload(run, 4)
    upload_incomplete(run, 9)
    assert resolve_checkpoint(run.run_id, tmp_path / "cache").path.read_text() == "epoch 4"
    assert "epoch_0009" in caplog.text


def test_only_incomplete_uploads_are_an_error(run, tmp_path):
    upload_incomplete(run, 9)
    with pytest.raises(CheckpointError, match="only incomplete checkpoint uploads"):
        resolve_checkpoint(run.run_id, tmp_path)
    with pytest.raises(TrackingError, match="aborted"):
        resolve_checkpoint(f"runs:/{run.run_id}/checkpoints/epoch_0009", tmp_path)


def test_a_run_without_checkpoints_is_an_error(run, tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        resolve_checkpoint(run.run_id, tmp_path)


def test_a_missing_run_is_an_error(store, tmp_path):
    with pytest.raises(TrackingError, match=r"cannot read run '0{32}'"):
        resolve_checkpoint("0" * 32, tmp_path)


@pytest.mark.parametrize("source", ["checkpoints/none.safetensors", "runs:/abc", "", "models:/x@champion"])
def test_the_message_names_the_three_forms(store, tmp_path, source):
    with pytest.raises(CheckpointError, match=r"existing file, a run ID .* or runs:/<run ID>"):
        resolve_checkpoint(source, tmp_path)


def test_the_checkpoint_of_a_deleted_run_can_be_downloaded(run, client, tmp_path):
    upload(run, 4)
    client.delete_run(run.run_id)
    assert resolve_checkpoint(run.run_id, tmp_path / "cache").path.read_text() == "epoch 4"
    client.restore_run(run.run_id)


@pytest.mark.parametrize("damage", ["epoch 5", "epoch 4 and more"])
def test_a_damaged_download_is_an_error_and_leaves_no_file(run, store, tmp_path, damage):
    upload(run, 4)
    stored(store, run.run_id, "checkpoints/epoch_0004/*.safetensors").write_text(damage)
    with pytest.raises(TrackingError, match="is damaged"):
        resolve_checkpoint(run.run_id, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_damaged_file_in_the_cache_is_replaced_and_an_intact_one_is_kept(run, store, tmp_path):
    upload(run, 4)
    path = resolve_checkpoint(run.run_id, tmp_path / "cache").path
    path.write_text("epoch 5")
    assert resolve_checkpoint(run.run_id, tmp_path / "cache").path.read_text() == "epoch 4"
    stored(store, run.run_id, "checkpoints/epoch_0004/*.safetensors").unlink()
    assert resolve_checkpoint(run.run_id, tmp_path / "cache").path.read_text() == "epoch 4"


def test_a_missing_artifact_is_an_error(run, store, tmp_path):
    upload(run, 4)
    stored(store, run.run_id, "checkpoints/epoch_0004/*.safetensors").unlink()
    with pytest.raises(TrackingError, match="cannot download checkpoints/epoch_0004/Perceiver"):
        resolve_checkpoint(run.run_id, tmp_path / "cache")


@pytest.mark.parametrize("name", ["../escape", "..", "a/b", "/etc/passwd", "a\\b", "", "manifest.json", "C:x"])
def test_a_malicious_manifest_is_rejected(run, tmp_path, name):
    manifest = {"schema": 1, "files": {name: {"size": 1, "sha256": "0" * 64}}}
    run.text(json.dumps(manifest), "folder/manifest.json")
    run.check()
    with pytest.raises(TrackingError, match="plain file names"):
        download_files(run.run_id, "folder", tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 99_999,
        '{"schema": 1, "files": {"a": {"size": Infinity, "sha256": ""}}}',
        "[]",
        '{"schema": 1}',
        '{"schema": 1, "files": {"a": 3}}',
        '{"schema": 9, "files": {}}',
    ],
)
def test_an_invalid_manifest_is_rejected(run, tmp_path, text):
    run.text(text, "folder/manifest.json")
    run.check()
    with pytest.raises(TrackingError, match=r"folder/manifest.json of run \w+ (is|has)"):
        download_files(run.run_id, "folder", tmp_path / "into")


FETCH_AND_DIE = """
import os, signal, sys
from pathlib import Path
from metaopt.tracking import artifacts, fetch_trajectories

verify = artifacts._verify

def verify_and_die(path, *rest):
    verify(path, *rest)
    if path.name == "step_00000010.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)

artifacts._verify = verify_and_die
fetch_trajectories("cnn", Path(sys.argv[1]))
"""


def test_a_killed_download_is_not_read_and_the_next_one_is_complete(store, config, tmp_path):
    model = nn.Linear(2, 2)
    recorder = Recorder(tmp_path / "recorded", {"seed": 0}, Layout.of(model))
    for step in (0, 5, 10, 15, 20):
        recorder.record(model, step, 0, {})
    with start_run("cnn-0", config) as tracker:
        tracker.tags({"metaopt.run_name": "cnn", "metaopt.phase": "target", "metaopt.seed": 0})
        tracker.files(Trajectory.open(tmp_path / "recorded").files(), "trajectory")
    folder = tmp_path / "trajectories"
    killed = subprocess.run([sys.executable, "-c", FETCH_AND_DIE, str(folder)])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(folder.rglob("step_*.safetensors"))) == 3
    with pytest.raises(TrajectoryError, match="no trajectory 'cnn'"):
        WeightTrajectoryDataset(folder / "cnn")
    fetch_trajectories("cnn", folder)
    (found,) = find_trajectories(folder)
    assert found.steps == [0, 5, 10, 15, 20]
