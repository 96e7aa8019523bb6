"""Taps of networks: their names and order, reading and replacing their outputs, and removal of the hooks."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import UnknownName
from metaopt.targets import Tap, get_target_model, read_taps, tapped, taps


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 2))


def small_gpt():
    return get_target_model("GPT", vocab_size=11, block_size=8, n_layer=2, n_embd=8).eval()


def test_layers_of_any_network_are_taps():
    assert taps(network()) == [
        Tap("0", "layer", 4, position=0),
        Tap("2", "layer", 4, position=1),
        Tap("3", "layer", 2, position=2),
    ]


class Backwards(nn.Module):
    """Calls its modules in another order than it defines them, and one of them not at all."""

    def __init__(self):
        super().__init__()
        self.second, self.unused, self.first = nn.Linear(4, 2), nn.Linear(1, 1), nn.Linear(3, 4)

    def forward(self, inputs):
        return self.second(self.first(inputs))


def test_example_inputs_give_the_order_of_the_forward_pass():
    assert [tap.name for tap in taps(Backwards())] == ["second", "unused", "first"]
    assert [(tap.name, tap.position) for tap in taps(Backwards(), torch.zeros(1, 3))] == [("first", 0), ("second", 1)]


def test_taps_of_a_gpt():
    native = [(tap.name, tap.kind, tap.size) for tap in taps(small_gpt()) if tap.kind != "layer"]
    assert native == [
        (f"blocks.{block}{part}", kind, 8)
        for block in (0, 1)
        for part, kind in ((".attention", "attention"), (".mlp", "mlp"), ("", "block"))
    ]


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("ConvNet", {"widths": (4, 6)}, [4, 6]),
        ("TargetCNN", {}, [32, 64]),
        ("ResNet18", {}, [64, 64, 128, 128, 256, 256, 512, 512]),
        ("VisionTransformer", {"n_layer": 2, "n_embd": 8}, [8, 8]),
    ],
)
def test_block_taps_of_image_networks(name, options, sizes):
    assert [tap.size for tap in taps(get_target_model(name, **options)) if tap.kind == "block"] == sizes


def test_taps_of_a_child_are_taps_of_its_parent():
    names = [tap.name for tap in taps(nn.Sequential(nn.Linear(2, 2), small_gpt()))]
    assert {"0", "1.blocks.0.attention", "1.blocks.0"} <= set(names)


def test_the_result_of_a_function_replaces_the_output():
    model, inputs = network(), torch.randn(5, 3)
    with tapped(model, {"0": torch.zeros_like}):
        changed = model(inputs)
    assert torch.equal(changed, model[1:](torch.zeros(5, 4)))


def test_the_first_of_several_outputs_is_replaced():
    model = get_target_model("VisionTransformer", image_size=8, n_layer=1, n_embd=8).eval()
    place = "network.encoder.layers.encoder_layer_0.self_attention"
    with tapped(model, {place: torch.zeros_like}):
        read = read_taps(model, torch.randn(2, 3, 8, 8), [place])
    assert read[place].shape == (2, 5, 8)
    assert not read[place].any()


def test_functions_get_gradients():
    model, adapter = network().requires_grad_(False), nn.Linear(4, 4)
    with tapped(model, {"0": adapter}):
        model(torch.randn(5, 3)).sum().backward()
    assert adapter.weight.grad is not None


def test_hooks_are_removed_after_an_error():
    model = network()
    with (
        pytest.raises(RuntimeError, match="size"),
        tapped(model, {"0": lambda tensor: tensor[:, :1], "2": nn.Identity()}),
    ):
        model(torch.randn(5, 3))
    assert not any(module._forward_hooks for module in model)


def test_reading_gives_the_outputs_at_the_named_taps():
    model, inputs = network(), torch.randn(5, 3)
    read = read_taps(model, inputs, ["0", "3"])
    assert list(read) == ["0", "3"]
    assert torch.equal(read["0"], model[0](inputs))
    assert torch.equal(read["3"], model(inputs))


def test_an_unknown_tap_lists_the_nearest():
    model = small_gpt()
    with pytest.raises(UnknownName, match=r"GPT has no tap 'blocks.0.atention': did you mean blocks.0.attention"):
        read_taps(model, torch.zeros(1, 2, dtype=torch.long), ["blocks.0.atention"])
    with (
        pytest.raises(UnknownName, match="no tap 'dropout'"),
        tapped(model, {"blocks.0": nn.Identity(), "dropout": abs}),
    ):
        pass
    assert not model.blocks[0]._forward_hooks
