import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.targets import TargetCNN, get_target_model, names_code, target_config
from metaopt.weights.files import read_tensors
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import save_model_weights

CODE = """
from torch import nn

from metaopt.core.config import Config, option

number = 3


class Plain(nn.Module):
    def __init__(self, classes, hidden=4):
        super().__init__()
        self.layer = nn.Linear(hidden, classes)


def build(in_features, classes, hidden=4):
    return nn.Sequential(nn.Linear(in_features, hidden), nn.Linear(hidden, classes))


def anything(**options):
    return nn.Linear(**options)


def nothing():
    return "no network"


class OwnConfig(Config):
    classes: int = option(default=2, help="Number of classes.", at_least=2)


class Own(nn.Linear):
    Config = OwnConfig

    def __init__(self, config):
        super().__init__(3, config.classes)
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """The user's own modules on the import path."""
    (tmp_path / "own_networks.py").write_text(CODE)
    (tmp_path / "own_broken.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_networks", None)


def test_target_cnn_has_421_642_weights():
    assert Layout.of(TargetCNN()).size == 421_642


@pytest.mark.parametrize(("size", "weights"), [(8, 53_002), (28, 421_642), (30, 421_642)])
def test_target_cnn_adapts_its_first_linear_layer(size, weights):
    model = get_target_model("TargetCNN", image_size=size)
    assert Layout.of(model).size == weights
    assert model(torch.zeros(2, 1, size, size)).shape == (2, 10)


def test_convnet_has_14_378_weights():
    assert Layout.of(get_target_model("ConvNet")).size == 14_378


@pytest.mark.parametrize("options", [{"norm": "batch"}, {"stride": 2}, {"kernel": 5, "widths": (7,)}, {"classes": 1}])
@pytest.mark.parametrize("size", [1, 8, 11])
def test_convnet_takes_images_of_any_size(options, size):
    model = get_target_model("ConvNet", in_channels=2, **options).eval()
    assert model(torch.zeros(3, 2, size, size)).shape == (3, options.get("classes", 10))


@pytest.mark.parametrize("widths", [(), (5,), (7, 6, 5)])
@pytest.mark.parametrize("shape", [(16,), (1, 4, 4)])
def test_mlp_has_any_depth_and_flattens_anything(widths, shape):
    model = get_target_model("MLP", in_features=16, widths=widths)
    assert model(torch.zeros(3, *shape)).shape == (3, 10)
    assert len(Layout.of(model).tensors) == 2 * (len(widths) + 1)


@pytest.mark.parametrize("name", ["ResNet18", "ResNet34"])
@pytest.mark.parametrize(("channels", "size", "kernel"), [(1, 28, 3), (3, 32, 3), (1, 96, 7), (3, 96, 7)])
def test_resnets_fit_their_first_layer_to_the_images(name, channels, size, kernel):
    model = get_target_model(name, in_channels=channels, image_size=size).eval()
    assert model.network.conv1.kernel_size == (kernel, kernel)
    assert model(torch.zeros(1, channels, size, size)).shape == (1, 10)


def test_resnet_statistics_are_not_part_of_the_layout():
    names = {tensor.name for tensor in Layout.of(get_target_model("ResNet18")).tensors}
    assert not any("running" in name or "num_batches" in name for name in names)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_in_the_layout_once_and_in_a_file_once(tied, tmp_path):
    model = get_target_model("GPT", vocab_size=11, block_size=8, n_layer=1, n_embd=8, tied=tied)
    names = [tensor.name for tensor in Layout.of(model).tensors]
    save_model_weights(model, tmp_path / "weights.safetensors")
    stored, _ = read_tensors(tmp_path / "weights.safetensors", "weights")
    assert "tokens.weight" in names
    assert ("head.weight" in names) == ("head.weight" in stored) == (not tied)


def test_a_functional_call_takes_tied_weights_under_their_first_name():
    model = get_target_model("GPT", vocab_size=11, block_size=8, n_layer=1, n_embd=8)
    tokens = torch.randint(11, (2, 8))
    changed = {name: parameter + 1 for name, parameter in model.named_parameters()}
    given = functional_call(model, changed, (tokens,))
    Layout.of(model).write(model, Layout.of(model).flatten(changed))
    torch.testing.assert_close(given, model(tokens))


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownName, match="did you mean TargetCNN"):
        get_target_model("TargtCNN")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("TargetCNN", {"hiden": 3}, "did you mean hidden"),
        ("TargetCNN", {"image_size": 3}, "image_size is 3; expected 4 or more"),
        ("TargetCNN", {"hidden": "many"}, "hidden is 'many'; expected a whole number"),
        ("MLP", {"widths": (4, 0)}, "expected whole numbers of 1 or more"),
        ("ConvNet", {"widths": ()}, "expected one or more whole numbers"),
        ("ConvNet", {"norm": "bach"}, "did you mean batch"),
        ("GPT", {"n_embd": 10, "n_head": 4}, "n_embd is 10; expected a multiple of n_head, 4"),
        ("VisionTransformer", {"image_size": 30}, "image_size is 30; expected a multiple of patch_size, 4"),
        (
            "torchvision:alexnet",
            {"hiden": 3},
            "alexnet of torchvision does not take.*hiden.*list targets",
        ),
        ("torchvision:squeezenet1_1", {"in_channels": "many"}, "squeezenet1_1 of torchvision does not take.*many"),
        ("torchvision:squeezenet1_1", {"classes": -1}, "squeezenet1_1 of torchvision does not take.*-1"),
        ("torchvision:alexnet", {"weights": "DEFAULT"}, "targets start from random weights"),
        ("torchvision:alexnet", {"pretrained": True}, "targets start from random weights"),
    ],
)
def test_an_invalid_option_is_an_error(name, options, message):
    with pytest.raises(InvalidConfig, match=message):
        get_target_model(name, **options)


