"""Metrics of levels and memories in a recording: their values, that they change no training, and their figure."""

import copy
from dataclasses import replace

import pytest
import torch

from metaopt.core.clock import LevelSpec
from metaopt.core.devices import CPU
from metaopt.core.errors import CheckpointError, InvalidConfig
from metaopt.core.tracker import SilentTracker
from metaopt.figures import event_chart, rendered
from metaopt.nested import ContinuumMemory, Hope, HopeConfig
from metaopt.nested.update_norms import BINS, UpdateNorms
from metaopt.recording.level_metrics import level_figure, surprise_metrics
from metaopt.recording.record import TrainTargetConfig, prepared_recording, train_targets
from metaopt.recording.state import TargetTrainingState
from metaopt.trajectories import Trajectory
from metaopt.trajectories.checkpoint import load_checkpoint

FAST, SLOW = LevelSpec("fast"), LevelSpec("slow", 3)
SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 8, "periods": (1, 2), "chunk": 4}


def build(variant="sequential", observe=True):
    torch.manual_seed(0)
    memory = ContinuumMemory(4, [FAST, SLOW], hidden=(6,), variant=variant)
    optimizer = torch.optim.Adam(memory.parameters(), lr=0.01)
    levels = memory.levels()
    levels.attach(optimizer)
    return memory, optimizer, levels, levels.observe() if observe else None


def train(memory, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        (memory(inputs) - inputs.flip(1)).square().mean().backward()
        optimizer.step()


def flat(parameters):
    return torch.cat([weights.detach().flatten() for weights in parameters])


def test_a_norm_is_that_of_the_change_over_that_of_the_parameters_at_each_update():
    memory, optimizer, levels, norms = build()
    expected = {"fast": [], "slow": []}
    for step in range(7):
        before = {name: flat(group) for name, group in levels.parameters.items()}
        train(memory, optimizer, [step])
        for name in levels.clock.due():
            now = flat(levels.parameters[name])
            expected[name].append(float((now - before[name]).norm() / now.norm()))
    curves = norms.curves()
    assert curves["slow"][0] == [3, 6]
    assert {name: values for name, (_, values) in curves.items()} == {
        name: pytest.approx(values, rel=1e-4) for name, values in expected.items()
    }
    means = norms.means()
    assert means == {name: pytest.approx(sum(values) / len(values), rel=1e-4) for name, values in expected.items()}
    train(memory, optimizer, [7])
    assert set(norms.means()) == {"fast"}, "slow was not updated since the last call"


@pytest.mark.parametrize("variant", ["sequential", "nested"])
def test_observing_changes_no_bit_of_a_training(variant):
    alone, observed = build(variant, observe=False), build(variant)
    for memory, optimizer, _, norms in (alone, observed):
        train(memory, optimizer, range(8))
        assert norms is None or (norms.means() and norms.curves())
    assert torch.equal(flat(alone[0].parameters()), flat(observed[0].parameters()))
    assert max(observed[3].curves()["fast"][1]) <= 1.5, "changes that start from zero are of the order of the weights"


def test_norms_of_a_long_training_are_means_of_equal_bins():
    weights = torch.nn.Parameter(torch.full((1,), 1e6))
    norms, last = UpdateNorms({FAST: [weights], SLOW: [weights]}), 5 * BINS + 3
    for step in range(1, last + 1):
        norms.before(["fast", "slow"] if SLOW.fires(step) else ["fast"])
        with torch.no_grad():
            weights += 2.0
        norms.after(step)
    assert norms.width == 8
    for steps, values in norms.curves().values():
        assert len(steps) <= BINS
        assert values == pytest.approx([2e-6] * len(values), rel=0.02)
        assert steps[0] == 4.5
        assert last - 8 <= steps[-1] <= last


def test_norms_continue_from_a_state():
    memory, optimizer, _, whole = build()
    train(memory, optimizer, range(8))
    again, optimizer, _, half = build()
    train(again, optimizer, range(5))
    half.means()
    state, weights, base = copy.deepcopy((half.state_dict(), again.state_dict(), optimizer.state_dict()))
    resumed, optimizer, _, norms = build()
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(base)
    norms.load_state_dict(state)
    train(resumed, optimizer, range(5, 8))
    assert norms.curves() == whole.curves()


@pytest.mark.parametrize(
    "change", [{"step": -1}, {"step": BINS + 1}, {"width": 0}, {"width": True}, {"sums": torch.zeros(1, BINS)}]
)
def test_a_damaged_state_is_refused(change):
    *_, norms = build()
    with pytest.raises(CheckpointError, match="update norms of shape"):
        norms.load_state_dict({**norms.state_dict(), **change})


def test_a_figure_of_many_steps_is_small_and_draws_rare_updates_one_by_one():
    steps = list(range(1, 300_001))
    curve = ([1.0, 200.0, 300_000.0], [0.1, float("nan"), 0.01])
    figure = event_chart("t", "s", "steps", "norm", {"a": steps, "b": steps[::100_000]}, {"a": curve, "b": ([], [])})
    bars, ticks = figure.subfigs[1].axes[0].patches, figure.subfigs[1].axes[0].collections
    assert len(bars) == 1
    assert [len(each.get_segments()) for each in ticks] == [3]
    assert len(rendered(figure)["svg"]) < 60_000


@pytest.mark.parametrize("memory", ["linear", "titan", "self"])
def test_surprise_is_the_gradient_of_a_memory_and_ignores_the_mode(memory):
    torch.manual_seed(0)
    model = Hope(HopeConfig(vocab_size=11, block_size=16, memory=memory, **SIZES))
    tokens = torch.randint(11, (3, 16))
    found = model.surprises(tokens)
    assert list(found) == ["blocks.0.memory"]
    assert 0 < found["blocks.0.memory"] < 10
    layer, inputs = model.blocks[0].memory, torch.randn(2, 7, 8)
    each = layer.surprise(inputs)
    assert each.shape == (2, 7)
    torch.testing.assert_close(each[:1], layer.surprise(inputs[:1]))
    torch.testing.assert_close(each[:, :5], layer.surprise(inputs[:, :5]))


def test_surprise_of_a_self_modifier_is_the_gradient_of_its_loss():
    torch.manual_seed(0)
    layer = Hope(HopeConfig(vocab_size=11, memory="self", **SIZES)).blocks[0].memory
    inputs = 0.3 * torch.randn(1, 1, 8)
    heads = inputs.view(2, 4)
    expected = []
    for head, tokens in enumerate(heads):
        key, value, memory = (layer.memory.initial[name][0][head] for name in ("key", "value", "memory"))
        memory = memory.detach().clone().requires_grad_()
        k, v = torch.nn.functional.normalize(key @ tokens, dim=0), value @ tokens
        loss = (memory @ k - (memory @ v).detach()).square().sum()
        expected.append(torch.autograd.grad(loss, memory)[0].norm())
    torch.testing.assert_close(layer.surprise(inputs)[0, 0], torch.stack(expected).norm())


def test_networks_without_memories_have_no_surprise():
    assert surprise_metrics(torch.nn.Linear(2, 2), iter(())) == {}
    assert Hope(HopeConfig(memory="none")).surprises(torch.zeros(1, 4, dtype=torch.long)) == {}


class Collected(SilentTracker):
    """A tracker that keeps metrics and names of figures, also those of its children."""

    def __init__(self):
        self.values, self.figures = [], []

    def metrics(self, values, step):
        self.values.append((step, dict(values)))

    def figure(self, figure, name):
        rendered(figure)
        self.figures.append(name)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    text = folder / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 12, encoding="utf-8")
    return TrainTargetConfig(
        run_name="whole",
        task="text",
        task_options={"block_size": 16, "tokenizer": "characters"},
        data_dir=text,
        target_model="Hope",
        target_options=SIZES,
        batch_size=16,
        epochs=2,
        trajectory_dir=folder / "trajectories",
        checkpoint_dir=folder / "checkpoints",
    )


