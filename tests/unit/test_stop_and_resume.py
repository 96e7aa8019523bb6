"""A training that is asked to stop finishes its step and writes a checkpoint; resumed, it gives the same bytes."""

from dataclasses import replace
from pathlib import Path

import pytest

from metaopt.core.control import StopRequested, control
from metaopt.core.errors import CheckpointError
from metaopt.core.tracker import SilentTracker
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.recording.run import _TargetRun
from metaopt.trajectories.recorder import snapshot_files

BATCHES = 15


@pytest.fixture
def config(tmp_path):
    return TrainTargetConfig(
        run_name="mlp",
        target_model="MLP",
        target_options={"widths": [8]},
        batch_size=64,
        epochs=3,
        trajectory_dir=tmp_path / "stopped",
        checkpoint_dir=tmp_path / "checkpoints",
    )


@pytest.fixture
def stop_after(monkeypatch):
    """Requests a stop after a number of steps of this process."""

    class Stopping(type(control)):
        def __init__(self, steps):
            super().__init__()
            self.left = steps

        @property
        def stop_requested(self):
            self.left -= 1
            return self.left <= 0

        @stop_requested.setter
        def stop_requested(self, value):
            pass

    def stop_after(steps, module="metaopt.recording.run"):
        monkeypatch.setattr(f"{module}.control", Stopping(steps))

    return stop_after


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.suffix}


VARIANTS = {
    "plain": {},
    "snapshots": {"snapshot_every": 4, "averaging": 0.9},
    "momentum": {"base_optimizer": "SGD", "base_optimizer_options": {"momentum": 0.9}, "keep_last": 2},
    "schedule-free": {"base_optimizer": "AdamWScheduleFree"},
    "batched": {"runs": 2, "vectorize": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("steps", [1, BATCHES - 1, BATCHES, BATCHES + 7])
def test_a_stopped_run_resumes_to_the_bytes_of_an_undisturbed_one(config, stop_after, tmp_path, variant, steps):
    config = replace(config, **VARIANTS[variant])
    whole = replace(config, trajectory_dir=tmp_path / "whole", checkpoint_dir=tmp_path / "whole_checkpoints")
    train_targets(whole, SilentTracker())
    stop_after(steps * config.runs)
    with pytest.raises(StopRequested):
        train_targets(config, SilentTracker())
    stop_after(10**9)
    train_targets(replace(config, resume=True), SilentTracker())
    assert contents(config.trajectory_dir) == contents(whole.trajectory_dir)
    assert contents(config.checkpoint_dir) == contents(whole.checkpoint_dir)


def test_no_step_is_lost_by_a_stop(config, stop_after):
    stop_after(7)
    with pytest.raises(StopRequested):
        train_targets(config, SilentTracker())
    run = _TargetRun(config, config.load_task(), SilentTracker())
    run.load()
    assert (run.state.step, run.state.epoch, len(run.state.epoch_losses)) == (7, 0, 7)


def test_a_run_that_grows_is_stopped_and_resumed(config, stop_after, tmp_path):
    growth = {"interval": 2, "train_steps": 2, "blend_steps": 2, "probation_steps": 2, "examples": 32}
    config = replace(
        config,
        target_model="HostCNN",
        target_options={},
        controller="schedule:norm@0.1",
        growth_options=growth,
        epochs=1,
    )
    whole = replace(config, trajectory_dir=tmp_path / "whole", checkpoint_dir=tmp_path / "whole_checkpoints")
    train_targets(whole, SilentTracker())
    stop_after(8)
    with pytest.raises(StopRequested):
        train_targets(config, SilentTracker())
    stop_after(10**9)
    train_targets(replace(config, resume=True), SilentTracker())
    assert contents(config.trajectory_dir) == contents(whole.trajectory_dir)


def test_a_missing_snapshot_before_the_stop_is_noticed(config, stop_after):
    config = replace(config, snapshot_every=4)
    stop_after(10)
    with pytest.raises(StopRequested):
        train_targets(config, SilentTracker())
    snapshot_files(config.trajectory_dir / config.run_folder)[8].unlink()
    with pytest.raises(CheckpointError, match="snapshots after step 4 are missing"):
        train_targets(replace(config, resume=True), SilentTracker())
