"""Evolution of the gains of an optimizer over whole trainings."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import CheckpointError, InvalidConfig, TrajectoryError
from metaopt.core.progress import NO_PROGRESS
from metaopt.core.rng import generator
from metaopt.core.tracker import SilentTracker
from metaopt.generative import get_optimizer_model
from metaopt.metatraining.cohort import OnlineSettings
from metaopt.metatraining.evolution import PAIRS, evolve, evolved_numbers, recombined
from metaopt.metatraining.objectives import LOSS_OFFSET
from metaopt.metatraining.recorded_components import recorded_components
from metaopt.metatraining.state import MetaTrainingState
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.metatraining.whole_trainings import train_with_nowcasts
from metaopt.nowcast import NowcastPolicy
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import train_targets
from metaopt.trajectories import Trajectory
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint
from metaopt.trajectories.recorder import Recorder
from metaopt.weights.layout import Layout

OPTIONS = {"dim": 16, "num_latents": 4, "latent_dim": 16, "heads": 2, "depth": 1, "start": "slopes", "averaging": 0.9}
SETTINGS = OnlineSettings(60, NowcastPolicy(20, 10, min_cosine=-1), history=5, averaging=0.9, examples=8)


@pytest.fixture
def config(mixture, tmp_path):
    return TrainOptimizerConfig(
        rounds=2,
        method="evolution",
        mixture=mixture,
        inner_steps=40,
        every=20,
        stride=10,
        optimizer_options={**OPTIONS, "gains": True},
        checkpoint_every=1,
        checkpoint_dir=tmp_path / "checkpoints",
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    config = TrainTargetConfig(
        run_name="few",
        target_model="MLP",
        target_options={"widths": [8]},
        lr="0.001:0.01",
        runs=3,
        epochs=1,
        snapshot_every=5,
        averaging=0.9,
        trajectory_dir=folder,
    )
    train_targets(config, SilentTracker())
    return folder


def state_of(gains=True):
    options = {**OPTIONS, "gains": gains}
    return MetaTrainingState("PerceiverOptimizer", options, seed=0, lr=1e-3, weight_decay=0.0, ema_decay=0.9)


def test_the_better_half_is_averaged_and_the_best_counts_most():
    candidates = torch.tensor([[0.0, 8.0], [1.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    found = recombined(candidates, [3.0, 1.0, 2.0, 4.0])
    best = float(found[0] - 2) / -1  # the weight of [1, 0] beside [2, 0]
    assert found[1] == 0
    assert 0.5 < best < 1


def test_a_generation_moves_to_its_better_candidates_and_changes_nothing_else(mlp):
    state = state_of()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    metrics = evolve(state, [mlp], SETTINGS, [3], NO_PROGRESS)
    after = state.model.state_dict()
    assert metrics["train_best"] <= metrics["train_log_loss"]
    assert (after["gains"] != 0).all()
    assert torch.equal(after["gains"], state.predictor.state_dict()["gains"])
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name != "gains")
    assert state.step == 1


def test_a_generation_is_the_mean_of_candidates_whose_trainings_it_has_run(mlp):
    state, losses = state_of(), []
    evolve(state, [mlp], SETTINGS, [3], NO_PROGRESS)
    drawn = torch.randn(PAIRS, 5, generator=generator(3))
    other = state_of()
    candidates = 0.7 * torch.cat([drawn, -drawn])
    for candidate in candidates:
        other.set_evolved(candidate)
        found = train_with_nowcasts(other.predictor, mlp, 60, SETTINGS.policy, 3, "meta")
        losses.append(float((found.losses[3:] + LOSS_OFFSET * mlp.problem.task.baseline_loss).log().mean()))
    torch.testing.assert_close(state.model.gains, recombined(candidates, losses))


def test_resumed_evolution_gives_the_bytes_of_an_uninterrupted_one(config):
    whole = train_optimizer(config, SilentTracker())
    first = train_optimizer(replace(config, rounds=1, checkpoint_name="two"), SilentTracker())
    second = train_optimizer(replace(config, rounds=1, checkpoint_name="two"), SilentTracker(), first.checkpoint)
    assert second.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    with pytest.raises(CheckpointError, match="method"):
        train_optimizer(replace(config, method="look-ahead", checkpoint_name="two"), SilentTracker(), first.checkpoint)


def test_an_optimizer_without_gains_is_refused_before_work_begins(config):
    with pytest.raises(InvalidConfig, match=r"PerceiverOptimizer has no numbers that evolution changes.*gains=true"):
        train_optimizer(replace(config, optimizer_options=OPTIONS), SilentTracker())
    with pytest.raises(InvalidConfig, match="Line has no numbers"):
        evolved_numbers(get_optimizer_model("Line"))
    assert not config.checkpoint_folder.exists()
    with pytest.raises(InvalidConfig, match="give rounds"):
        TrainOptimizerConfig(method="evolution")
    with pytest.raises(InvalidConfig, match="warm_up is 5 and method is evolution"):
        replace(config, warm_up=5)
    with pytest.raises(InvalidConfig, match="inner_steps is 20, every is 20: no nowcast would take place"):
        replace(config, inner_steps=20)


def test_without_an_accepted_nowcast_nothing_changes(mlp):
    state, settings = state_of(), SETTINGS._replace(steps=20)
    metrics = evolve(state, [mlp], settings, [3], NO_PROGRESS)
    assert metrics["train_kept"] == 0
    assert (state.model.gains == 0).all()


def test_rounds_without_a_mixture_have_the_networks_and_learning_rates_of_the_recordings(config, recorded):
    trajectories = [Trajectory.open(folder) for folder in sorted((recorded / "few").glob("seed_*"))]
    (component,) = recorded_components(trajectories)
    rates = [each.run["lr"] for each in trajectories]
    assert component.name == "MLP on digits"
    assert (component.config.lr.low, component.config.lr.high) == (min(rates), max(rates))
    assert (component.config.rows, component.config.batch_size) == (3, 64)
    assert component.problem.layout == trajectories[0].layout
    online = replace(config, rounds=1, mixture=None, run_name="few", trajectory_dir=recorded)
    trained = train_optimizer(online, SilentTracker())
    assert trained.training_names == [each.name for each in trajectories]
    assert trained.data == {"run_name": "few", "method": "evolution"}
    assert trained.checkpoint.parent.name == "few"
    assert trained.optimizer.gains.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_optimizer": "SGD"}, "was recorded with SGD, but inner trainings are those of plain Adam"),
        ({"base_optimizer_options": {"weight_decay": 0.1}}, "Adam and {'weight_decay': 0.1}, but inner trainings"),
        ({"space": "layers.3"}, "has frozen weights, but inner trainings train all of them"),
    ],
)
def test_recordings_that_inner_trainings_cannot_follow_are_refused(tmp_path, options, message):
    config = TrainTargetConfig(
        run_name="other", target_model="MLP", epochs=1, snapshot_every=15, trajectory_dir=tmp_path, **options
    )
    train_targets(config, SilentTracker())
    with pytest.raises(InvalidConfig, match=message):
        recorded_components([Trajectory.open(tmp_path / "other" / "seed_0")])


def test_recordings_without_the_facts_of_their_training_are_refused(tmp_path):
    model = torch.nn.Linear(2, 1)
    with Recorder(tmp_path, {"task": "mine", "target_model": "Linear"}, Layout.of(model)) as recorder:
        for step in (0, 20):
            recorder.record(model, step, 0, {})
    with pytest.raises(TrajectoryError, match="do not describe its training: it has no task_config"):
        recorded_components([Trajectory.open(tmp_path)])


def test_networks_of_one_class_on_one_task_have_names_of_their_own(recorded, tmp_path):
    config = TrainTargetConfig(
        run_name="wide", target_model="MLP", epochs=1, snapshot_every=15, trajectory_dir=tmp_path, averaging=0.9
    )
    train_targets(config, SilentTracker())
    folders = (recorded / "few" / "seed_0", tmp_path / "wide" / "seed_0", recorded / "few" / "seed_1")
    components = recorded_components([Trajectory.open(folder) for folder in folders])
    assert [each.name for each in components] == ["MLP on digits", "MLP on digits 2"]
    assert [each.config.rows for each in components] == [2, 1]


def test_a_checkpoint_from_before_an_option_existed_can_be_resumed(tmp_path):
    state = state_of(gains=False)
    state.save(tmp_path / "new.safetensors", {"inner_steps": 60, "method": "look-ahead"})
    stored, facts = load_checkpoint(tmp_path / "new.safetensors")
    del facts["optimizer"]["config"]["gains"], facts["settings"]["method"]
    kept = {name: value for name, value in facts.items() if name in ("optimizer", "settings")}
    save_checkpoint(tmp_path / "old.safetensors", stored, kept)
    state.load(tmp_path / "old.safetensors", {"inner_steps": 60, "method": "look-ahead"})
    with pytest.raises(CheckpointError, match="gains"):
        state_of(gains=True).load(tmp_path / "old.safetensors", {})
