"""A controller that imitates another one before PPO trains it, and the choice of the best policy so far."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import CheckpointError, InvalidConfig, UnknownName
from metaopt.core.rng import random_states
from metaopt.core.tracker import SilentTracker
from metaopt.growth.policy import Policy, load_policy, save_policy
from metaopt.reinforcement.comparison import best_schedule, play, schedules
from metaopt.reinforcement.config import BEST_SCHEDULE, FACTS, TrainControllerConfig
from metaopt.reinforcement.demonstration import Decision, Demonstration, demonstrate
from metaopt.reinforcement.imitation import imitated_controller
from metaopt.reinforcement.problem import Problem
from metaopt.reinforcement.scored_episode import Result
from metaopt.reinforcement.selection import Selection, is_better
from metaopt.reinforcement.state import ControllerTrainingState, policy_of_checkpoint
from metaopt.reinforcement.training import describe_training, train_controller
from metaopt.reinforcement.twins import Twins
from metaopt.weights.files import read_facts

from ..growing import EPISODE

NAME = "schedule:conv@0.2"
CONFIG = TrainControllerConfig(
    **EPISODE, episodes=4, n_envs=2, minibatch=5, checkpoint_every=1, imitate=NAME, selection_episodes=1
)


class Metrics(SilentTracker):
    """Keeps metrics and tags."""

    def __init__(self):
        self.rows, self.tagged = {}, {}

    def metrics(self, values, step):
        self.rows[step] = {name: value for name, value in values.items() if name != "seconds"}

    def tags(self, values):
        self.tagged |= values


class CountedTwins(Twins):
    """Counts the episodes, each of which asks for the losses of its twin once."""

    episodes = 0

    def losses(self, random_seed):
        self.episodes += 1
        return super().losses(random_seed)


@pytest.fixture(scope="module")
def problem():
    return Problem(CONFIG)


@pytest.fixture(scope="module")
def twins(problem):
    return Twins(problem)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def whole(folder):
    """An uninterrupted training of two rollouts, and its metrics."""
    tracker = Metrics()
    return train_controller(replace(CONFIG, checkpoint_dir=folder), tracker), tracker


def test_a_policy_learns_the_decisions_of_the_controller_and_draws_no_random_numbers(problem, twins):
    state = ControllerTrainingState(CONFIG, problem, twins)
    before = random_states()
    metrics = state.imitate()
    assert metrics["agreement"] == 1.0
    assert torch.equal(random_states()["torch"], before["torch"])
    assert random_states()["python"] == before["python"]
    for seed in CONFIG.training_seeds:
        assert play(problem, twins, state.last_policy, seed) == play(problem, twins, NAME, seed)


def test_the_imitation_is_logged_and_stated_in_the_files(whole):
    trained, tracker = whole
    assert list(tracker.rows) == [0, 18, 36]
    selected = {"selection_return", "best_selection_return", "best_rollout"}
    assert set(tracker.rows[0]) == {"agreement", "demonstrated_return", *selected}
    assert f"after rollout {trained.metrics['best_rollout']:.0f} " in describe_training(trained)
    assert tracker.tagged["metaopt.imitated"] == NAME
    assert read_facts(trained.file, "policy")[FACTS]["imitated"] == NAME


def test_the_result_is_the_best_policy_on_held_out_episodes(whole, problem, twins):
    trained, tracker = whole
    returns = [row["selection_return"] for row in tracker.rows.values()]
    assert trained.metrics["best_selection_return"] == max(returns)
    (seed,) = CONFIG.selection_seeds(1)
    for policy in (load_policy(trained.file), policy_of_checkpoint(trained.checkpoint)):
        assert play(problem, twins, policy, seed).total == max(returns)


def test_a_resumed_training_imitates_no_more_and_equals_an_uninterrupted_one(whole, folder):
    trained, tracker = whole
    resumed = Metrics()
    config = replace(CONFIG, checkpoint_dir=folder, run_name="resumed")
    again = train_controller(config, resumed, trained.checkpoint.with_name("controller_rollout_1.safetensors"))
    assert again.checkpoint.read_bytes() == trained.checkpoint.read_bytes()
    assert again.file.read_bytes() == trained.file.read_bytes()
    assert resumed.rows == {36: tracker.rows[36]}


@pytest.mark.parametrize("change", [{"imitate": None}, {"imitate": "heuristic"}, {"selection_episodes": 2}])
def test_a_checkpoint_of_another_imitation_is_refused(whole, folder, change):
    config = replace(CONFIG, checkpoint_dir=folder, run_name="other", **change)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        train_controller(config, SilentTracker(), whole[0].checkpoint)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("heuristics", InvalidConfig, "heuristic"),
        ("schedule:cnov@0.2", UnknownName, "conv"),
        ("schedule:conv", InvalidConfig, "schedule:conv@0.2"),
    ],
)
def test_an_unknown_controller_is_refused_before_anything_is_written(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        train_controller(replace(CONFIG, checkpoint_dir=tmp_path, imitate=name), SilentTracker())
    assert list(tmp_path.iterdir()) == []


def test_a_policy_is_not_imitated(tmp_path, problem):
    path = tmp_path / "policy.safetensors"
    save_policy(Policy([action.name for action in problem.actions]), path)
    with pytest.raises(InvalidConfig, match="--resume-from"):
        train_controller(replace(CONFIG, checkpoint_dir=tmp_path / "new", imitate=str(path)), SilentTracker())
    assert not (tmp_path / "new").exists()


def test_the_best_schedule_is_chosen_on_held_out_random_seeds():
    config = replace(CONFIG, imitate=BEST_SCHEDULE, steps=8)
    problem = Problem(config)
    twins = Twins(problem)
    seeds = config.selection_seeds(config.selection_episodes)
    chosen = imitated_controller(problem, twins, config)
    assert chosen in schedules(problem)
    others = [chosen, "schedule:norm@0", "schedule:conv@0", "schedule:conv@0.4"]
    assert best_schedule(others, seeds, lambda name, seed: play(problem, twins, name, seed)) == chosen


def test_a_best_schedule_needs_episodes_on_which_it_is_chosen():
    with pytest.raises(InvalidConfig, match="selection_episodes"):
        replace(CONFIG, imitate=BEST_SCHEDULE, selection_episodes=0)


def test_returns_are_discounted_sums_of_what_follows():
    decisions = [Decision([0.0], [True], 0, reward) for reward in (1.0, 2.0, 4.0)]
    episode = Demonstration(decisions, Result(0, 7.0, 1.0, 1.0, 0.0))
    assert episode.returns(0.5) == [3.0, 4.0, 4.0]
    assert episode.returns(1.0) == [7.0, 6.0, 4.0]


def policy_for(problem, action):
    """A policy that prefers one action, and waits where it is not allowed."""
    policy = Policy([action.name for action in problem.actions], ())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.layers[-1].bias[0], policy.layers[-1].bias[action] = 1.0, 2.0
    return policy.eval()


def test_a_selection_keeps_the_best_policy_and_plays_equal_ones_once(problem):
    twins = CountedTwins(problem)
    (seed,) = seeds = CONFIG.selection_seeds(1)
    policies = [policy_for(problem, action) for action in (0, 1, 2)]
    expected = [demonstrate(problem, twins, policy, seed).result.total for policy in policies]
    selection, played = Selection(problem, twins, seeds), twins.episodes
    found = [selection.consider(policy, rollout) for rollout, policy in enumerate([*policies, *policies])]
    assert found == expected * 2
    assert selection.returns == [max(found)]
    assert selection.best is policies[found.index(max(found))]
    assert selection.rollout == found.index(max(found))
    assert twins.episodes - played == 3


@pytest.mark.parametrize(
    ("gains", "better"),
    [([0.1], True), ([0.0], False), ([5.0, 0.0, 0.0], False), ([0.1, 0.1, 0.0], True), ([3.0, -1.0, -1.0], False)],
)
def test_a_policy_is_better_if_its_gain_is_larger_than_its_standard_error(gains, better):
    others = [0.3, -0.2, 0.1][: len(gains)]
    assert is_better([other + gain for other, gain in zip(others, gains, strict=True)], others) is better
