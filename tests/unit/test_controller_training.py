"""Training of a controller: the policy of stable-baselines3 becomes ours, checkpoints, and comparisons."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from metaopt.core.control import StopRequested, control
from metaopt.core.errors import CheckpointError, InvalidConfig, RunNameError
from metaopt.core.tracker import SilentTracker
from metaopt.growth.policy import load_policy
from metaopt.reinforcement.comparison import Played, best_schedule, play, played, schedules
from metaopt.reinforcement.config import TrainControllerConfig
from metaopt.reinforcement.problem import Problem
from metaopt.reinforcement.scored_episode import Result
from metaopt.reinforcement.state import ControllerTrainingState, policy_of_checkpoint
from metaopt.reinforcement.training import train_controller
from metaopt.reinforcement.twins import Twins
from metaopt.trajectories.checkpoint import save_checkpoint

from ..growing import EPISODE

CONFIG = TrainControllerConfig(**EPISODE, episodes=6, n_envs=2, minibatch=5, ppo_epochs=3, checkpoint_every=1)


class Metrics(SilentTracker):
    """Keeps the metrics."""

    def __init__(self):
        self.rows, self.figures = {}, []

    def metrics(self, values, step):
        self.rows[step] = {name: value for name, value in values.items() if name != "seconds"}

    def figure(self, figure, name):
        self.figures.append(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def whole(folder):
    """An uninterrupted training of three rollouts, and its metrics."""
    tracker = Metrics()
    return train_controller(replace(CONFIG, checkpoint_dir=folder), tracker), tracker


@pytest.fixture(scope="module")
def problem():
    return Problem(CONFIG)


@pytest.fixture(scope="module")
def twins(problem):
    """Those of each reward: a run without growth does not depend on it."""
    return Twins(problem)


def test_a_training_measures_returns_and_the_updates_of_the_policy(whole):
    trained, tracker = whole
    assert list(tracker.rows) == [18, 36, 54]  # decisions
    wanted = {"return", "loss", "loss_over_twin", "entropy", "kl", "value_loss", "grown", "episodes"}
    assert wanted <= set(trained.metrics)
    assert all(np.isfinite(list(row.values())).all() for row in tracker.rows.values())
    assert tracker.rows[18]["entropy"] > 0
    assert set(tracker.figures) == {"return"}


@pytest.mark.parametrize("rollout", [1, 3])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(whole, folder, rollout):
    trained, tracker = whole
    resumed = Metrics()
    config = replace(CONFIG, checkpoint_dir=folder, run_name=f"resumed_{rollout}", checkpoint_every=5)
    again = train_controller(config, resumed, trained.checkpoint.with_name(f"controller_rollout_{rollout}.safetensors"))
    assert again.checkpoint.read_bytes() == trained.checkpoint.read_bytes()
    assert again.file.read_bytes() == trained.file.read_bytes()
    assert resumed.rows == {step: row for step, row in tracker.rows.items() if step > 18 * rollout}


def test_a_training_that_is_asked_to_stop_ends_after_its_rollout_with_a_checkpoint(whole, folder, monkeypatch):
    monkeypatch.setattr(control, "stop_requested", True)
    config = replace(CONFIG, checkpoint_dir=folder, run_name="stopped", checkpoint_every=5)
    with pytest.raises(StopRequested):
        train_controller(config, SilentTracker())
    stopped = config.checkpoint_folder / "controller_rollout_1.safetensors"
    assert stopped.read_bytes() == whole[0].checkpoint.with_name("controller_rollout_1.safetensors").read_bytes()


def test_files_hold_the_policy_and_are_no_pickles(whole):
    trained, _ = whole
    loaded = load_policy(trained.file)
    for policy in (loaded, policy_of_checkpoint(trained.checkpoint)):
        assert all(map(torch.equal, policy.parameters(), trained.policy.parameters()))
        assert policy.growth == CONFIG.growth.to_mapping()
    assert {path.suffix for path in trained.file.parent.glob("[!.]*")} == {".safetensors"}


@pytest.mark.parametrize("hidden", [(), (8,), (16, 12), (5, 6, 7)])
def test_the_converted_policy_decides_exactly_as_the_original(problem, hidden):
    state = ControllerTrainingState(replace(CONFIG, hidden=hidden), problem, Twins(problem))
    with torch.no_grad():
        for parameter in state._ppo.policy.parameters():
            parameter.add_(torch.randn_like(parameter))
    policy, random = state.policy, np.random.default_rng(0)
    for _ in range(60):
        observation = random.normal(size=23).astype(np.float32) * 3
        mask = np.append(True, random.random(len(problem.actions) - 1) < 0.5)
        expected, _ = state._ppo.predict(observation, action_masks=mask, deterministic=True)
        assert policy.decide(observation.tolist(), mask.tolist()) == expected
        logits = state._ppo.policy.get_distribution(torch.tensor(observation)[None]).distribution.logits[0]
        torch.testing.assert_close(policy(torch.tensor(observation)).log_softmax(0), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rent": 0.5}, "rent"), ({"lr": 0.02}, "lr"), ({"policy_lr": 0.5}, "policy_lr"), ({"hidden": (8,)}, "hidden")],
)
def test_a_checkpoint_of_another_training_is_refused(whole, folder, change, message):
    config = replace(CONFIG, checkpoint_dir=folder, run_name="other", **change)
    with pytest.raises(CheckpointError, match=message):
        train_controller(config, SilentTracker(), whole[0].checkpoint)
    assert not (folder / "other").exists()


def test_a_checkpoint_of_another_phase_is_refused(tmp_path):
    save_checkpoint(tmp_path / "other.safetensors", {"model": {}}, {"task": "digits"})
    with pytest.raises(CheckpointError, match="train-controller"):
        policy_of_checkpoint(tmp_path / "other.safetensors")


def test_a_taken_run_name_is_refused(whole, folder):
    with pytest.raises(RunNameError, match="taken"):
        train_controller(replace(CONFIG, checkpoint_dir=folder), SilentTracker())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 3}, "multiple of 2"),
        ({"n_envs": 1, "steps": 4}, "one decision"),
        ({"reward": "accuracy"}, "spec"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused(change, message):
    with pytest.raises(InvalidConfig, match=message):
        replace(CONFIG, **change)


def test_without_its_packages_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "metaopt.reinforcement.environment")
    with pytest.raises(InvalidConfig, match=r"gymnasium is missing.*metaopt\[growth\]"):
        import metaopt.reinforcement.environment  # noqa: F401


@pytest.mark.parametrize("reward", ["spec", "twin"])
def test_controllers_are_played_on_equal_random_seeds(whole, twins, reward):
    problem = Problem(replace(CONFIG.episode, reward=reward))
    names = ["wait", "schedule:conv@0.1", str(whole[0].file)]
    rows = [played(name, [100], lambda name, seed: play(problem, twins, name, seed)) for name in names]
    for row in rows:
        assert [result.random_seed for result in row.results] == [100]
        assert row.results[0].twin_loss == rows[0].results[0].twin_loss
    assert rows[1].grown > 0
    assert rows[0].loss_over_twin == 1.0


def result(seed, total):
    return Result(seed, total, 1.0, 1.0, 0.0)


def test_a_paired_difference_is_in_its_standard_errors():
    ours = Played("a", [result(seed, total) for seed, total in enumerate((3.0, 5.0, 10.0))])
    other = Played("b", [result(seed, total) for seed, total in enumerate((2.0, 3.0, 7.0))])
    assert ours.over(other) == pytest.approx(2.0 / (1.0 / 3**0.5))
    assert ours.over(ours) == 0.0
    with pytest.raises(InvalidConfig, match="different random seeds"):
        ours.over(Played("c", [result(seed + 1, 0.0) for seed in range(3)]))


def test_the_best_schedule_is_one_of_all_blueprints_and_shares(problem):
    names = schedules(problem, ("0", "0.5"))
    assert "schedule:conv@0.5" in names
    assert len(names) == 2 * sum(action.kind == "germinate" for action in problem.actions)
    assert best_schedule(names, [0, 1], lambda name, seed: result(seed, name.count("conv") + name.count("0.5"))) == (
        "schedule:conv@0.5"
    )
