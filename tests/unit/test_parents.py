"""What a training starts from and what it uses are its parents, and a lineage that lacks one of them fails."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metaopt import get_target_model
from metaopt.core.errors import FileFormatError, LineageError
from metaopt.core.tracker import SilentTracker
from metaopt.generative.files import load_optimizer, save_optimizer
from metaopt.generative.sources import source_with_parents
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.operations.lineage_files import LineageConfig, read_lineage, show_lineage
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.reinforcement.config import TrainControllerConfig
from metaopt.reinforcement.training import train_controller
from metaopt.trajectories import Trajectory
from metaopt.trajectories.origin import Parent, read_origin
from metaopt.trajectories.parents import file_parents, made_from, trajectory_parent
from metaopt.weights.files import read_digest, write_tensors
from metaopt.weights.model_files import save_model_weights
from metaopt.workflows.generate_weights import GenerateConfig, predict_weights

from ..growing import EPISODE

MLP = {"target_model": "MLP", "target_options": {"widths": [8]}, "batch_size": 512, "epochs": 1, "snapshot_every": 1}
NOTHING = "no checkpoint with these contents in checkpoints/, and it names no run"


def record(**options) -> Path:
    (folder,) = train_targets(TrainTargetConfig(**{**MLP, **options}), SilentTracker())
    return folder


def meta_train(resume=None, **options) -> Path:
    config = TrainOptimizerConfig(
        **{"run_name": "base", "epochs": 1, "pairs_per_epoch": 1, "objective": "weights", "held_out": 0, **options}
    )
    return train_optimizer(config, SilentTracker(), resume).checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a trajectory, an optimizer that was trained on it and then for longer, and a controller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("made"))
        record(run_name="base", averaging=0.98)  # as `builtin` expects
        options = {"optimizer_model": "PerceiverOptimizer", "optimizer_options": {"depth": 1}}
        first = meta_train(**options)
        meta_train(first, **options)
        train_controller(TrainControllerConfig(**EPISODE, episodes=2, n_envs=2, minibatch=5), SilentTracker())
    return folder


FIRST, SECOND = (Path(f"checkpoints/base/PerceiverOptimizer_epoch_{epoch}.safetensors") for epoch in (0, 1))
POLICY = Path("checkpoints/controller/controller_policy.safetensors")
BASE = Path("trajectories/base/seed_0")


@pytest.fixture
def files(made, tmp_path, monkeypatch):
    """A copy of the folder, as the working directory."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "copy"))
    return tmp_path / "copy"


def chain(source):
    """Kind and name of each node of a lineage, and its problems."""
    lineage = read_lineage(str(source), Path("checkpoints"), Path("trajectories"))
    return [f"{node.kind} {node.name}" for node in lineage], lineage.problems()


DIGITS = "data set digits"


def test_initial_weights_of_other_programs_begin_a_lineage(files):
    model = get_target_model("MLP", in_features=64, widths=(8,), classes=10)
    save_file(model.state_dict(), "base.safetensors")
    folder = record(run_name="tuned", initial_weights="base.safetensors")
    assert chain(folder) == (["trajectory tuned/seed_0", DIGITS, "weight file base.safetensors"], [])
    (weights,) = [each for each in read_origin(folder).parents if each.kind == "weight file"]
    save_file({name: tensor + 1 for name, tensor in model.state_dict().items()}, "base.safetensors")
    other = record(run_name="other", initial_weights="base.safetensors")
    assert weights.digest not in [each.digest for each in read_origin(other).parents]


def test_a_trajectory_that_a_fine_tuning_starts_from_is_its_parent(files):
    folder = record(run_name="tuned", initial_weights=BASE)
    assert chain(folder) == (["trajectory tuned/seed_0", DIGITS, "trajectory base/seed_0"], [])
    shutil.rmtree(BASE)
    with pytest.raises(LineageError, match=r"trajectory base/seed_0 .*parent of trajectory tuned/seed_0: there is no"):
        show_lineage(LineageConfig(model=str(folder), check=True))


def test_generated_weights_lead_to_their_trajectory_and_optimizer(files):
    config = GenerateConfig(optimizer=str(SECOND), trajectory=BASE, output="next.safetensors")
    predict_weights(config, load_optimizer(SECOND), file_parents(SECOND)).write()
    folder = record(run_name="tuned", initial_weights="next.safetensors")
    names, problems = chain(folder)
    assert names[1:4] == [DIGITS, "trajectory base/seed_0", "checkpoint base, step 2"]
    assert problems == []


