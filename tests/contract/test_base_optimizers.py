"""The contract of base optimizers: those of torch, of schedulefree and of plug-ins."""

import pytest
import torch
from torch import nn

from metaopt.comparison.checks import doubts_about_twins
from metaopt.comparison.results import Arm
from metaopt.comparison.running import TrialSettings, run_here
from metaopt.comparison.training import training_of
from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.generative import get_optimizer_model
from metaopt.nowcast import Nowcast
from metaopt.optimizers import BASE_OPTIMIZERS, build_optimizer, evaluation_mode, optimizer_step
from metaopt.optimizers.around_base import AroundBase
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint

LR = 1e-3
POLICY = {"every": 4, "stride": 2, "horizons": 2, "max_overhead": None}

every = pytest.mark.parametrize("name", BASE_OPTIMIZERS.names())


class Dense(nn.Module):
    """A network of matrices and biases."""

    def __init__(self, bias=True):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4, bias=bias), nn.Tanh(), nn.Linear(4, 2, bias=bias))

    def loss(self):
        return self.layers(torch.eye(3)).square().sum()


class Matrices(Dense):
    """A network whose parameters all have two dimensions."""

    def __init__(self):
        super().__init__(bias=False)


class Sparse(nn.Module):
    """A network whose gradients are all sparse."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 2, sparse=True)

    def loss(self):
        return self.embedding(torch.tensor([1, 3])).square().sum()


def step(network, optimizer):
    """A step with a closure, which LBFGS requires and all optimizers accept."""

    def closure():
        optimizer.zero_grad()
        loss = network.loss()
        loss.backward()
        return loss

    optimizer.step(closure)


def network_for(name):
    """The first network whose parameters and gradients an optimizer accepts; found by taking a step."""
    for kind in (Dense, Matrices, Sparse):
        torch.manual_seed(1)
        network = kind()
        try:
            step(network, build_optimizer(name, network.parameters(), LR, {}))
        except (InvalidConfig, RuntimeError):  # such as Muon for biases and SparseAdam for dense gradients
            continue
        torch.manual_seed(1)
        return kind()
    raise AssertionError(f"{name} accepts none of the networks")


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@every
def test_steps_change_the_weights_and_reduce_the_loss(name):
    network = network_for(name)
    optimizer = build_optimizer(name, network.parameters(), LR, {})
    before, loss = weights(network), network.loss()
    for _ in range(5):
        step(network, optimizer)
    assert optimizer.defaults["lr"] == LR
    assert weights(network).isfinite().all()
    assert not torch.equal(weights(network), before)
    with evaluation_mode(optimizer):
        assert network.loss() < loss


@every
def test_a_checkpoint_restores_the_state_bit_for_bit(name, tmp_path):
    network, path = network_for(name), tmp_path / "checkpoint.safetensors"
    optimizer = build_optimizer(name, network.parameters(), LR, {})
    for _ in range(3):
        step(network, optimizer)
    save_checkpoint(path, {"network": network.state_dict(), "optimizer": optimizer.state_dict()}, {})
    for _ in range(3):
        step(network, optimizer)

    state, _ = load_checkpoint(path)
    restored = network_for(name)
    restored.load_state_dict(state["network"])
    continued = build_optimizer(name, restored.parameters(), LR, {})
    continued.load_state_dict(state["optimizer"])
    for _ in range(3):
        step(restored, continued)
    assert torch.equal(weights(restored), weights(network))


@every
def test_evaluation_mode_ends_with_the_training_weights(name):
    network = network_for(name)
    optimizer = build_optimizer(name, network.parameters(), LR, {})
    for _ in range(10):  # the rectified ones have a warm-up of 5 steps
        step(network, optimizer)
    training = weights(network)
    with evaluation_mode(optimizer):
        evaluated = weights(network)
    torch.testing.assert_close(weights(network), training, rtol=1e-5, atol=1e-7)
    assert torch.equal(evaluated, training) == (not hasattr(optimizer, "eval"))
    step(network, optimizer)  # schedule-free optimizers raise in evaluation mode


@every
def test_evaluation_mode_ends_after_an_error(name):
    network = network_for(name)
    optimizer = build_optimizer(name, network.parameters(), LR, {})
    step(network, optimizer)
    with pytest.raises(ZeroDivisionError), evaluation_mode(optimizer):
        raise ZeroDivisionError
    step(network, optimizer)


@every
def test_an_unknown_option_is_an_error(name):
    message = rf"{name} does not take lr=0\.001 with .*momentun.*Check base_optimizer_options"
    with pytest.raises(InvalidConfig, match=message):
        build_optimizer(name, Matrices().parameters(), LR, {"momentun": 0.9})


@every
def test_an_invalid_value_is_an_error(name):
    with pytest.raises(InvalidConfig, match=f"{name} does not take lr"):
        build_optimizer(name, Matrices().parameters(), LR, {"lr": 1.0})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Adam", {"betas": [0.9]}),
        ("Adam", {"betas": "ab"}),
        ("Adam", {"capturable": True}),
        ("SGD", {"momentum": "fast"}),
        ("Rprop", {"etas": [0.5]}),
        ("LBFGS", {"line_search_fn": "quick"}),
    ],
)
def test_an_option_that_fails_at_the_first_step_is_an_error_before_it(name, options):
    with pytest.raises(InvalidConfig, match=f"{name} does not take lr"):
        build_optimizer(name, Matrices().parameters(), LR, options)


def test_an_optimizer_for_other_gradients_is_an_error():
    network = Matrices()
    optimizer = build_optimizer("SparseAdam", network.parameters(), LR, {})

    def closure():
        network.loss().backward()
        return 0.0

    with pytest.raises(InvalidConfig, match=r"SparseAdam cannot take a step .*dense"):
        optimizer_step(optimizer, closure)


def test_an_error_of_the_loss_is_not_one_of_the_optimizer():
    with pytest.raises(RuntimeError, match="my own"):
        optimizer_step(build_optimizer("Adam", Dense().parameters(), LR, {}), fail)


def fail():
    raise RuntimeError("my own")


@pytest.mark.parametrize(
    ("typed", "nearest"), [("Adm", "Adam"), ("adamw", "AdamW"), ("AdamScheduleFree", "AdamWScheduleFree")]
)
def test_an_unknown_name_lists_the_nearest(typed, nearest):
    with pytest.raises(UnknownName, match=f"unknown base optimizer '{typed}': did you mean .*{nearest}"):
        build_optimizer(typed, Dense().parameters(), LR, {})


def test_the_origin_of_an_optimizer_is_its_package():
    assert BASE_OPTIMIZERS.origin("Adam").startswith("torch ")
    assert BASE_OPTIMIZERS.origin("SGDScheduleFree").startswith("schedulefree ")


@every
def test_a_training_with_it_can_be_compared(name):
    """Its steps are counted, its average is kept, and its twins are twins until the first nowcast."""
    if issubclass(BASE_OPTIMIZERS.get(name), AroundBase):
        pytest.skip("it keeps weights of its own, which a nowcast would not move")

    def train(trial):
        network = network_for(name)
        base = build_optimizer(name, network.parameters(), LR, {})
        optimizer = trial.optimizer(base, network, get_optimizer_model("Line"), **POLICY)
        for _ in range(6):
            step(network, optimizer)
        return network.loss

    results = [run_here(training_of(train), TrialSettings(arm, 0, None, {}, (0.9,))) for arm in Arm]
    assert [result.steps for result in results] == [6, 6]
    assert doubts_about_twins(results) == []
    assert results[0].averaged.keys() == {"EMA 0.9"}


@pytest.mark.parametrize("name", [name for name in BASE_OPTIMIZERS.names() if "Nesterov" in name or "Primal" in name])
def test_one_that_keeps_weights_of_its_own_takes_no_nowcasts(name):
    network = Dense()
    with pytest.raises(InvalidConfig, match=f"{name} contains another optimizer"):
        Nowcast(build_optimizer(name, network.parameters(), LR, {}), network, get_optimizer_model("Line"), **POLICY)
