"""What every target model must keep, ours and those of plug-ins."""

import pytest
import torch

from metaopt.targets import TARGETS, get_target_model, target_config
from metaopt.weights.files import load_model_weights, save_model_weights
from metaopt.weights.layout import Layout

FACTS = {"in_channels": 1, "image_size": 8, "classes": 10}

pytestmark = pytest.mark.parametrize("name", TARGETS.names())


def build(name, seed=0):
    torch.manual_seed(seed)
    return get_target_model(name, **target_config(name, FACTS, {})).eval()


def images(count=4):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_forward_and_backward_are_finite(name):
    model = build(name).train()
    outputs = model(images())
    outputs.square().mean().backward()
    assert outputs.shape == (4, 10)
    assert outputs.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_random_seed_gives_the_same_network_and_another_seed_another(name):
    first, again, other = (Layout.of(build(name)).read(build(name, seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_layout_round_trip(name):
    model, copy = build(name), build(name, 7)
    layout = Layout.of(model)
    flat = layout.read(model)
    assert Layout.from_list(layout.to_list()) == layout
    assert torch.equal(layout.flatten(layout.unflatten(flat)), flat)
    layout.write(copy, flat)
    assert torch.equal(layout.read(copy), flat)


def test_saved_weights_give_the_same_outputs(name, tmp_path):
    model, copy = build(name), build(name, 7)
    with torch.no_grad():
        model.train()(images(16))  # moves BatchNorm statistics, which must be saved, too
        model.eval()
    save_model_weights(model, tmp_path / "weights.safetensors")
    load_model_weights(copy, tmp_path / "weights.safetensors")
    assert torch.equal(model(images()), copy(images()))


def test_configuration_survives_plain_values(name):
    config = target_config(name, FACTS, {})
    assert TARGETS.get(name).Config.from_mapping(config).to_mapping() == config
