"""While a seed trains, its host trains as without it; a seed that is removed leaves nothing behind."""

import copy

import pytest
import torch

from metaopt.core.errors import InvalidConfig
from metaopt.growth.blueprints import last_layer
from metaopt.growth.growth_seed import blend, remove, seed_of
from metaopt.growth.seed_training import Features, seed_gradients
from metaopt.tasks.measure import mean_loss

from ..small_growth import HOSTS, TAPS, Training, same, structure, task_of

BLUEPRINT = {"HostCNN": "conv", "HostCNN with BatchNorm": "depthwise", "ConvNet": "conv"}  # mlp of the others


def grown(name, **options):
    training = Training(name, **options)
    training.growth.germinate(TAPS[name][-1], BLUEPRINT.get(name, "mlp"))
    return training


def of_host(training):
    """Gradients, weights, buffers, and optimizer state of the host, and the random numbers."""
    own = {name: tensor for name, tensor in training.model.state_dict().items() if not name.startswith("growth.")}
    parameters = [p for name, p in training.model.named_parameters() if not name.startswith("growth.")]
    states = [training.optimizer.state[parameter] for parameter in parameters]
    return copy.deepcopy([own, [p.grad for p in parameters], states, torch.get_rng_state()])


@pytest.mark.parametrize("name", TAPS)
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_host_trains_as_without_the_seed_that_trains(name, optimizer):
    alone, recorded = Training(name, grows=False, optimizer=optimizer), []
    alone.train()
    for _ in range(4):
        alone.train()
        recorded.append(of_host(alone))
    training = Training(name, optimizer=optimizer)
    training.train()
    training.growth.germinate(TAPS[name][-1], BLUEPRINT.get(name, "mlp"))
    weights = copy.deepcopy(seed_of(training.model, TAPS[name][-1]).state_dict())
    for expected in recorded:
        training.train()
        training.growth.measure()
        assert same(of_host(training), expected)
    assert training.growth.slots[TAPS[name][-1]].stage == "training"
    assert not same(seed_of(training.model, TAPS[name][-1]).state_dict(), weights)


@pytest.mark.parametrize("name", TAPS)
@pytest.mark.parametrize("stage", ["germinated", "training"])
def test_a_seed_removed_before_blending_leaves_the_training_that_never_grew(name, stage):
    training = grown(name)
    while training.growth.slots[TAPS[name][-1]].stage != stage:
        training.train()
    training.growth.cull(TAPS[name][-1])
    training.train(3)
    alone = Training(name, grows=False)
    alone.train(training.steps)
    assert structure(training.model) == structure(alone.model)
    assert same(training.model.state_dict(), alone.model.state_dict())
    assert same(training.optimizer.state_dict(), alone.optimizer.state_dict())


@pytest.mark.parametrize("name", TAPS)
@pytest.mark.parametrize("stage", ["blending", "probationary"])
def test_a_seed_removed_after_blending_leaves_no_part_of_itself(name, stage):
    training = Training(name)
    training.reach(stage, TAPS[name][-1], BLUEPRINT.get(name, "mlp"))
    training.train()
    training.growth.cull(TAPS[name][-1])
    alone = Training(name, grows=False)
    alone.train(training.steps)
    assert structure(training.model) == structure(alone.model)
    ours, theirs = training.optimizer.state_dict(), alone.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    assert len(training.optimizer.state) == len(alone.optimizer.state)
    training.train()


@pytest.mark.parametrize("name", ["HostCNN", "TransformerHost", "MLP"])
def test_a_seed_learns_while_it_trains(name):
    training = grown(name)
    training.optimizer.param_groups[0]["lr"] = 0.0  # the host stays as it is
    training.train(30)
    training.growth.measure()
    assert training.growth.slots[TAPS[name][-1]].gain > 0


@pytest.mark.parametrize("name", ["HostCNN with BatchNorm", "TransformerHost", "Sequential"])
@pytest.mark.parametrize("stage", ["germinated", "training", "blending", "shadowing"])
def test_measured_losses_are_those_of_networks_with_and_without_the_seed(name, stage):
    training, tap = Training(name), TAPS[name][-1]
    training.train()
    training.reach(stage, tap, BLUEPRINT.get(name, "mlp"))
    training.train(1 if stage == "blending" else 0)  # alpha is 1/3
    last_layer(seed_of(training.model, tap).delta).weight.data.normal_()
    model, growth, slot = training.model, training.growth, training.growth.slots[tap]
    without, with_it = copy.deepcopy(model), copy.deepcopy(model)
    remove(without, tap)
    if not slot.stage.is_blended:
        blend(with_it, tap)
    seed_of(with_it, tap).alpha.fill_(1.0)
    expected = [mean_loss(each, training.task, [growth._examples()]) for each in (model, with_it, without)]
    assert [growth.measure(), slot.loss_with, slot.loss_without] == expected
    assert expected[1] != expected[2]
    assert (expected[0] == expected[2]) is not slot.stage.is_blended


