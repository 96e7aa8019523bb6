"""Recordings of networks that grow: segments, resuming, twins, and what later phases make of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaopt import Trajectory, get_target_model, load_model_weights
from metaopt.core.errors import CheckpointError, Diverged, InvalidConfig, LayoutMismatch, UnknownName
from metaopt.core.tracker import SilentTracker
from metaopt.generative import get_optimizer_model
from metaopt.growth import GrowthConfig, blueprint, grow_as
from metaopt.growth.actions import actions_of
from metaopt.growth.history import GrowthHistory
from metaopt.growth.policy import Policy, save_policy
from metaopt.growth.stages import Stage
from metaopt.metatraining.problem import InnerProblem
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.recording.state import TargetTrainingState
from metaopt.recording.twins import train_twins
from metaopt.tasks import load_task
from metaopt.trajectories.sealed_json import GROWTH_FILE
from metaopt.workflows.generate_weights import GenerateConfig, predict_weights

SMALL = {"widths": (4, 8)}
FAST = {"interval": 5, "train_steps": 5, "blend_steps": 5, "probation_steps": 5, "examples": 32}
EPOCHS = 3


def config_of(folder, **options):
    return TrainTargetConfig(
        **{
            "run_name": "grown",
            "target_model": "HostCNN",
            "target_options": SMALL,
            "lr": "1e-2",
            "epochs": EPOCHS,
            "batch_size": 128,
            "controller": "schedule:conv@0.1",
            "growth_options": FAST,
            "trajectory_dir": folder / "trajectories",
            "checkpoint_dir": folder / "checkpoints",
            **options,
        }
    )


def record(folder, **options):
    (path,) = train_targets(config_of(folder, **options), SilentTracker())
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recorded network that grew by a convolution."""
    return record(tmp_path_factory.mktemp("recorded"), snapshot_every=2)


def test_a_growth_event_starts_a_segment(recorded):
    trajectory = Trajectory.open(recorded)
    without, trained, *_, last = trajectory.segments
    assert without.growth == []
    assert [(seed["blueprint"], seed["is_blended"]) for seed in trained.growth] == [("cnn.conv", False)]
    assert [(seed["blueprint"], seed["is_blended"]) for seed in last.growth] == [("cnn.conv", True)]
    assert last.layout.size == without.layout.size + 10 * 8 * 8 + 2 * 8  # 3×3 and 1×1 convolutions of 8 channels
    first = trajectory.weights(trained.start)
    assert first.numel() == last.layout.size


def test_the_snapshot_of_an_event_has_the_seed_but_the_same_function(recorded):
    trajectory = Trajectory.open(recorded)
    path = trajectory.snapshots[trajectory.segments[1].start].path
    host = get_target_model("HostCNN", **trajectory.run["target_config"])
    grown = grow_as(get_target_model("HostCNN", **trajectory.run["target_config"]), path)
    load_model_weights(grown, path)
    host.load_state_dict({name: value for name, value in grown.state_dict().items() if "growth" not in name})
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(grown(images), host(images))


def test_weights_of_a_grown_network_do_not_fit_one_that_has_not_grown(recorded):
    trajectory = Trajectory.open(recorded)
    host = get_target_model("HostCNN", **trajectory.run["target_config"])
    with pytest.raises(LayoutMismatch, match=r"call metaopt\.growth\.grow_as"):
        load_model_weights(host, trajectory.snapshots[-1].path)


def test_the_history_is_beside_the_snapshots_and_part_of_the_files(recorded):
    history = GrowthHistory.read(recorded)
    assert [event.after for event in history.events][:3] == [Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING]
    assert history.measurements[0].step == 0
    assert all(after.step - before.step == FAST["interval"]
               for before, after in zip(history.measurements, history.measurements[1:], strict=False))  # fmt: skip
    assert recorded / GROWTH_FILE in Trajectory.open(recorded).files()


@pytest.mark.parametrize("controller", ["random", "schedule:conv@0.1"])
def test_resumed_equals_uninterrupted(tmp_path, controller):
    # The share of the training in an observation counts the steps of all epochs.
    options = {"controller": controller, "run_name": "whole", "seed": 1}
    whole, config = Trajectory.open(record(tmp_path, **options)), config_of(tmp_path, **options)
    weights, task = [whole.weights(index) for index in range(len(whole))], config.load_task()
    killed = tmp_path / "checkpoints" / "whole" / "seed_1" / "checkpoint.safetensors"
    settings = {"snapshot_every": 0, "snapshot_dtype": "float32", "keep_last": 0, "data": task.digest()}
    state = TargetTrainingState.from_config(config, task, torch.device("cpu"))
    state.driver.start()
    for _ in range(1, EPOCHS):
        for step in state.epoch_steps():
            state.after_step(step.take())
        state.save(killed, settings)
        for snapshot in whole.snapshots:
            if snapshot.step > state.step:
                snapshot.path.unlink()
        resumed = Trajectory.open(record(tmp_path, **options, resume=True))
        assert resumed.steps == whole.steps
        assert [segment.growth for segment in resumed.segments] == [segment.growth for segment in whole.segments]
        assert all(torch.equal(resumed.weights(index), each) for index, each in enumerate(weights))


