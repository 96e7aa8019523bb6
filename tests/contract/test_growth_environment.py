"""The environment of reinforcement learning keeps the contract of gymnasium, and trains as phase 1 does."""

import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from metaopt.core.devices import CPU
from metaopt.core.errors import InvalidConfig
from metaopt.growth.actions import perform
from metaopt.growth.observation import NAMES
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.state import TargetTrainingState
from metaopt.reinforcement.comparison import play
from metaopt.reinforcement.config import EpisodeConfig
from metaopt.reinforcement.environment import ENVIRONMENT, GrowthEnv
from metaopt.reinforcement.episode import Episode
from metaopt.reinforcement.problem import Problem
from metaopt.reinforcement.twins import Twins

from ..growing import EPISODE, GROWTH

CONFIG = EpisodeConfig(**EPISODE)


@pytest.fixture(scope="module")
def problem():
    return Problem(CONFIG)


@pytest.fixture(scope="module")
def twins(problem):
    return Twins(problem)


@pytest.fixture
def env(problem, twins):
    return GrowthEnv(problem, twins)


def random_episode(env, seed, choices):
    """All that an episode gives, with allowed actions drawn at random."""
    observation, _ = env.reset(seed=seed)
    seen, is_over = [observation.tolist()], False
    while not is_over:
        action = choices.choice(np.flatnonzero(env.action_masks()))
        observation, reward, is_over, is_cut, info = env.step(action)
        assert not is_cut
        seen.append((observation.tolist(), reward, info))
    return seen


def test_gymnasium_accepts_the_environment():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENVIRONMENT, config=CONFIG).unwrapped)


def test_an_episode_has_a_decision_after_each_interval_but_the_last(env):
    seen = random_episode(env, 0, np.random.default_rng(0))
    assert len(seen) == 1 + CONFIG.decisions == 10
    assert seen[0][0] == pytest.approx(2 / 20)  # share of the steps done
    assert len(seen[0]) == len(NAMES) == 23
    result = seen[-1][2]["result"]
    assert result.total == pytest.approx(sum(reward for _, reward, _ in seen[1:]))


@pytest.mark.parametrize("seed", range(4))
def test_the_masks_allow_exactly_what_the_life_cycle_performs(env, seed):
    """Random episodes: what is allowed is performed, and what is not is refused by `perform` and counts as WAIT."""
    choices = np.random.default_rng(seed)
    env.reset(seed=seed)
    is_over, done = False, set()
    while not is_over:
        mask = env.action_masks()
        growth = env._episode._episode.growth
        for index in np.flatnonzero(~mask):
            with pytest.raises(InvalidConfig):
                perform(growth, env.problem.actions[index])
        action = choices.choice(np.flatnonzero(mask))
        _, _, is_over, _, info = env.step(action)
        assert info["action"] == env.problem.actions[action].name
        done.add(info["action"])
    assert len(done) > 2


def test_an_action_that_is_not_allowed_counts_as_wait(env):
    env.reset(seed=0)
    culls = [action.name for action in env.problem.actions].index("CULL")
    assert not env.action_masks()[culls]
    assert env.step(culls)[-1]["action"] == "WAIT"


@pytest.mark.parametrize("action", [-1, 99, 0.5, None, "WAIT"])
def test_an_action_that_does_not_exist_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(InvalidConfig, match=rf"the action is .*{action}.*; expected an index from 0 to 6$"):
        env.step(action)


def test_equal_seeds_give_equal_episodes_whatever_the_process_did_before(env):
    first = random_episode(env, 3, np.random.default_rng(1))
    torch.rand(7)
    np.random.rand(3)
    random_episode(env, 4, np.random.default_rng(2))
    assert random_episode(env, 3, np.random.default_rng(1)) == first


def test_an_episode_leaves_the_random_numbers_of_the_process_alone(env):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    random_episode(env, 0, np.random.default_rng(0))
    assert torch.rand(3).equal(expected)


