"""A killed phase 1 resumes to the same bytes; a full disk loses no data."""

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from metaopt.core.tracker import SilentTracker
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.trajectories import Trajectory
from metaopt.weights.files import read_tensors

from ..killing import kill_once

TRAIN = """
import sys, torch
from metaopt.core.config import read_config_file
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.core.tracker import SilentTracker
from pathlib import Path
torch.set_num_threads(1)
train_targets(TrainTargetConfig.from_mapping(read_config_file(Path(sys.argv[1]))), SilentTracker())
"""

FULL_DISK = """
import sys, torch
from pathlib import Path
from metaopt.core.errors import StorageError
from metaopt.weights.files import write_tensors
try:
    write_tensors(Path(sys.argv[1]), {"w": torch.ones(100_000)}, "weights", {"version": 2})
except StorageError as error:
    sys.exit(f"StorageError: {error}")
"""


@pytest.fixture
def config(tmp_path):
    return TrainTargetConfig(
        run_name="killed",
        target_model="MLP",
        target_options={"widths": [16]},
        epochs=16,
        snapshot_every=5,
        checkpoint_every=3,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


def start(config, tmp_path) -> subprocess.Popen:
    path = tmp_path / "config.json"
    path.write_text(config.to_json(), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(path)], env={**os.environ, "OMP_NUM_THREADS": "1"})


def kill_at_epoch(process: subprocess.Popen, folder, epoch: int) -> None:
    """Kill a training once it has written a snapshot of an epoch."""
    kill_at_step(process, folder, 15 * epoch)


def kill_at_step(process: subprocess.Popen, folder, step: int) -> None:
    """Kill a training once it has written the snapshot of a step."""
    kill_once(process, (folder / f"step_{step:08d}.safetensors").exists)


def elsewhere(config, folder):
    """The same training, into other folders."""
    return replace(config, trajectory_dir=folder / "whole", checkpoint_dir=folder / "checkpoints of the whole")


def test_a_killed_run_with_levels_resumes_to_the_same_bytes(config, tmp_path):
    """The third level has gradients of steps before the kill, which are in the checkpoint of the base optimizer."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "chunk": 4, "periods": [1, 4, 7]}
    hope = replace(
        config, epochs=8, task="text", task_options={"block_size": 8}, data_dir=text, target_model="Hope",
        target_options=shape,
    )  # fmt: skip
    (whole,) = train_targets(elsewhere(hope, tmp_path), SilentTracker())
    folder = config.trajectory_dir / "killed" / "seed_0"
    steps = Trajectory.open(whole).steps[-1] // hope.epochs
    assert 3 * steps % 7, "the checkpoint after the third epoch is between two updates"
    kill_at_step(start(hope, tmp_path), folder, 5 * (4 * steps // 5))
    assert len(Trajectory.open(folder)) < len(Trajectory.open(whole))
    train_targets(replace(hope, resume=True), SilentTracker())
    for path in whole.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_a_run_killed_twice_resumes_to_the_same_bytes(config, tmp_path):
    (whole,) = train_targets(elsewhere(config, tmp_path), SilentTracker())
    folder = config.trajectory_dir / "killed" / "seed_0"
    kill_at_epoch(start(config, tmp_path), folder, 2)  # before the first checkpoint
    kill_at_epoch(start(replace(config, resume=True), tmp_path), folder, 8)
    assert len(Trajectory.open(folder)) < len(Trajectory.open(whole))
    assert start(replace(config, resume=True), tmp_path).wait() == 0
    assert {path.name for path in folder.glob("[!.]*")} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def small_files_only() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_a_full_disk_keeps_the_older_file_and_leaves_no_temporary_file(tmp_path):
    import torch

    from metaopt.weights.files import write_tensors

    path = tmp_path / "w.safetensors"
    write_tensors(path, {"w": torch.zeros(5)}, "weights", {"version": 1})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], preexec_fn=small_files_only, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("StorageError: could not write")
    assert "Traceback" not in done.stderr
    assert read_tensors(path, "weights")[1] == {"version": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_in_training_keeps_the_snapshots_and_can_be_resumed(config, tmp_path):
    config = replace(config, epochs=2, target_options={"widths": [8]})
    settings = tmp_path / "config.json"
    settings.write_text(config.to_json(), encoding="utf-8")

    def less_than_a_checkpoint() -> None:  # a snapshot of this network takes 3 kB, a checkpoint 20 kB
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))

    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(settings)], preexec_fn=less_than_a_checkpoint, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "StorageError: could not write" in done.stderr
    folder = config.trajectory_dir / "killed" / "seed_0"
    kept = Trajectory.open(folder)
    assert kept.steps[0] == 0
    kept.weights(-1)
    train_targets(replace(config, resume=True), SilentTracker())
    assert Trajectory.open(folder).steps[-1] == 30
