"""What an earlier attempt changes in the parameters of a job."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaopt.core.tracker import SilentTracker
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import save_optimizer
from metaopt.metatraining.config import TrainOptimizerConfig
from metaopt.metatraining.trainer import train_optimizer
from metaopt.operations.resuming import resumed
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.reinforcement.config import TrainControllerConfig
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.workflows.main_job import MainConfig


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    config = TrainTargetConfig(
        run_name="recorded", target_model="MLP", target_options={"widths": [4]}, runs=4, epochs=1, snapshot_every=4,
        batch_size=64, trajectory_dir=folder, checkpoint_dir=folder / "checkpoints",
    )  # fmt: skip
    train_targets(config, SilentTracker())
    return folder


def checkpoint(path, epoch):
    save_checkpoint(path, {"model": {"w": torch.ones(1)}, "epoch": epoch}, {})


def test_phase_1_resumes_its_folder_if_it_has_begun(tmp_path):
    config = TrainTargetConfig(run_name="job", overwrite=True)
    assert resumed("train-target", config) == config
    snapshot = tmp_path / "trajectories" / "job" / "seed_0" / "step_00000000.safetensors"
    snapshot.parent.mkdir(parents=True)
    snapshot.touch()
    assert resumed("train-target", config) == replace(config, resume=True, overwrite=False)


@pytest.mark.parametrize("overwrite", [True, False])
def test_the_main_job_resumes_phase_1_and_does_the_rest_again(overwrite, tmp_path):
    config = MainConfig(run_name="job", overwrite=overwrite)
    assert resumed("main", config) == config
    (tmp_path / "trajectories" / "job" / "seed_0").mkdir(parents=True)
    (tmp_path / "trajectories" / "job" / "seed_0" / "step_00000000.safetensors").touch()
    found = resumed("main", config)
    assert (found.target().resume, found.target().overwrite) == (True, False)
    assert found.optimizer().overwrite, "its checkpoints are of an earlier attempt"


def test_phase_2_trains_the_epochs_that_its_last_complete_checkpoint_lacks():
    config = TrainOptimizerConfig(run_name="job", epochs=8, optimizer_model="Line")
    assert resumed("train-optimizer", config) == replace(config, overwrite=True)
    folder = config.checkpoint_folder
    checkpoint(folder / "Line_epoch_1.safetensors", 2)
    checkpoint(folder / "Line_epoch_4.safetensors", 5)
    found = resumed("train-optimizer", config)
    assert (found.resume_from, found.epochs) == (str(folder / "Line_epoch_4.safetensors"), 3)
    checkpoint(folder / "Line_epoch_5_stopped.safetensors", 5)
    found = resumed("train-optimizer", config)
    assert (found.resume_from, found.epochs) == (str(folder / "Line_epoch_5_stopped.safetensors"), 3)
    (folder / "Line_epoch_10.safetensors").write_bytes(b"half of a file")
    assert resumed("train-optimizer", config) == found
    checkpoint(folder / "Line_epoch_7.safetensors", 8)
    assert resumed("train-optimizer", config).epochs == 0


def test_phase_2_counts_from_the_checkpoint_that_the_user_gave(tmp_path):
    checkpoint(tmp_path / "given.safetensors", 5)
    config = TrainOptimizerConfig(run_name="job", epochs=4, optimizer_model="Line", resume_from="given.safetensors")
    checkpoint(config.checkpoint_folder / "Line_epoch_6.safetensors", 7)
    assert resumed("train-optimizer", config).epochs == 2


def test_phase_2_online_keeps_a_round_to_train(tmp_path):
    config = TrainOptimizerConfig(rounds=4, mixture=tmp_path / "m.yaml", checkpoint_name="job", optimizer_model="Line")
    checkpoint(config.checkpoint_folder / "Line_epoch_1.safetensors", 2)
    checkpoint(config.checkpoint_folder / "Line_epoch_3.safetensors", 4)
    found = resumed("train-optimizer", config)
    assert (found.resume_from, found.rounds) == (str(config.checkpoint_folder / "Line_epoch_1.safetensors"), 2)


def test_phase_3_counts_all_episodes():
    config = TrainControllerConfig(run_name="job")
    assert resumed("train-controller", config) == replace(config, overwrite=True)
    for number in (5, 10):
        checkpoint(config.checkpoint_folder / f"controller_rollout_{number}.safetensors", 0)
    found = resumed("train-controller", config)
    assert found.resume_from == str(config.checkpoint_folder / "controller_rollout_10.safetensors")
    assert found.episodes == config.episodes


@pytest.mark.parametrize(
    "changes",
    [{"optimizer_options": {"dim": 8, "history": 3}}, {"start_from": "start.safetensors"}],
    ids=["options", "start_from"],
)
def test_phase_2_goes_on_from_each_of_its_checkpoints_to_the_same_bytes(changes, recorded):
    save_optimizer(get_optimizer_model("HopeOptimizer", dim=8, history=3), Path("start.safetensors"), {})
    config = TrainOptimizerConfig(
        run_name="recorded", optimizer_model="HopeOptimizer", epochs=3, pairs_per_epoch=8, checkpoint_every=1,
        trajectory_dir=recorded, checkpoint_dir=Path("whole"), **changes,
    )  # fmt: skip
    whole = train_optimizer(config, SilentTracker()).checkpoint.parent
    names = [f"HopeOptimizer_epoch_{epoch}.safetensors" for epoch in range(3)]
    for killed_after in range(1, 4):
        job = replace(config, checkpoint_dir=Path(f"killed_{killed_after}"))
        job.checkpoint_folder.mkdir(parents=True)
        for name in names[:killed_after]:
            shutil.copy(whole / name, job.checkpoint_folder)
        rest = resumed("train-optimizer", job)
        train_optimizer(rest, SilentTracker(), Path(rest.resume_from))
        for name in names:
            assert (job.checkpoint_folder / name).read_bytes() == (whole / name).read_bytes(), (killed_after, name)