def test_twins_have_the_same_start_and_batches(tmp_path):
    folder = record(tmp_path, twins=True)
    ratios = train_twins(config_of(tmp_path, twins=True), [folder], SilentTracker())
    grown, static, equal = (Trajectory.open(tmp_path / "trajectories" / f"grown{kind}" / "seed_0")
                            for kind in ("", "-static", "-equal-size"))  # fmt: skip
    assert torch.equal(grown.weights(0), static.weights(0))
    assert static.layout.size == grown.segments[0].layout.size
    assert equal.layout.size == grown.segments[-1].layout.size
    loss = grown.losses(-1)["val_loss"]
    assert ratios == pytest.approx(
        {"loss_over_static": loss / static.losses(-1)["val_loss"],
         "loss_over_equal_size": loss / equal.losses(-1)["val_loss"]}
    )  # fmt: skip


def test_a_controller_that_waits_records_what_no_controller_records(tmp_path):
    alone = Trajectory.open(record(tmp_path, controller=None, growth_options={}, run_name="alone"))
    waits = Trajectory.open(record(tmp_path, controller="wait", run_name="waits"))
    assert all(torch.equal(alone.weights(index), waits.weights(index)) for index in range(len(alone)))


def test_phase_2_learns_from_the_pairs_of_each_segment(recorded):
    folder = recorded.parents[2]
    config = TrainOptimizerConfig(
        run_name="grown",
        epochs=1,
        pairs_per_epoch=4,
        task_batch=16,
        optimizer_options={"dim": 8, "num_latents": 2, "latent_dim": 8, "heads": 1},
        trajectory_dir=folder / "trajectories",
        checkpoint_dir=folder / "checkpoints",
    )
    trained = train_optimizer(config, SilentTracker())
    assert len(trained.layouts) == 2
    assert trained.training_names == ["grown/seed_0"]


def test_a_problem_of_a_segment_has_the_loss_that_the_snapshot_states(recorded):
    last = Trajectory.open(recorded).parts()[-1]
    problem = InnerProblem.from_trajectory(last)
    validation = problem.task.splits["validation"][:]
    loss = problem.losses(last.weights(-1)[None], validation)
    assert float(loss) == pytest.approx(last.losses(-1)["val_loss"], rel=1e-4)


def test_generated_weights_are_those_of_the_grown_network(recorded, tmp_path):
    trajectory = Trajectory.open(recorded)
    config = GenerateConfig(optimizer="unused", trajectory=recorded, output=tmp_path / "next.safetensors")
    file = predict_weights(config, get_optimizer_model("Hold")).write()
    model = grow_as(get_target_model("HostCNN", **trajectory.run["target_config"]), file.path)
    load_model_weights(model, file.path)
    assert torch.equal(trajectory.segments[-1].layout.read(model), trajectory.weights(-1))


class Broken:
    def decide(self, observation, allowed):
        raise RuntimeError("no idea")


def test_a_controller_that_fails_waits_and_warns_once(tmp_path, caplog):
    config = config_of(tmp_path, controller="wait")
    state = TargetTrainingState.from_config(config, config.load_task(), torch.device("cpu"))
    state.driver.controller = Broken()
    state.driver.start()
    for step in state.epoch_steps():
        state.after_step(step.take())
    assert not state.growth_seeds
    assert caplog.text.count("the controller fails (RuntimeError: no idea)") == 1


@pytest.mark.usefixtures("decorated_blueprints")
def test_a_blueprint_that_does_not_fit_is_not_grown_and_named_once(tmp_path, caplog):
    blueprint("cnn", "narrow", lambda dim: 12, "For three channels.")(lambda dim: torch.nn.Conv2d(3, 3, 1))
    config = config_of(tmp_path, controller="schedule:narrow@0")
    state = TargetTrainingState.from_config(config, config.load_task(), torch.device("cpu"))
    state.driver.start()
    for step in state.epoch_steps():
        state.after_step(step.take())
    assert not state.growth_seeds
    assert not state.driver.decisions
    assert caplog.text.count("GERMINATE_NARROW fails (InvalidConfig: the blueprint cnn.narrow does not fit") == 1


