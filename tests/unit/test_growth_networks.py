"""Networks that have grown are ordinary ones: copied, called with other weights, compiled, moved; and bad input."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from metaopt.core.errors import InvalidConfig, LayoutMismatch, UnknownName
from metaopt.core.rng import isolated
from metaopt.growth import Growth, GrowthConfig, GrowthSeed, blueprint_of, grow, places
from metaopt.growth.growth_seed import blend, insert, remove, seed_of
from metaopt.growth.seed_training import Features
from metaopt.optimizers import BASE_OPTIMIZERS, build_optimizer
from metaopt.targets import get_target_model
from metaopt.weights.layout import Layout

from ..small_growth import TAPS, Training, network, same, structure, task_of


def blended(name):
    """A training with a seed that changes the outputs."""
    training = Training(name)
    training.reach("shadowing", TAPS[name][-1], "norm")
    training.model.eval()
    return training


def inputs_of(name):
    return task_of(name).splits["guard"][:3].inputs


@pytest.mark.parametrize("name", TAPS)
def test_a_copy_has_seeds_of_its_own(name):
    training = blended(name)
    model, inputs = training.model, inputs_of(name)
    twin = copy.deepcopy(model)
    assert twin(inputs).equal(model(inputs))
    expected = model(inputs)
    seed_of(twin, TAPS[name][-1]).alpha.fill_(0.0)
    assert not twin(inputs).equal(expected)
    assert model(inputs).equal(expected)
    remove(twin, TAPS[name][-1])
    assert structure(twin) == structure(network(name))
    assert model(inputs).equal(expected)


@pytest.mark.parametrize("name", TAPS)
def test_a_functional_call_uses_the_given_weights_of_a_seed(name):
    model, inputs = blended(name).model, inputs_of(name)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}  # tied ones once
    weights = {key: torch.zeros_like(value) if "growth" in key else value for key, value in tensors.items()}
    found = torch.func.functional_call(model, weights, (inputs,))
    assert not found.equal(model(inputs))
    remove(model, TAPS[name][-1])
    assert found.equal(model(inputs))


@pytest.mark.parametrize("name", TAPS)
def test_a_network_is_built_again_from_the_facts_of_a_snapshot(name):
    training = blended(name)
    facts, layout = training.growth.facts, Layout.of(training.model)
    again = grow(network(name), [dict(each) for each in facts]).eval()
    assert Layout.of(again) == layout
    again.load_state_dict(training.model.state_dict())
    assert again(inputs_of(name)).equal(training.model(inputs_of(name)))


def test_facts_that_describe_no_seed_are_refused():
    for facts in ({"tap": "blocks.1"}, {"tap": "blocks.1", "blueprint": 3, "dim": 8, "is_blended": True}):
        with pytest.raises(LayoutMismatch, match="describes no growth seed"):
            grow(network("HostCNN"), [facts])


@pytest.mark.parametrize("name", ["HostCNN", "Sequential"])
def test_a_compiled_network_is_compiled_again_at_events_only(name):
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    training, tap = Training(name, blend_steps=3), TAPS[name][-1]
    original = training.model
    training.model = torch.compile(original, backend=backend)
    training.train(2)
    counts = [len(graphs)]
    for action in (lambda: training.growth.germinate(tap, "norm"), lambda: training.growth.advance(tap)):
        action()
        training.train()  # after which a seed that has germinated trains
        training.train()
        counts.append(len(graphs))
        training.train()
        assert len(graphs) == counts[-1], "nothing has changed since"
        slot = training.growth.slots[tap]
        slot.loss_with, slot.loss_without = 1.0, 2.0
    assert slot.stage == "shadowing", "alpha has risen"
    with isolated():
        torch.manual_seed(3)
        outputs = original(inputs_of(name))
        torch.manual_seed(3)
        assert training.model(inputs_of(name)).equal(outputs)
    assert counts == sorted(set(counts)), "each event was noticed"
    training.growth.cull(tap)
    training.train(2)
    assert len(graphs) > counts[-1]


@pytest.mark.parametrize("name", ["cnn.attention", "transformer.attention"])
def test_a_seed_is_on_the_device_of_its_network(name):
    topology, _, blueprint = name.partition(".")
    if topology == "cnn":
        model, inputs, dim = get_target_model("HostCNN"), torch.zeros(2, 3, 32, 32), 32
    else:
        model = get_target_model("TransformerHost", vocab_size=7, block_size=8, n_embd=8, n_head=2)
        inputs, dim = torch.zeros(2, 8, dtype=torch.long), 8
    seed = GrowthSeed(blueprint_of(topology, blueprint).build(dim))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, inputs = model.to("cuda"), inputs.to("cuda")
        insert(model, "blocks.1", seed)
        features = Features(model, ["blocks.1"])
        model(inputs)
        blend(model, "blocks.1")
        outputs = model(inputs)
        found = [*model.state_dict().values(), features["blocks.1"], outputs]
    assert {tensor.device.type for tensor in found} == {"cuda"}


def test_a_seed_moves_to_its_network():
    model = network("HostCNN").to("meta")
    insert(model, "blocks.1", GrowthSeed(blueprint_of("cnn", "conv").build(8)))
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_a_seed_has_the_dtype_of_its_network():
    model = network("HostCNN").double()
    insert(model, "blocks.1", GrowthSeed(blueprint_of("cnn", "conv").build(8)))
    blend(model, "blocks.1")
    assert model(torch.zeros(2, 1, 8, 8).double()).dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in BASE_OPTIMIZERS.names() if name not in ("LBFGS", "SparseAdam")])
def test_every_base_optimizer_trains_a_seed_and_forgets_it(name):
    model, task = network("MLP"), task_of("MLP")
    if name == "Muon":  # takes matrices only
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.bias = None
    trainings = []
    for grows in (False, True):
        twin = copy.deepcopy(model)
        optimizer = build_optimizer(name, twin.parameters(), 0.01, {})
        growth = Growth(twin, optimizer, task, GrowthConfig(taps=("layers.1",), examples=8))
        for step, batch in enumerate(task.batches(64, 0, 0), start=1):
            if grows and step == 2:
                growth.germinate("layers.1", "lora")
                seed = seed_of(twin, "layers.1")
                initial = copy.deepcopy(seed.state_dict())
                new = build_optimizer(name, seed.parameters(), 0.01, {})
                assert optimizer.param_groups[1] == new.param_groups[0]
            if grows and step == 9:
                assert not same(seed.state_dict(), initial)
                growth.cull("layers.1")
            if step == 11:
                break
            optimizer.zero_grad()
            loss = task.loss(twin(batch.inputs), batch.labels)
            loss.backward()
            growth.after_backward(batch)
            optimizer.step()
            growth.after_step(step, loss.item())
        trainings.append([twin.state_dict(), optimizer.state_dict()])
    assert same(*trainings)


def test_a_schedule_of_the_optimizer_holds_for_a_seed():
    training = Training("HostCNN", lr_factor=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(training.optimizer, max_lr=0.1, total_steps=10)
    for step in range(8):
        if step == 2:
            training.growth.germinate("blocks.1", "conv")
        training.train()
        schedule.step()
    host, seed = training.optimizer.param_groups
    assert seed["lr"] == pytest.approx(0.1 * host["lr"])
    assert seed["betas"] == host["betas"]


def test_a_seed_has_its_names_in_an_optimizer_of_named_parameters():
    model = network("HostCNN")
    growth = growth_of(model, optimizer=lambda _, lr: torch.optim.Adam(model.named_parameters(), lr))
    growth.germinate("blocks.1", "conv")
    names = [name for group in growth.optimizer.param_groups for name in group["param_names"]]
    assert names == [name for name, _ in model.named_parameters()]


def growth_of(model, *taps, optimizer=torch.optim.Adam):
    return Growth(model, optimizer(model.parameters(), 0.01), task_of("HostCNN"), GrowthConfig(taps=taps))


class Own(nn.Module):
    """A network with an attribute `growth`."""

    def __init__(self, growth):
        super().__init__()
        self.growth, self.layer = growth, nn.Linear(64, 10)

    def forward(self, images):
        return self.layer(images.flatten(1))


class Twice(nn.Module):
    """A network that uses a layer twice, and one not at all."""

    def __init__(self):
        super().__init__()
        self.layer, self.last, self.unused = nn.Linear(64, 64), nn.Linear(64, 10), nn.Linear(64, 64)

    def forward(self, images):
        return self.last(self.layer(self.layer(images.flatten(1))))


def test_unknown_taps_and_slots_name_the_nearest():
    with pytest.raises(UnknownName, match=r"HostCNN has no tap 'block.1': did you mean blocks\.1"):
        growth_of(network("HostCNN"), "block.1")
    with pytest.raises(InvalidConfig, match=r"no slot 'blocks.2'; expected one of blocks\.1"):
        growth_of(network("HostCNN")).germinate("blocks.2", "conv")
    with pytest.raises(UnknownName, match="lora is a blueprint of transformer, vector"):
        growth_of(network("HostCNN")).germinate("blocks.1", "lora")


def test_an_occupied_slot_is_refused():
    growth = growth_of(network("HostCNN"))
    growth.germinate("blocks.1", "conv")
    with pytest.raises(InvalidConfig, match=r"blocks\.1 is germinated; a seed can only germinate in one that is dorm"):
        growth.germinate("blocks.1", "norm")
    with pytest.raises(InvalidConfig, match="has a growth seed; remove it first"):
        insert(growth.model, "blocks.1", GrowthSeed(nn.Linear(1, 1)))


def test_more_seeds_than_the_network_may_have_are_refused():
    training = Training("TransformerHost", seeds=1)
    for stage in ("training", "fossilized"):
        training.reach(stage, "blocks.0", "norm")
        with pytest.raises(InvalidConfig, match=r"no seed can germinate at blocks\.1: seeds of GrowthConfig is 1"):
            training.growth.germinate("blocks.1", "norm")
        if stage == "training":
            training.growth.cull("blocks.0")
            training.train(4)


def test_initial_weights_by_gradients_give_the_last_layer_a_larger_gradient():
    norms = []
    for initialisation in ("default", "gradmax"):
        training = Training("MLP", initialisation=initialisation)
        training.growth.germinate("layers.1", "lora")
        training.train(2)
        norms.append(seed_of(training.model, "layers.1").delta[-1].weight.grad.norm())
    assert norms[1] > 2 * norms[0]


def test_a_seed_that_cannot_germinate_leaves_nothing():
    training = Training("HostCNN", initialisation="gradmax")
    training.train()
    training.model.classifier.weight.data.fill_(torch.nan)
    before, kept = structure(training.model), copy.deepcopy([training.optimizer.state_dict(), training.growth.facts])
    with pytest.raises(RuntimeError, match="non-finite values"):
        training.growth.germinate("blocks.1", "conv")
    assert structure(training.model) == before
    assert same([training.optimizer.state_dict(), training.growth.facts], kept)
    training.model.classifier.weight.data.fill_(1.0)
    training.growth.germinate("blocks.1", "conv")


def test_an_optimizer_without_groups_is_refused():
    with pytest.raises(InvalidConfig, match="LBFGS takes no parameter groups"):
        growth_of(network("HostCNN"), optimizer=torch.optim.LBFGS)


@pytest.mark.parametrize("own", [nn.ModuleDict(), nn.Identity(), 3.0], ids=["dict", "module", "number"])
def test_a_network_with_an_attribute_of_this_name_is_refused(own):
    with pytest.raises(InvalidConfig, match="Own has an attribute growth of its own; rename it"):
        growth_of(Own(own), "layer").germinate("layer", "norm")


def test_a_tap_that_runs_twice_or_never_is_refused():
    with pytest.raises(InvalidConfig, match="layer runs 2 times in a forward pass"):
        growth_of(Twice(), "layer")
    with pytest.raises(InvalidConfig, match="a forward pass of Twice does not reach unused"):
        growth_of(Twice(), "last", "unused")


def test_taps_without_a_topology_are_refused():
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(24, 10))
    with pytest.raises(InvalidConfig, match=r"0 have the shape \[2, 4, 6\] with their size in dimension 1; expected"):
        places(model, torch.zeros(2, 1, 8), ["0"])


def test_a_network_that_is_no_host_names_its_taps():
    with pytest.raises(InvalidConfig, match=r"does not state where it can grow; name some of its taps: layers\.1"):
        growth_of(network("MLP"))


def test_a_network_that_is_one_layer_grows_at_its_output():
    model = nn.Linear(3, 2)
    expected = model(torch.ones(1, 3))
    (place,) = places(model, torch.ones(2, 3), [""])
    insert(model, "", GrowthSeed(blueprint_of(place.topology, "norm").build(place.dim)))
    blend(model, "")
    assert model(torch.ones(1, 3)).equal(expected)
    seed_of(model, "").alpha.fill_(1.0)
    seed_of(model, "").delta.bias.data.fill_(1.0)
    assert model(torch.ones(1, 3)).equal(expected + 1)


def test_a_repeated_tap_is_refused():
    with pytest.raises(InvalidConfig, match="expected each tap once"):
        GrowthConfig(taps=("blocks.1", "blocks.1"))
