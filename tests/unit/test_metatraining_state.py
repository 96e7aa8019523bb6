"""A meta-training keeps its state to the bit, and survives a step without a gradient."""

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


def build(name="PerceiverOptimizer", options=SMALL, seed=0, lr=1e-2, average=0.9):
    return MetaTrainingState(name, options, seed=seed, lr=lr, weight_decay=0.01, average=average)


def past(number=0):
    random = torch.Generator().manual_seed(number)
    history = torch.randn(3, 2, LAYOUT.size, generator=random)
    return history, torch.tensor([[0.0, 10.0]]).expand(3, -1), torch.full((3,), 25.0)


def objective(run, number=0):
    history, times, t_end = past(number)
    predicted = run.model(history[:, -1], times[:, -1], t_end, LAYOUT, history[:, :-1], times[:, :-1])
    return (predicted - history.mean(1)).square().mean()


def train(run, updates):
    for _ in range(updates):
        run.update(objective(run, run.step))
    run.epoch += 1
    return run


def state(run):
    return {**run.model.state_dict(), **{f"averaged {name}": each for name, each in run.predictor.state_dict().items()}}


def same(one, other):
    return all(torch.equal(each, state(other)[name]) for name, each in state(one).items())


def test_a_seed_gives_the_same_run_and_another_seed_another():
    assert same(train(build(), 3), train(build(), 3))
    assert not same(build(), build(seed=1))


def test_updates_lower_the_objective_and_the_average_follows():
    run = build()
    before = objective(run).item()
    for _ in range(40):
        run.update(objective(run))
    assert objective(run).item() < before
    history, times, t_end = past()
    moved = run.predictor.predict(history, times, t_end, LAYOUT)
    assert not torch.equal(moved, history[:, -1])
    assert not torch.equal(moved, run.model.predict(history, times, t_end, LAYOUT))
    assert not any(parameter.requires_grad for parameter in run.predictor.parameters())


def test_the_average_is_the_exponential_one():
    run, total, mass = build(average=0.5), 0.0, 0.0
    for _ in range(4):
        train(run, 1)
        total, mass = 0.5 * total + 0.5 * run.model.coefficients.weight.detach(), 0.5 * mass + 0.5
    torch.testing.assert_close(run.predictor.coefficients.weight, total / mass)


def test_a_checkpoint_goes_on_to_the_same_bytes(tmp_path):
    train(build(), 3).save(tmp_path / "first", SETTINGS)
    stopped = build()
    torch.rand(7)  # randomness that has gone elsewhere in the meantime
    stopped.load(tmp_path / "first", SETTINGS)
    assert (stopped.epoch, stopped.step) == (1, 3)
    stopped.save(tmp_path / "again", SETTINGS)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    train(stopped, 30).save(tmp_path / "resumed", SETTINGS)
    whole = build()
    train(train(whole, 3), 30).save(tmp_path / "whole", SETTINGS)
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert same(stopped, whole)


def test_the_averaged_weights_of_a_checkpoint_are_an_optimizer(tmp_path):
    run = train(build(), 5)
    run.save(tmp_path / "checkpoint", SETTINGS)
    loaded = load_optimizer_file(tmp_path / "checkpoint")
    assert loaded.config == run.model.config
    assert loaded.state_dict().keys() == run.predictor.state_dict().keys()
    assert all(torch.equal(each, run.predictor.state_dict()[name]) for name, each in loaded.state_dict().items())
    assert torch.equal(loaded.predict(*past(), LAYOUT), run.predictor.predict(*past(), LAYOUT))


def test_a_step_without_a_finite_gradient_is_left_out_and_said(caplog):
    run = train(build(), 2)
    before = {name: each.clone() for name, each in state(run).items()}
    for bad in (float("nan"), float("inf")):
        run.update(objective(run) * bad)
    assert all(torch.equal(each, before[name]) for name, each in state(run).items())
    assert run.step == 4
    assert "update 3 left out: its gradient is not finite" in caplog.text
    run.update(objective(run))
    assert not torch.equal(state(run)["coefficients.weight"], before["coefficients.weight"])


def test_no_finite_gradient_for_long_is_the_end_but_a_good_one_in_between_starts_the_count_again():
    run = build()
    for number in range(39):
        run.update(objective(run) * (1.0 if number == 19 else float("nan")))
    with pytest.raises(Diverged, match=r"20 updates in a row, up to update 40\. The last checkpoint is kept"):
        run.update(objective(run) * float("nan"))


def test_how_many_were_left_out_survives_a_checkpoint(tmp_path):
    run = build()
    for _ in range(19):
        run.update(objective(run) * float("nan"))
    run.save(tmp_path / "checkpoint", SETTINGS)
    again = build()
    again.load(tmp_path / "checkpoint", SETTINGS)
    with pytest.raises(Diverged, match="20 updates"):
        again.update(objective(again) * float("nan"))


@pytest.mark.parametrize("name", ["Hold", "Line", "Average"])
def test_an_optimizer_without_weights_has_nothing_to_learn_and_a_checkpoint_all_the_same(tmp_path, name):
    run = train(build(name, {}), 2)
    run.save(tmp_path / "checkpoint", SETTINGS)
    again = build(name, {})
    again.load(tmp_path / "checkpoint", SETTINGS)
    assert (again.epoch, again.step) == (1, 2)
    loaded = load_optimizer_file(tmp_path / "checkpoint")
    assert torch.equal(loaded.predict(*past(), LAYOUT), run.predictor.predict(*past(), LAYOUT))


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
def test_a_checkpoint_of_another_training_is_refused_and_changes_nothing(tmp_path, other, settings, message):
    train(build(), 1).save(tmp_path / "checkpoint", SETTINGS)
    run = build(**other)
    before = {name: each.clone() for name, each in state(run).items()}
    with pytest.raises(CheckpointError, match=message):
        run.load(tmp_path / "checkpoint", {**SETTINGS, **settings})
    assert (run.epoch, run.step) == (0, 0)
    assert all(torch.equal(each, before[name]) for name, each in state(run).items())


def test_a_checkpoint_of_phase_1_is_refused_in_words(tmp_path):
    model = nn.Linear(2, 2)
    save_checkpoint(tmp_path / "checkpoint", {"model": model.state_dict()}, {"run": {"target_model": "MLP"}})
    with pytest.raises(CheckpointError, match=r"no checkpoint of phase 2.*Give one that train-optimizer wrote"):
        build().load(tmp_path / "checkpoint", SETTINGS)


def test_a_checkpoint_without_all_of_the_state_is_refused(tmp_path):
    run = build()
    run.save(tmp_path / "whole", SETTINGS)
    saved, facts = load_checkpoint(tmp_path / "whole")
    for part in ("model", "averaged", "base_optimizer", "random", "step"):
        save_checkpoint(tmp_path / "part", {name: each for name, each in saved.items() if name != part}, facts)
        with pytest.raises(CheckpointError, match=f"no checkpoint of PerceiverOptimizer.*'{part}'"):
            build().load(tmp_path / "part", SETTINGS)


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    write_tensors(tmp_path / "snapshot", {"w": torch.zeros(2)}, "snapshot", {})
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickle")
    (tmp_path / "short").write_bytes(b"1234")
    for name, message in (("snapshot", "is a snapshot file"), ("pickle", "is a pickle"), ("short", "truncated")):
        with pytest.raises(FileFormatError, match=message):
            build().load(tmp_path / name, SETTINGS)
    with pytest.raises(MetaoptError, match="cannot read"):
        build().load(tmp_path / "none", SETTINGS)