def test_a_loss_that_is_not_finite_removes_a_seed_that_is_blended(tmp_path):
    config = config_of(tmp_path, growth_options={**FAST, "blend_steps": 1000})
    state = TargetTrainingState.from_config(config, config.load_task(), torch.device("cpu"))
    state.driver.start()
    for _ in range(EPOCHS):
        for step in state.epoch_steps():
            state.after_step(step.take())
    assert state.growth_seeds[0]["is_blended"]
    assert state.after_step(float("nan"))
    assert not state.growth_seeds
    assert state.layout.read(state.model).isfinite().all()
    with pytest.raises(Diverged, match="nan"):
        state.after_step(float("nan"))


def test_a_policy_of_a_file_decides_with_its_own_settings(tmp_path):
    names = [action.name for action in actions_of("cnn")]
    policy = Policy(names, growth=GrowthConfig(**FAST).to_mapping())
    with torch.no_grad():
        policy.layers[-1].weight.zero_()
        policy.layers[-1].bias.copy_(torch.tensor([float(name == "GERMINATE_NORM") for name in names]))
    save_policy(policy, tmp_path / "policy.safetensors")
    path = record(tmp_path, controller=str(tmp_path / "policy.safetensors"), growth_options={}, epochs=1)
    assert GrowthHistory.read(path).decisions[0] == (FAST["interval"], "GERMINATE_NORM")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"controller": "schedule:lora@0.2"}, UnknownName, "no blueprint 'lora'"),
        ({"controller": "schedule:conv"}, InvalidConfig, "such as schedule:conv@0.2"),
        ({"controller": "nobody"}, InvalidConfig, "expected wait, random, heuristic"),
        ({"growth_options": {"intervall": 3}}, InvalidConfig, "did you mean interval"),
        ({"growth_options": {"taps": ("blocks.7",)}}, UnknownName, "blocks.7"),
        ({"controller": None}, InvalidConfig, "growth_options needs a controller"),
        ({"vectorize": 2}, InvalidConfig, "networks that grow train apart"),
        ({"controller": None, "growth_options": {}, "twins": True}, InvalidConfig, "give a controller"),
        ({"target_model": "MLP", "target_options": {}}, InvalidConfig, "name some of its taps"),
        ({"base_optimizer": "LBFGS"}, InvalidConfig, "LBFGS"),
    ],
)
def test_bad_input_is_refused_before_a_run(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        record(tmp_path, **options)
    assert not (tmp_path / "trajectories").exists()


def test_a_policy_of_other_actions_is_refused(tmp_path):
    save_policy(Policy([action.name for action in actions_of("transformer")]), tmp_path / "policy.safetensors")
    with pytest.raises(InvalidConfig, match="does not know GERMINATE_CONV, GERMINATE_DEPTHWISE"):
        record(tmp_path, controller=str(tmp_path / "policy.safetensors"))


def test_a_run_is_not_resumed_with_another_controller(tmp_path):
    record(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="growth"):
        record(tmp_path, epochs=2, controller="heuristic", resume=True)


def test_any_network_grows_at_its_taps(tmp_path):
    options = {"taps": ("layers.1",), **FAST}
    path = record(tmp_path, target_model="MLP", target_options={"widths": (8, 8)}, controller="schedule:mlp@0",
                  growth_options=options, epochs=1)  # fmt: skip
    assert Path(path, GROWTH_FILE).is_file()
    assert Trajectory.open(path).segments[-1].growth[0]["blueprint"] == "vector.mlp"


def test_nowcasts_are_actions_where_a_forecaster_is_given(tmp_path):
    options = {**FAST, "forecaster": "builtin", "horizons": (10,)}
    config = config_of(tmp_path, controller="wait", growth_options=options)
    state = TargetTrainingState.from_config(config, load_task("digits"), torch.device("cpu"))
    assert state.driver.actions[-1].name == "NOWCAST_10"
    state.driver.controller = Always(len(state.driver.actions) - 1)
    state.driver.start()
    for step in state.epoch_steps():
        state.after_step(step.take())
    assert state.optimizer.events
    assert [event.horizon for event in state.optimizer.events if event.horizon is not None]


class Always:
    """Chooses one action."""

    def __init__(self, index):
        self.index = index

    def decide(self, observation, allowed):
        return self.index if allowed[self.index] else 0


def test_settings_of_growth_are_part_of_the_facts(recorded):
    run = Trajectory.open(recorded).run
    assert run["growth"]["controller"] == "schedule:conv@0.1"
    assert replace(config_of(Path("x")), seed=3).growth_options == FAST
