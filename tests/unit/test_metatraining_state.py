"""The state of a meta-training: updates, the EMA of the weights, checkpoints, and steps without a finite gradient."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import CheckpointError, Diverged, FileFormatError, MetaoptError
from metaopt.generative.files import load_optimizer_file
from metaopt.metatraining.state import MetaTrainingState
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint
from metaopt.weights.files import write_tensors
from metaopt.weights.layout import Layout, WeightTensor

LAYOUT = Layout((WeightTensor("w", (6, 5), "float32"), WeightTensor("b", (6,), "float32")))
SMALL = {"dim": 8, "num_latents": 4, "latent_dim": 8, "hidden": 8, "token_size": 8, "history": 2}
SETTINGS = {"objective": "mix", "lr": 1e-2, "trajectories": ["a", "b"]}


def build(name="PerceiverOptimizer", options=SMALL, seed=0, lr=1e-2, ema_decay=0.9):
    return MetaTrainingState(name, options, seed=seed, lr=lr, weight_decay=0.01, ema_decay=ema_decay)


def history_of(number=0):
    random = torch.Generator().manual_seed(number)
    history = torch.randn(3, 2, LAYOUT.size, generator=random)
    return history, torch.tensor([[0.0, 10.0]]).expand(3, -1), torch.full((3,), 25.0)


def objective(state, number=0):
    history, times, t_end = history_of(number)
    predicted = state.model.generate(history, times, t_end, LAYOUT)
    return (predicted - history.mean(1)).square().mean()


def train(state, updates):
    for _ in range(updates):
        state.update(objective(state, state.step))
    state.epoch += 1
    return state


def weights_of(state):
    averaged = {f"averaged {name}": each for name, each in state.predictor.state_dict().items()}
    return {**state.model.state_dict(), **averaged}


def same(one, other):
    return all(torch.equal(each, weights_of(other)[name]) for name, each in weights_of(one).items())


def test_the_random_seed_determines_the_weights():
    assert same(train(build(), 3), train(build(), 3))
    assert not same(build(), build(seed=1))


def test_updates_lower_the_objective_and_move_the_ema():
    state = build()
    before = objective(state).item()
    for _ in range(40):
        state.update(objective(state))
    assert objective(state).item() < before
    history, times, t_end = history_of()
    moved = state.predictor.predict(history, times, t_end, LAYOUT)
    assert not torch.equal(moved, history[:, -1])
    assert not torch.equal(moved, state.model.predict(history, times, t_end, LAYOUT))
    assert not any(parameter.requires_grad for parameter in state.predictor.parameters())


def test_the_predictor_has_the_bias_corrected_ema():
    state, total, mass = build(ema_decay=0.5), 0.0, 0.0
    for _ in range(4):
        train(state, 1)
        total, mass = 0.5 * total + 0.5 * state.model.coefficients.weight.detach(), 0.5 * mass + 0.5
    torch.testing.assert_close(state.predictor.coefficients.weight, total / mass)


def test_a_resumed_training_gives_the_same_bytes(tmp_path):
    train(build(), 3).save(tmp_path / "first", SETTINGS)
    stopped = build()
    torch.rand(7)  # draws in between do not matter
    stopped.load(tmp_path / "first", SETTINGS)
    assert (stopped.epoch, stopped.step) == (1, 3)
    stopped.save(tmp_path / "again", SETTINGS)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    train(stopped, 30).save(tmp_path / "resumed", SETTINGS)
    whole = build()
    train(train(whole, 3), 30).save(tmp_path / "whole", SETTINGS)
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert same(stopped, whole)


def test_a_checkpoint_loads_as_an_optimizer_with_averaged_weights(tmp_path):
    state = train(build(), 5)
    state.save(tmp_path / "checkpoint", SETTINGS)
    loaded = load_optimizer_file(tmp_path / "checkpoint")
    assert loaded.config == state.model.config
    assert loaded.state_dict().keys() == state.predictor.state_dict().keys()
    assert all(torch.equal(each, state.predictor.state_dict()[name]) for name, each in loaded.state_dict().items())
    assert torch.equal(loaded.predict(*history_of(), LAYOUT), state.predictor.predict(*history_of(), LAYOUT))


def test_a_step_without_a_finite_gradient_is_skipped_and_logged(caplog):
    state = train(build(), 2)
    before = {name: each.clone() for name, each in weights_of(state).items()}
    for bad in (float("nan"), float("inf")):
        state.update(objective(state) * bad)
    assert all(torch.equal(each, before[name]) for name, each in weights_of(state).items())
    assert state.step == 4
    assert "skipped update 3: its gradient is not finite" in caplog.text
    state.update(objective(state))
    assert not torch.equal(weights_of(state)["coefficients.weight"], before["coefficients.weight"])


def test_many_skipped_steps_in_a_row_raise_and_a_finite_gradient_resets_the_count():
    state = build()
    for number in range(39):
        state.update(objective(state) * (1.0 if number == 19 else float("nan")))
    with pytest.raises(Diverged, match=r"20 updates in a row, up to update 40\. The last checkpoint is kept"):
        state.update(objective(state) * float("nan"))


def test_the_number_of_skipped_steps_is_in_the_checkpoint(tmp_path):
    state = build()
    for _ in range(19):
        state.update(objective(state) * float("nan"))
    state.save(tmp_path / "checkpoint", SETTINGS)
    again = build()
    again.load(tmp_path / "checkpoint", SETTINGS)
    with pytest.raises(Diverged, match="20 updates"):
        again.update(objective(again) * float("nan"))


@pytest.mark.parametrize("name", ["Hold", "Line", "Average"])
def test_an_optimizer_without_weights_has_a_checkpoint(tmp_path, name):
    state = train(build(name, {}), 2)
    state.save(tmp_path / "checkpoint", SETTINGS)
    again = build(name, {})
    again.load(tmp_path / "checkpoint", SETTINGS)
    assert (again.epoch, again.step) == (1, 2)
    loaded = load_optimizer_file(tmp_path / "checkpoint")
    assert torch.equal(loaded.predict(*history_of(), LAYOUT), state.predictor.predict(*history_of(), LAYOUT))


@pytest.mark.parametrize(
    ("other", "settings", "message"),
    [
        ({}, {"lr": 1e-3}, r"settings\.lr is 0\.01, expected 0\.001"),
        ({}, {"objective": "task"}, r"settings\.objective is 'mix', expected 'task'"),
        ({}, {"trajectories": ["a"]}, r"settings\.trajectories is \['a', 'b'\], expected \['a'\]"),
        ({"options": {**SMALL, "dim": 16}}, {}, r"optimizer\.config\.dim is 8, expected 16"),
        ({"name": "Line", "options": {}}, {}, r"optimizer\.name is 'PerceiverOptimizer', expected 'Line'"),
    ],
)
def test_a_checkpoint_of_another_training_is_rejected_and_changes_nothing(tmp_path, other, settings, message):
    train(build(), 1).save(tmp_path / "checkpoint", SETTINGS)
    state = build(**other)
    before = {name: each.clone() for name, each in weights_of(state).items()}
    with pytest.raises(CheckpointError, match=message):
        state.load(tmp_path / "checkpoint", {**SETTINGS, **settings})
    assert (state.epoch, state.step) == (0, 0)
    assert all(torch.equal(each, before[name]) for name, each in weights_of(state).items())


def test_a_checkpoint_of_phase_1_is_rejected(tmp_path):
    model = nn.Linear(2, 2)
    save_checkpoint(tmp_path / "checkpoint", {"model": model.state_dict()}, {"run": {"target_model": "MLP"}})
    with pytest.raises(CheckpointError, match=r"no checkpoint of phase 2.*Give a checkpoint of train-optimizer"):
        build().load(tmp_path / "checkpoint", SETTINGS)


def test_an_incomplete_checkpoint_is_rejected(tmp_path):
    state = build()
    state.save(tmp_path / "whole", SETTINGS)
    saved, facts = load_checkpoint(tmp_path / "whole")
    for part in ("model", "averaged", "base_optimizer", "random", "step"):
        save_checkpoint(tmp_path / "part", {name: each for name, each in saved.items() if name != part}, facts)
        with pytest.raises(CheckpointError, match=f"no checkpoint of PerceiverOptimizer.*has no {part};"):
            build().load(tmp_path / "part", SETTINGS)


def test_files_of_other_kinds_are_rejected(tmp_path):
    write_tensors(tmp_path / "snapshot", {"w": torch.zeros(2)}, "snapshot", {})
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickle")
    (tmp_path / "short").write_bytes(b"1234")
    for name, message in (("snapshot", "is a snapshot file"), ("pickle", "is a pickle"), ("short", "truncated")):
        with pytest.raises(FileFormatError, match=message):
            build().load(tmp_path / name, SETTINGS)
    with pytest.raises(MetaoptError, match="cannot read"):
        build().load(tmp_path / "none", SETTINGS)