def test_environments_side_by_side_give_the_episodes_of_single_ones(problem, twins):
    single = GrowthEnv(problem, twins)
    actions = (1, 0, 0, 0)
    expected = []
    for seed in (10, 11):
        episode = [single.reset(seed=seed)[0]]
        expected.append(episode + [single.step(action)[0] for action in actions])
    vector = SyncVectorEnv([lambda: GrowthEnv(problem, twins)] * 2)
    seen = [vector.reset(seed=[10, 11])[0], *(vector.step(np.array([action] * 2))[0] for action in actions)]
    sb3 = DummyVecEnv([lambda: GrowthEnv(problem, twins)] * 2)
    sb3.seed(10)
    also = [sb3.reset(), *(sb3.step(np.array([action] * 2))[0] for action in actions)]
    np.testing.assert_array_equal(np.stack(seen, axis=1), np.array(expected))
    np.testing.assert_array_equal(np.stack(also, axis=1), np.array(expected))
    assert sb3.env_method("action_masks")[0].dtype == bool


def test_an_episode_trains_and_decides_as_phase_1(tmp_path):
    """The losses, the observations and so the decisions of a controller are the same, bit for bit."""
    recorded = TrainTargetConfig(
        task="digits",
        target_model="HostCNN",
        target_options=EPISODE["target_options"],
        batch_size=101,
        lr=0.01,
        epochs=4,
        seed=7,
        controller="heuristic",
        growth_options=GROWTH,
    )
    task = recorded.load_task()
    steps = recorded.step_count(task)
    assert steps % GROWTH["interval"] == 0
    state = TargetTrainingState.from_config(recorded, task, CPU)
    state.driver.start()
    for _ in range(recorded.epochs):
        for step in state.epoch_steps():
            state.after_step(step.take())
    problem = Problem(replace(CONFIG, steps=steps, batch_size=101))
    episode, controller = Episode(problem, 7), problem.start(7, "heuristic").controller
    decisions = []
    while not episode.is_over:
        action = controller.decide(episode.observation(), episode.allowed)
        if action:
            decisions.append((episode.growth.step, problem.actions[action].name))
        episode.act(action)
    assert episode.growth.losses == state.driver.growth.losses
    assert decisions == [each for each in state.driver.decisions if each[0] < steps]
    assert len(decisions) > 1


def test_waiting_is_the_static_twin(problem, twins):
    result = play(problem, twins, "wait", 5)
    assert (result.total, result.ratio, result.grown) == (0.0, 1.0, 0.0)


def test_a_folder_keeps_the_losses_of_twins_and_a_damaged_file_is_made_again(problem, tmp_path, caplog):
    first = Twins(problem, tmp_path).losses(1)
    (path,) = tmp_path.iterdir()
    kept = path.read_bytes()
    path.touch()
    assert Twins(problem, tmp_path).losses(1) == first
    path.write_bytes(kept[:-8] + b"\0" * 8)
    assert Twins(problem, tmp_path).losses(1) == first
    assert "trained again" in caplog.text
    assert path.read_bytes() == kept


def test_losses_of_twins_are_not_shared_between_devices(problem, tmp_path, monkeypatch):
    """A digest of another device: the network is not moved."""
    Twins(problem, tmp_path).losses(1)
    monkeypatch.setattr(problem, "device", torch.device("meta"))
    monkeypatch.setattr(Twins, "_trained", lambda twins, random_seed: (2.0,) * (CONFIG.decisions + 2))
    assert Twins(problem, tmp_path).losses(1) == (2.0,) * (CONFIG.decisions + 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_training_and_evaluation_have_other_random_seeds():
    sets = [set(CONFIG.training_seeds), set(CONFIG.selection_seeds(100)), set(CONFIG.evaluation_seeds(100))]
    assert not any(sets[i] & sets[j] for i in range(3) for j in range(i))
    with pytest.raises(InvalidConfig, match="train_seeds"):
        replace(CONFIG, train_seeds=2_000_000)


@pytest.mark.parametrize("steps", [2, 21])
def test_an_episode_of_no_whole_intervals_is_refused(steps):
    with pytest.raises(InvalidConfig, match="multiple of interval"):
        replace(CONFIG, steps=steps)


def test_a_diverging_training_ends_the_episode_with_finite_rewards(problem, twins):
    env = GrowthEnv(problem, twins)
    env.reset(seed=0)
    with torch.no_grad():
        next(env._episode._episode.growth.model.parameters()).fill_(float("nan"))
    observation, reward, is_over, _, info = env.step(0)
    assert is_over
    assert np.isfinite(reward)
    assert env.observation_space.contains(observation)
    assert info["result"].total < -1
    with pytest.raises(InvalidConfig, match="over"):
        env.step(0)
