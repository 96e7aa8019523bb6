"""The contract of target networks: those of metaopt, of plug-ins and of other libraries."""

from math import prod

import pytest
import torch
from torch import nn
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap

from metaopt.diffusion import Noisy, pack
from metaopt.targets import TARGETS, get_target_model, read_taps, tapped, taps, target_config, vmappable
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights, save_model_weights

FACTS = {
    "in_features": 64, "in_channels": 1, "image_size": 8, "classes": 10, "vocab_size": 11, "block_size": 8,
    "video_shape": [3, 2, 6, 6], "prompt_length": 5,
}  # fmt: skip
DEFINED_OTHERWISE = ("TextToVideo",)
"""Networks with modules of a library that are defined in another order than they run, or do not run."""

LIBRARIES = {
    "torchvision:mobilenet_v3_small": {},
    "transformers:GPT2Config": {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 8},
}
NUMBERS = prod(FACTS["video_shape"])


def noisy_videos(count, random):
    tokens = torch.randint(1, FACTS["vocab_size"], (count, FACTS["prompt_length"]), generator=random)
    tokens[:2, -2:] = 0  # padding
    videos = torch.randn(count, *FACTS["video_shape"], generator=random)
    return pack(Noisy(videos, torch.rand(count, generator=random), tokens))


INPUTS = {
    "video_shape": noisy_videos,
    "vocab_size": lambda count, random: torch.randint(FACTS["vocab_size"], (count, 8), generator=random),
    "in_channels": lambda count, random: torch.randn(count, 1, 8, 8, generator=random),
    "in_features": lambda count, random: torch.randn(count, 1, 8, 8, generator=random),
}
"""Inputs of a network, by the option that its configuration has."""

pytestmark = pytest.mark.parametrize("name", [*TARGETS.names(), *LIBRARIES])


@pytest.fixture(autouse=True)
def _library_is_installed(name):
    if ":" in name:
        pytest.importorskip(name.partition(":")[0])


def config_of(name):
    return target_config(name, FACTS, LIBRARIES.get(name, {}))


def build(name, seed=0):
    torch.manual_seed(seed)
    return get_target_model(name, **config_of(name)).eval()


def inputs_of(name, count=4):
    (kind, *_) = [kind for kind in INPUTS if kind in config_of(name)]
    return INPUTS[kind](count, torch.Generator().manual_seed(1))


def test_forward_and_backward_are_finite(name):
    model = build(name).train()
    outputs = model(inputs_of(name))
    outputs.square().mean().backward()
    assert outputs.shape in ((4, FACTS["classes"]), (4, FACTS["block_size"], FACTS["vocab_size"]), (4, NUMBERS))
    assert outputs.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_equal_random_seeds_give_equal_weights(name):
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
        model.train()(inputs_of(name, 16))  # changes BatchNorm statistics, which are also saved
        model.eval()
    save_model_weights(model, tmp_path / "weights.safetensors")
    load_model_weights(copy, tmp_path / "weights.safetensors")
    assert torch.equal(model(inputs_of(name)), copy(inputs_of(name)))


def test_a_configuration_round_trips(name):
    config = config_of(name)
    assert target_config(name, {}, config) == config


def function_of_weights(name):
    """A network as a function of named weights, and two weight vectors for it."""
    model, inputs = build(name), inputs_of(name)
    replace_all_batch_norm_modules_(model)
    layout = Layout.of(model)
    weights = torch.stack([layout.read(build(name, seed)) for seed in (1, 2)]) + 0.01
    return lambda flat: functional_call(model, layout.unflatten(flat), (inputs,)), weights


def test_vmap_over_weights_gives_the_outputs_of_each(name):
    outputs, weights = function_of_weights(name)
    with torch.no_grad(), vmappable():
        batched = vmap(outputs)(weights)
    torch.testing.assert_close(batched, torch.stack([outputs(each) for each in weights]), rtol=1e-3, atol=1e-4)


def test_vmap_over_weights_gives_the_gradients_of_each(name):
    outputs, weights = function_of_weights(name)
    weights.requires_grad_()
    with vmappable():
        batched = vmap(outputs)(weights)
    (gradients,) = torch.autograd.grad(batched.square().mean(), weights)
    (expected,) = torch.autograd.grad(torch.stack([outputs(each) for each in weights]).square().mean(), weights)
    assert (gradients - expected).norm() < 1e-3 * expected.norm()


def test_identity_functions_at_taps_change_nothing(name):
    model, inputs = build(name), inputs_of(name)
    plain = model(inputs)
    with tapped(model, {tap.name: lambda tensor: tensor for tap in taps(model)}):
        assert torch.equal(model(inputs), plain)
    assert not any(module._forward_hooks for module in model.modules())


def taps_of(name, model):
    return taps(model, inputs_of(name)) if name in DEFINED_OTHERWISE else taps(model)


def test_taps_are_in_the_order_of_the_forward_pass_and_have_their_size(name):
    model = build(name)
    read = read_taps(model, inputs_of(name))
    known = taps_of(name, model)
    assert list(read) == [tap.name for tap in known]
    assert [tap.position for tap in known] == list(range(len(read)))
    assert all(read[tap.name].shape[tap.dim] == tap.size for tap in known)


def test_every_tap_changes_the_outputs(name):
    model, inputs = build(name), inputs_of(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # a last layer of zeros would hide every change
    plain = model(inputs)
    for tap in taps_of(name, model):
        with tapped(model, {tap.name: nn.Dropout(0.9).train()}):
            assert not torch.equal(model(inputs), plain), tap.name