@pytest.mark.parametrize(
    ("stage", "passes"), [("germinated", 2), ("training", 2), ("blending", 3), ("shadowing", 2), ("probationary", 2)]
)
def test_no_loss_is_measured_twice(stage, passes):
    training, tap = Training("HostCNN"), TAPS["HostCNN"][-1]
    training.reach(stage, tap, "norm")
    training.train(1 if stage == "blending" else 0)  # alpha is 1/3, so that all three losses differ
    calls = []
    training.model.register_forward_hook(lambda *_: calls.append(None))
    training.growth.measure()
    assert len(calls) == passes


def test_the_gradient_is_that_of_the_loss_with_the_seed_and_reaches_no_host():
    training = grown("HostCNN")
    training.train(2)
    tap, batch = "blocks.1", training.batch(7)
    features = training.model.forward_through_layer(batch.inputs, 1).detach()
    found = seed_gradients(training.model, training.task, batch, tap, features)
    seed = seed_of(training.model, tap)
    loss = training.task.loss(training.model.forward_from_layer(features + seed.delta(features), 2), batch.labels)
    assert found.equal(loss)
    expected = torch.autograd.grad(loss, list(seed.parameters()))
    assert all(p.grad.equal(gradient) for p, gradient in zip(seed.parameters(), expected, strict=True))


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_and_hooks_give_a_seed_equal_gradients(name, monkeypatch):
    gradients = []
    for points in ({}, None):
        training = grown(name)
        training.model.eval()  # dropout draws other numbers if the layers before the tap run, too
        if points is not None:
            monkeypatch.setattr(type(training.model), "injection_points", points)
        training.train(3)
        gradients.append([p.grad for p in seed_of(training.model, TAPS[name][-1]).parameters()])
        monkeypatch.undo()
    assert same(*gradients)


@pytest.mark.parametrize("name", ["HostCNN with BatchNorm", "TransformerHost"])
def test_seeds_that_train_at_the_same_time_do_not_see_each_other(name):
    first, second = TAPS[name]
    alone, both = Training(name), Training(name)
    for training, taps in ((alone, [second]), (both, [second, first])):
        for tap in taps:
            training.growth.germinate(tap, "norm")
        training.model.eval()  # each second pass of dropout has its own numbers
        training.train(4)
    assert same(seed_of(both.model, second).state_dict(), seed_of(alone.model, second).state_dict())


def test_buffers_of_a_seed_learn_and_those_of_its_host_are_kept():
    training = grown("HostCNN with BatchNorm")
    seed = seed_of(training.model, "blocks.1")
    seed.delta.insert(1, torch.nn.BatchNorm2d(8))
    training.train()
    host = copy.deepcopy({name: buffer for name, buffer in training.model.named_buffers() if "growth" not in name})
    batch = training.batch(1)
    features = torch.randn(8, 8, 2, 2)
    seed_gradients(training.model, training.task, batch, "blocks.1", features)
    assert seed.delta[1].num_batches_tracked == 1
    assert same(host, {name: buffer for name, buffer in training.model.named_buffers() if "growth" not in name})


def test_weights_that_a_seed_does_not_use_have_no_gradient():
    training = grown("HostCNN")
    seed = seed_of(training.model, "blocks.1")
    seed.delta.register_parameter("unused", torch.nn.Parameter(torch.ones(1)))
    training.train(3)
    assert seed.delta.unused.grad is None
    assert seed.delta[0].weight.grad is not None


def test_a_copy_of_the_network_is_not_read():
    training = grown("HostCNN")
    training.train()
    inputs = torch.zeros(2, 1, 8, 8)
    features = Features(training.model, ["blocks.1"])
    twin = copy.deepcopy(training.model)
    training.model(inputs)
    read = features["blocks.1"]
    twin(inputs + 1)
    assert features["blocks.1"] is read


def test_features_are_needed_before_a_seed_can_train():
    training = grown("HostCNN")
    training.train()
    with pytest.raises(InvalidConfig, match=r"no forward pass has reached blocks\.1"):
        training.growth.after_backward(next(task_of("HostCNN").batches(4, 0, 0)))