def test_more_tokens_than_the_context_length_are_an_error():
    with pytest.raises(InvalidConfig, match="block_size is 64, but 65 tokens came"):
        get_target_model("GPT")(torch.zeros(1, 65, dtype=torch.long))


def test_options_override_the_facts_of_the_task():
    config = target_config("TargetCNN", {"image_size": 8, "classes": 10, "words": 5}, {"image_size": 12})
    assert config == {"in_channels": 1, "image_size": 12, "classes": 10, "hidden": 128}


def test_a_classifier_of_torchvision_fits_channels_and_classes():
    config = target_config("torchvision:squeezenet1_1", {"in_channels": 1, "classes": 4}, {"dropout": 0.0})
    model = get_target_model("torchvision:squeezenet1_1", **config)
    assert config == {"in_channels": 1, "classes": 4, "dropout": 0.0}
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet81", "did you mean resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown classifier"),
        ("torchvison:resnet18", "importing 'torchvison' fails"),
    ],
)
def test_an_unknown_classifier_of_torchvision_is_an_error(name, message):
    with pytest.raises(UnknownName, match=message):
        target_config(name, {}, {})


def test_a_language_model_of_transformers_takes_the_vocabulary_from_the_task():
    pytest.importorskip("transformers")
    config = target_config("transformers:GPT2Config", {"vocab_size": 7}, {"n_layer": 1, "n_head": 1, "hidden_size": 4})
    model = get_target_model("transformers:GPT2Config", **config)
    assert config == {"vocab_size": 7, "n_layer": 1, "n_head": 1, "hidden_size": 4}
    assert model(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 7)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("GPT2Conf", {}, UnknownName, "did you mean GPT2Config"),
        ("ViTConfig", {}, UnknownName, "unknown causal language model"),
        ("AutoModel", {}, UnknownName, "unknown causal language model"),
        ("GPT2Config", {"n_layr": 1}, InvalidConfig, "did you mean n_layer"),
        ("GPT2Config", {"_attn_implementation": "someone/kernel"}, InvalidConfig, "unknown parameter"),
        ("GPT2Config", {"attn_implementation": "someone/kernel"}, InvalidConfig, "unknown parameter"),
        (
            "GPT2Config",
            {"n_layer": "many"},
            InvalidConfig,
            "GPT2Config of transformers does not take.*list targets",
        ),
    ],
)
def test_an_unknown_name_or_option_of_transformers_is_an_error(name, options, error, message):
    pytest.importorskip("transformers")
    with pytest.raises(error, match=message):
        get_target_model(f"transformers:{name}", **options)


def test_a_missing_package_is_an_error_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InvalidConfig, match=r'pip install "metaopt\[transformers\]"'):
        get_target_model("transformers:GPT2Config")


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize(
    ("name", "options", "config"),
    [
        ("build", {"hidden": 6}, {"in_features": 5, "classes": 3, "hidden": 6}),
        ("Plain", {}, {"classes": 3}),
        ("Own", {}, {"classes": 3}),
        ("anything", {"in_features": 2, "out_features": 2}, {"in_features": 2, "out_features": 2}),
    ],
)
def test_own_code_gets_the_facts_that_its_parameters_name(name, options, config):
    facts = {"in_features": 5, "classes": 3, "image_size": 8}
    assert target_config(f"own_networks:{name}", facts, options) == config
    assert isinstance(get_target_model(f"own_networks:{name}", **config), nn.Module)


@pytest.mark.usefixtures("own_code")
@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("own_networks:biuld", {}, UnknownName, "did you mean build"),
        ("own_broken:build", {}, UnknownName, "No module named 'a_package_that_is_not_there'"),
        ("own_networks:number", {}, InvalidConfig, "is int; expected a torch.nn.Module class"),
        ("own_networks:nothing", {}, InvalidConfig, "gives str; expected a torch.nn.Module"),
        ("own_networks:build", {"hiden": 3}, InvalidConfig, "did you mean hidden"),
        ("own_networks:build", {"hidden": 3}, InvalidConfig, "missing a required argument: 'in_features'"),
        ("own_networks:Own", {"clases": 3}, InvalidConfig, "did you mean classes"),
    ],
)
def test_errors_in_own_code_are_described(path, options, error, message):
    with pytest.raises(error, match=message):
        get_target_model(path, **options)


@pytest.mark.parametrize(
    "name", ["package.module:build", "os:system", ":", "torchvision.models:resnet18", " torchvision:x"]
)
def test_an_import_path_names_code(name):
    assert names_code(name)


@pytest.mark.parametrize("name", ["MLP", "", "torchvision:resnet18", "transformers:GPT2Config"])
def test_other_names_do_not_name_code(name):
    assert not names_code(name)
