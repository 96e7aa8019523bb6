"""Hosts can be run in two parts, and refuse wrong ones; transformer blueprints are causal; α never falls."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt.core.errors import InvalidConfig
from metaopt.growth.alpha import SCHEDULES, alpha
from metaopt.growth.blueprints import blueprints_of
from metaopt.targets import get_target_model
from metaopt.targets.hosts import Host

from ..small_growth import network, task_of

LONGEST = 9


def in_two_parts(host, inputs):
    """The outputs of a host that is run in two parts, for each place where it can be cut."""
    found = []
    for index, point in enumerate(host.injection_points.values()):
        torch.manual_seed(0)
        features = host.forward_through_layer(inputs, point.after_layer_idx)
        assert features.shape[1 if features.dim() == 4 else -1] == point.dim
        assert 0 < point.position <= 1
        found.append(host.forward_from_layer(features, point.after_layer_idx + 1))
        assert list(host.injection_points).index(f"blocks.{point.after_layer_idx}") == index
    return found


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3), norm=st.sampled_from(["none", "batch"]),
    extra=st.integers(0, 3), channels=st.integers(1, 3), is_training=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_parts_of_a_convolutional_host_are_the_whole(widths, norm, extra, channels, is_training, data):
    size, blocks = 2 ** len(widths) + extra, range(len(widths))
    after = data.draw(st.lists(st.sampled_from(blocks), min_size=1, unique=True))
    host = get_target_model(
        "HostCNN", in_channels=channels, image_size=size, widths=widths, norm=norm, taps_after=after
    ).train(is_training)  # fmt: skip
    assert isinstance(host, Host)
    assert [*host.injection_points] == [f"blocks.{index}" for index in sorted(after)]
    images = torch.randn(2, channels, size, size)
    for outputs in in_two_parts(host, images):
        assert outputs.equal(host(images))


@settings(max_examples=30, deadline=None)
@given(
    layers=st.integers(1, 3), heads=st.integers(1, 3), width=st.integers(1, 4), tied=st.booleans(),
    tokens=st.lists(st.integers(0, 6), min_size=1, max_size=LONGEST), is_training=st.booleans(),
)  # fmt: skip
def test_the_parts_of_a_transformer_host_are_the_whole(layers, heads, width, tied, tokens, is_training):
    options = {"vocab_size": 7, "block_size": LONGEST, "n_layer": layers, "n_head": heads, "tied": tied}
    host = get_target_model("TransformerHost", **options, n_embd=width * heads, dropout=0.2).train(is_training)
    assert [*host.injection_points] == [f"blocks.{index}" for index in range(layers)]
    torch.manual_seed(0)  # of dropout
    whole = host(torch.tensor([tokens]))
    for outputs in in_two_parts(host, torch.tensor([tokens])):
        assert outputs.equal(whole)


@pytest.mark.parametrize("name", ["HostCNN", "TransformerHost"])
def test_a_host_refuses_layers_that_it_does_not_have(name):
    host = network(name).eval()
    layers, inputs = len(host.blocks), task_of(name).splits["guard"][:2].inputs
    features = host.forward_through_layer(inputs, layers - 1)
    for layer in (-1, -layers, layers):
        with pytest.raises(InvalidConfig, match=f"the layer is {layer}; expected an index from 0 to {layers - 1}$"):
            host.forward_through_layer(inputs, layer)
    for layer in (-1, layers + 1):
        with pytest.raises(InvalidConfig, match=f"the layer is {layer}; expected an index from 0 to {layers}$"):
            host.forward_from_layer(features, layer)


def test_a_convolutional_host_has_the_weights_of_the_specification():
    host = get_target_model("HostCNN")
    assert sum(parameter.numel() for parameter in host.parameters()) == 24_234
    assert host.injection_points == {"blocks.1": (1, 2 / 3, 32)}


@settings(max_examples=12, deadline=None)
@given(dim=st.integers(1, 12), length=st.integers(2, LONGEST), seed=st.integers(0, 99), data=st.data())
def test_no_output_of_a_transformer_blueprint_depends_on_later_tokens(dim, length, seed, data):
    cut = data.draw(st.integers(1, length - 1))
    torch.manual_seed(seed)
    for blueprint in blueprints_of("transformer"):
        delta = blueprint.build(dim).eval()
        for parameter in delta.parameters():
            torch.nn.init.normal_(parameter)
        stream = torch.randn(2, length, dim)
        later = torch.cat([stream[:, :cut], torch.randn(2, length - cut, dim)], dim=1)
        torch.testing.assert_close(delta(stream)[:, :cut], delta(later)[:, :cut], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(delta(stream)[:, :cut], delta(stream[:, :cut]), rtol=1e-4, atol=1e-4)


@given(schedule=st.sampled_from(sorted(SCHEDULES)), steps=st.integers(1, 10_000), step=st.integers(-5, 12_000))
def test_alpha_begins_at_0_ends_at_1_and_never_falls(schedule, steps, step):
    assert alpha(schedule, 0, steps) == 0.0
    assert alpha(schedule, steps, steps) == alpha(schedule, steps + 7, steps) == 1.0
    assert 0.0 <= alpha(schedule, step, steps) <= alpha(schedule, step + 1, steps) <= 1.0
