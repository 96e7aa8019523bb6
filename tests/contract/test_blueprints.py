"""The contract of blueprints: those of metaopt and of installed plug-ins."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.growth import BLUEPRINTS, Blueprint, GrowthSeed, blueprint, blueprint_of, blueprints_of
from metaopt.growth.actions import actions_of
from metaopt.growth.blueprints import TOPOLOGIES, last_layer
from metaopt.growth.controllers import built_in
from metaopt.growth.growth_seed import blend, insert, remove

from ..small_growth import network, task_of

FOUND = [each for topology in TOPOLOGIES for each in blueprints_of(topology)]
PLACES = {"cnn": ("HostCNN", "blocks.1", 8), "transformer": ("TransformerHost", "blocks.0", 8),
          "vector": ("MLP", "layers.1", 64)}  # fmt: skip
"""A network and one of its taps for each topology, with the size of its features."""

every = pytest.mark.parametrize("found", FOUND, ids=lambda found: found.key)


def test_the_table_is_found_by_topology():
    assert sorted(found.key for found in FOUND) == BLUEPRINTS.names()
    assert PLACES.keys() == TOPOLOGIES.keys()


@every
def test_it_describes_itself(found):
    assert found.description.endswith(".")
    assert blueprint_of(found.topology, found.name) is found


@every
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8, 12, 31, 64, 100])
def test_its_number_of_weights_is_the_estimate_and_its_shape_is_kept(found, dim):
    delta = found.build(dim)
    assert found.estimate(dim) == found.count(dim) == sum(p.numel() for p in delta.parameters())
    features = torch.randn_like(found.example(dim))
    assert delta(features).shape == features.shape
    assert not delta(features).any()


@every
def test_a_seed_changes_no_output_whatever_alpha_is(found):
    name, tap, dim = PLACES[found.topology]
    model, inputs = network(name).eval(), task_of(name).splits["guard"][:3].inputs
    outputs, names = model(inputs), [*model.state_dict()]
    seed = GrowthSeed(found.build(dim))
    insert(model, tap, seed)
    assert model(inputs).equal(outputs)
    blend(model, tap)
    for share in (0.0, 0.3, 1.0):
        seed.alpha.fill_(share)
        assert model(inputs).equal(outputs)
    for parameter in last_layer(seed.delta).parameters(recurse=False):
        nn.init.normal_(parameter)
    assert not model(inputs).equal(outputs), "it is connected"
    remove(model, tap)
    assert model(inputs).equal(outputs)
    assert [*model.state_dict()] == names


@every
def test_its_last_layer_learns_from_the_first_step(found):
    delta = found.build(8)
    features = torch.randn_like(found.example(8))
    (delta(features) - torch.randn_like(features)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in last_layer(delta).parameters(recurse=False))


@pytest.mark.parametrize("dim", [1, 7, 15])
def test_attention_over_few_channels_learns_whatever_its_random_weights_are(dim):
    for seed in range(20):
        torch.manual_seed(seed)
        delta = blueprint_of("cnn", "attention").build(dim)
        delta(torch.rand(4, dim, 3, 3)).sum().backward()
        assert delta.excite.weight.grad.any()


@every
def test_a_network_of_another_topology_or_size_refuses_it(found):
    for topology in {*TOPOLOGIES} - {found.topology}:
        if found.name not in [each.name for each in blueprints_of(topology)]:
            with pytest.raises(UnknownName, match=f"{found.name} is a blueprint of .*{found.topology}"):
                blueprint_of(topology, found.name)
    for dim in (0, -3):
        with pytest.raises(InvalidConfig, match="expected 1 or more"):
            found.build(dim)


def no_estimate(_dim):
    return 0


def made(factory, topology="vector"):
    return Blueprint("made", topology, factory, no_estimate, "For a test.")


class Shifted(nn.Linear):
    """Adds a constant that is no weight."""

    def forward(self, features):
        return super().forward(features) + 1


class Centred(nn.Linear):
    """Returns zeros for equal features only."""

    def forward(self, features):
        return super().forward(features) + features - features.mean(-1, keepdim=True)


@pytest.mark.parametrize(
    ("factory", "topology", "message"),
    [
        (lambda dim: nn.Linear(dim, dim + 1), "vector", r"maps \(2, 8\) to \(2, 9\); expected its shape"),
        (lambda dim: nn.Linear(9, 9), "vector", "does not fit features of size 8: .*mat1 and mat2"),
        (lambda dim: nn.Conv2d(dim, dim, 1), "transformer", "transformer.made does not fit features of size 8"),
        (lambda dim: nn.Conv2d(dim, dim, 3), "cnn", "expected its shape"),
        (lambda dim: nn.ReLU(), "vector", "ReLU has no weights; expected a layer that can be trained"),
        (lambda dim: Shifted(dim, dim), "vector", "returns something although its last layer is zero"),
        (lambda dim: Centred(dim, dim), "vector", "returns something although its last layer is zero"),
        (lambda dim: nn.LSTM(dim, dim), "vector", "to tuple; expected its shape"),
        (lambda dim: {}["layers"], "vector", "does not fit features of size 8: 'layers'"),
    ],
)
def test_networks_that_are_no_blueprints_are_refused(factory, topology, message):
    with pytest.raises(InvalidConfig, match=message):
        made(factory, topology).build(8)


def test_unknown_names_and_topologies_name_the_nearest():
    with pytest.raises(UnknownName, match="no blueprint 'cnov' for cnn: did you mean conv"):
        blueprint_of("cnn", "cnov")
    with pytest.raises(InvalidConfig, match="the topology is 'cnm': did you mean cnn"):
        blueprints_of("cnm")
    with pytest.raises(InvalidConfig, match="did you mean vector"):
        made(nn.Identity, topology="vectors")
    with pytest.raises(InvalidConfig, match="expected letters, digits and _"):
        Blueprint("a-b", "vector", nn.Identity, no_estimate, "For a test.")


@pytest.mark.usefixtures("decorated_blueprints")
def test_a_decorated_function_is_found_at_once():
    @blueprint("vector", "square", estimate=lambda dim: dim * dim + dim, description="One layer.")
    def square(dim):
        return nn.Linear(dim, dim)

    assert blueprint_of("vector", "square") is square
    assert "square" in [each.name for each in blueprints_of("vector")]
    assert square.estimate(7) == square.count(7)
    with pytest.raises(InvalidConfig, match=r"a blueprint vector\.norm exists; choose another name"):
        blueprint("vector", "norm", no_estimate, "Another one.")(square.factory)


CODE = """
from torch import nn
from metaopt.growth import blueprint

