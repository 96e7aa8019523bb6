"""Phase 2 on real trajectories: a killed training resumes to the same bytes, and predictions lower the loss."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.generative.files import load_optimizer_file
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.targets import TargetCNN, get_target_model
from metaopt.tasks import load_task
from metaopt.trajectories import Trajectory
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights
from metaopt.workflows.generate_weights import GenerateConfig, generate_file

TRAIN = """
import sys, torch
from pathlib import Path
from metaopt.core.config import read_config_file
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.core.tracker import SilentTracker
torch.set_num_threads(1)
values = read_config_file(Path(sys.argv[1]))
resume = values.pop("resume_from")
train_optimizer(TrainOptimizerConfig.from_mapping(values), SilentTracker(), Path(resume) if resume else None)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    config = TrainTargetConfig(
        run_name="mlp",
        target_model="MLP",
        target_options={"widths": [8]},
        runs=4,
        lr="1e-3:3e-3",
        epochs=4,
        checkpoint_every=4,
        trajectory_dir=folder,
        checkpoint_dir=folder / "checkpoints",
    )
    train_targets(config, SilentTracker())
    return folder


@pytest.fixture
def config(recorded, tmp_path):
    return TrainOptimizerConfig(
        run_name="mlp",
        optimizer_options={"dim": 16, "num_latents": 8, "latent_dim": 16, "hidden": 32},
        lr=5e-3,
        average=0.9,
        task_batch=64,
        trajectory_dir=recorded,
        checkpoint_dir=tmp_path / "checkpoints",
    )


def start(config, tmp_path) -> subprocess.Popen:
    path = tmp_path / "config.json"
    path.write_text(config.to_json(), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(path)], env={**os.environ, "OMP_NUM_THREADS": "1"})


def kill_when_there_is(process: subprocess.Popen, checkpoint: Path) -> None:
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def last_checkpoint(folder: Path) -> tuple[Path, int]:
    """The newest checkpoint of a training, and its number of epochs."""
    epochs = {int(path.stem.rpartition("_")[2]): path for path in folder.glob("PerceiverOptimizer_epoch_*.safetensors")}
    return epochs[max(epochs)], max(epochs) + 1


def test_a_training_killed_after_its_first_checkpoint_resumes_to_the_same_bytes(config, tmp_path):
    epochs = 8
    config = replace(config, checkpoint_every=1, epochs=epochs)
    whole = train_optimizer(replace(config, checkpoint_dir=tmp_path / "whole"), SilentTracker()).checkpoint.parent
    folder = config.checkpoint_folder
    kill_when_there_is(start(config, tmp_path), folder / "PerceiverOptimizer_epoch_0.safetensors")
    checkpoint, done = last_checkpoint(folder)
    assert done < epochs
    rest = replace(config, epochs=epochs - done, resume_from=str(checkpoint))
    assert start(rest, tmp_path).wait() == 0
    names = {path.name for path in whole.glob("*.safetensors")}
    assert names == {f"PerceiverOptimizer_epoch_{epoch}.safetensors" for epoch in range(epochs)}
    assert names == {path.name for path in folder.glob("*.safetensors")}
    for name in names:
        assert (whole / name).read_bytes() == (folder / name).read_bytes(), name


@torch.no_grad()
def validation_loss(model, task) -> float:
    inputs, labels = task.splits["validation"][:]
    return task.loss(model.eval()(inputs), labels).item()


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer_model": "HopeOptimizer", "optimizer_options": {"dim": 16}}], ids=["Perceiver", "Hope"]
)
def test_a_trained_optimizer_lowers_the_loss_of_a_held_out_run_and_accepts_other_networks(config, changes, tmp_path):
    config = replace(config, **changes)
    trained = train_optimizer(replace(config, epochs=16), SilentTracker())
    optimizer = load_optimizer_file(trained.checkpoint)
    trajectory = Trajectory.open(config.trajectory_dir / trained.held_out_names[0])
    assert all(after > before for before, after in pairwise(trajectory.steps))
    model, task = get_target_model("MLP", **trajectory.run["target_config"]), load_task("digits")
    for index in range(1, len(trajectory)):
        t_start, horizon = trajectory.steps[index], trajectory.steps[1]
        load_model_weights(model, trajectory.snapshots[index].path)
        before = validation_loss(model, task)
        target = tmp_path / f"next_{index}.safetensors"
        wanted = GenerateConfig(
            trajectory=trajectory.folder, t_start=t_start, t_end=float(t_start + horizon), output=target
        )
        load_model_weights(model, generate_file(wanted, optimizer).path)
        assert validation_loss(model, task) < before

    other = TargetCNN()
    layout = Layout.of(other)
    weights = layout.read(other)
    history = torch.stack([0.99 * weights, weights])[None]
    predicted = optimizer.predict(history, torch.tensor([[0.0, 20.0]]), torch.tensor([40.0]), layout)
    assert predicted.isfinite().all()
    assert not torch.equal(predicted[0], weights)