HOST = {"target_model": "HostCNN", "target_options": EPISODE["target_options"], "snapshot_every": 0}


def test_a_network_that_has_grown_names_its_policy(files):
    folder = record(run_name="grown", controller=str(POLICY), **HOST)
    assert chain(folder) == (["trajectory grown/seed_0", DIGITS, "checkpoint controller_rollout_1.safetensors"], [])
    assert "trajectory grown/seed_0" in chain(record(run_name="larger", grown_as=folder, **HOST))[0]
    Path("checkpoints/controller/controller_rollout_1.safetensors").unlink()
    assert chain(folder)[1][0].endswith(f"parent of trajectory grown/seed_0: {NOTHING}")


def test_a_forecaster_of_a_controller_is_a_parent(files):
    growth = {**EPISODE["growth_options"], "forecaster": "builtin"}
    folder = record(run_name="grown", controller="heuristic", growth_options=growth, **HOST)
    assert chain(folder) == (["trajectory grown/seed_0", DIGITS, "weight file builtin"], [])
    config = {**EPISODE, "growth_options": growth, "run_name": "forecasts", "episodes": 2, "n_envs": 2}
    trained = train_controller(TrainControllerConfig(**config), SilentTracker())
    assert chain(trained.checkpoint)[0][1:] == [DIGITS, "weight file builtin"]


def test_an_optimizer_names_what_it_was_resumed_from_and_what_it_started_from(files):
    assert chain(SECOND) == (
        ["checkpoint base, step 2", "trajectory base/seed_0", "checkpoint base, step 1", DIGITS],
        [],
    )
    started = meta_train(start_from=str(SECOND), checkpoint_name="started")
    assert chain(started)[0][1:3] == ["trajectory base/seed_0", "checkpoint base, step 2"]
    assert "weight file builtin" in chain(meta_train(start_from="builtin", checkpoint_name="own"))[0]
    SECOND.unlink()
    with pytest.raises(LineageError, match=f"checkpoint base, step 2 .*, parent of checkpoint started.*{NOTHING}"):
        show_lineage(LineageConfig(model=str(started), check=True))


def test_a_controller_names_what_it_was_resumed_from(files):
    config = TrainControllerConfig(**EPISODE, episodes=4, n_envs=2, minibatch=5)
    first = Path("checkpoints/controller/controller_rollout_1.safetensors")
    trained = train_controller(config, SilentTracker(), first)
    assert chain(trained.checkpoint)[0][1:] == [DIGITS, chain(first)[0][0]]
    first.unlink()
    assert NOTHING in chain(trained.checkpoint)[1][0]


def test_a_snapshot_stands_for_its_trajectory(files):
    trajectory = Trajectory.open(BASE)
    snapshot = trajectory.snapshots[0].path
    assert file_parents(snapshot) == (trajectory_parent(trajectory),)
    alone = Path(shutil.copy(snapshot, "alone.safetensors"))
    assert file_parents(alone) == (Parent("trajectory", "alone.safetensors", read_digest(alone, "snapshot")),)


def test_a_file_that_states_nothing_is_a_parent_itself(tmp_path):
    weights, optimizer = tmp_path / "weights.safetensors", tmp_path / "optimizer.safetensors"
    save_model_weights(torch.nn.Linear(2, 1), weights)
    save_optimizer(load_optimizer("builtin"), optimizer)
    assert [each.kind for each in file_parents(weights)] == ["weight file"]
    assert [each.kind for each in file_parents(optimizer)] == ["checkpoint"]
    assert source_with_parents(str(optimizer)) == (str(optimizer), file_parents(optimizer))


@pytest.mark.parametrize("stated", [3, [3], [{}], [{"kind": "dream"}]])
def test_an_invalid_statement_is_refused(tmp_path, stated):
    path = tmp_path / "policy.safetensors"
    write_tensors(path, {}, "policy", {"made_from": stated})
    with pytest.raises(FileFormatError, match="states nothing that this metaopt can read"):
        file_parents(path)


def test_what_a_file_states_is_read_again(tmp_path):
    path = tmp_path / "policy.safetensors"
    parents = (Parent("checkpoint", "x, step 1", "c" * 64, "1" * 32),)
    write_tensors(path, {}, "policy", made_from(parents))
    assert file_parents(path) == parents