@pytest.fixture(scope="module")
def whole(config):
    """What a training of two epochs logs, and the folder of its recording."""
    torch.set_num_threads(1)
    tracker = Collected()
    (folder,) = train_targets(config, tracker)
    return tracker, folder


def test_a_recording_logs_fires_update_norms_and_surprise_of_each_epoch(whole):
    tracker, folder = whole
    epochs = [(step, values) for step, values in tracker.values if "epoch" in values]
    assert [values["fires/level 2"] for _, values in epochs] == [step // 2 for step, _ in epochs]
    assert [values["fires/level 1"] for _, values in epochs] == [step for step, _ in epochs]
    assert "update_norm/level 1" not in epochs[0][1]
    for _, values in epochs[1:]:
        assert 0 < values["update_norm/level 1"] < 1
        assert 0 < values["update_norm/level 2"] < 1
    assert all(values["surprise/blocks.0.memory"] > 0 for _, values in epochs)
    assert tracker.figures == ["losses", "levels"]
    assert Trajectory.open(folder).steps[-1] == epochs[-1][0]


def test_a_batched_recording_measures_the_same(config):
    def state_after(vectorize):
        name = f"by {vectorize}"
        config_of = replace(config, run_name=name, runs=2, vectorize=vectorize, epochs=1)
        train_targets(config_of, SilentTracker())
        return load_checkpoint(config.checkpoint_dir / name / "seed_1" / "checkpoint.safetensors")[0]["update_norms"]

    alone, together = state_after(1), state_after(2)
    assert alone["step"] == together["step"] > 0
    torch.testing.assert_close(alone["sums"], together["sums"], rtol=1e-2, atol=1e-5)


def test_a_resumed_recording_draws_the_whole_training(config, whole):
    expected, stopped = whole[0], Collected()
    train_targets(replace(config, run_name="resumed", epochs=1), SilentTracker())
    train_targets(replace(config, run_name="resumed", resume=True), stopped)
    steps = expected.values[-1][0]
    assert {k: v for k, v in expected.values[-2][1].items() if k != "seconds"} == {
        k: v for k, v in stopped.values[-2][1].items() if k != "seconds"
    }
    states = []
    for name in ("whole", "resumed"):
        each = replace(config, run_name=name)
        state = TargetTrainingState.from_config(each, each.load_task(), CPU)
        settings = load_checkpoint(path := config.checkpoint_dir / name / "seed_0" / "checkpoint.safetensors")[1]
        state.load(path, {key: settings[key] for key in settings if key not in ("run", "state")})
        states.append(state.update_norms)
        assert level_figure(states[-1], "levels").subfigs
    assert states[0].step == steps
    assert states[0].curves() == states[1].curves()


def test_a_recording_with_lbfgs_is_refused_before_it_begins(config, tmp_path):
    config = replace(config, base_optimizer="LBFGS", trajectory_dir=tmp_path / "trajectories")
    with pytest.raises(InvalidConfig, match="LBFGS computes gradients several times"), prepared_recording(config):
        pass
    assert not config.trajectory_dir.exists()