@blueprint("cnn", "pointwise", estimate=lambda dim: dim * dim + dim, description="A 1×1 convolution.")
def pointwise(dim):
    return nn.Conv2d(dim, dim, 1)

def undecorated(dim):
    return nn.Conv2d(dim, dim, 1)
"""


def install(folder, names):
    """Install a package whose entry points name blueprints."""
    info = folder / "pointwise-0.1.dist-info"
    info.mkdir()
    (folder / "pointwise_blueprints.py").write_text(CODE, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pointwise\nVersion: 0.1\n")
    points = [f"{name} = pointwise_blueprints:{function}" for name, function in names.items()]
    (info / "entry_points.txt").write_text("\n".join(["[metaopt.blueprints]", *points]), encoding="utf-8")


@pytest.fixture
def plugin(tmp_path, monkeypatch, decorated_blueprints):
    """An installed package that adds blueprints."""
    names = {"cnn.pointwise": "pointwise", "vector.pointwise": "pointwise", "cnn.wrong": "undecorated",
             "cnn.missing": "missing"}  # fmt: skip
    install(tmp_path, names)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plugin")
def test_a_package_adds_a_blueprint():
    found = blueprint_of("cnn", "pointwise")
    assert found.description == "A 1×1 convolution."
    assert found.build(4)(torch.ones(2, 4, 3, 3)).shape == (2, 4, 3, 3)
    assert "pointwise" in BLUEPRINTS.origin("cnn.pointwise")


@pytest.mark.usefixtures("decorated_blueprints")
def test_a_package_adds_an_action(tmp_path, monkeypatch):
    known = actions_of("cnn")
    install(tmp_path, {"cnn.pointwise": "pointwise"})
    monkeypatch.syspath_prepend(tmp_path)
    assert {*actions_of("cnn")} - {*known} == {("GERMINATE_POINTWISE", "germinate", "pointwise")}
    assert built_in("schedule:pointwise@0", actions_of("cnn"), "conv", 0)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("topology", "name", "message"),
    [
        ("cnn", "wrong", r"expected a function decorated with @blueprint\('cnn', 'wrong'"),
        ("vector", "pointwise", r"expected a function decorated with @blueprint\('vector', 'pointwise'"),
        ("cnn", "missing", "fix or uninstall that package"),
    ],
)
def test_entry_points_that_name_no_blueprint_are_named(topology, name, message):
    with pytest.raises((InvalidConfig, UnknownName), match=message):
        blueprint_of(topology, name)
