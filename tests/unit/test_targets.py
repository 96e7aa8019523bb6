import pytest
import torch

from metaopt.errors import InvalidConfig, UnknownName
from metaopt.targets import TargetCNN, get_target_model, target_config
from metaopt.weights.layout import Layout


def test_target_cnn_has_exactly_the_specified_weights():
    assert Layout.of(TargetCNN()).size == 421_642


@pytest.mark.parametrize(("size", "weights"), [(8, 53_002), (28, 421_642), (30, 421_642)])
def test_target_cnn_adapts_its_first_linear_layer(size, weights):
    model = get_target_model("TargetCNN", image_size=size)
    assert Layout.of(model).size == weights
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("widths", [(), (5,), (7, 6, 5)])
def test_mlp_has_any_depth(widths):
    model = get_target_model("MLP", image_size=4, widths=widths)
    assert model(torch.zeros(3, 1, 4, 4)).shape == (3, 10)
    assert len(Layout.of(model).tensors) == 2 * (len(widths) + 1)


@pytest.mark.parametrize(("channels", "size", "kernel"), [(1, 28, 3), (3, 32, 3), (1, 96, 7), (3, 96, 7)])
def test_resnet_fits_its_first_layer_to_the_images(channels, size, kernel):
    model = get_target_model("ResNet18", in_channels=channels, image_size=size).eval()
    assert model.network.conv1.kernel_size == (kernel, kernel)
    assert model(torch.zeros(1, channels, size, size)).shape == (1, 10)


def test_resnet_statistics_are_not_part_of_the_layout():
    names = {tensor.name for tensor in Layout.of(get_target_model("ResNet18")).tensors}
    assert not any("running" in name or "num_batches" in name for name in names)


def test_unknown_name_shows_the_nearest():
    with pytest.raises(UnknownName, match="did you mean TargetCNN"):
        get_target_model("TargtCNN")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("TargetCNN", {"hiden": 3}, "did you mean hidden"),
        ("TargetCNN", {"image_size": 3}, "image_size is 3; expected 4 or more"),
        ("TargetCNN", {"hidden": "many"}, "hidden is 'many'; expected a whole number"),
        ("MLP", {"widths": (4, 0)}, "expected whole numbers of 1 or more"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(InvalidConfig, match=message):
        get_target_model(name, **options)


def test_options_of_the_user_win_over_the_facts_of_the_task():
    config = target_config("TargetCNN", {"image_size": 8, "classes": 10, "words": 5}, {"image_size": 12})
    assert config == {"in_channels": 1, "image_size": 12, "classes": 10, "hidden": 128}
