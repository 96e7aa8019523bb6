"""Weights that a training starts from: which files fit which network."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metaopt import get_target_model
from metaopt.adapters import insert_adapters, merged, read_initial_weights
from metaopt.core.errors import FileFormatError, InvalidConfig, LayoutMismatch
from metaopt.weights.model_files import save_model_weights

from ..wan_files import TINY

ADAPTER = {"method": "lora", "modules": ["layers.1"], "rank": 2, "alpha": 4.0}


class Tied(nn.Module):
    """Two names of one weight, and a buffer."""

    def __init__(self):
        super().__init__()
        self.shared, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.shared.weight
        self.register_buffer("scale", torch.ones(3))


class Named(nn.Module):
    """A module for each name, whose tensors have given shapes."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *path, leaf = name.split(".")
            module = self
            for piece in path:
                if piece not in module._modules:
                    module.add_module(piece, nn.Module())
                module = module._modules[piece]
            module.register_parameter(leaf, nn.Parameter(torch.randn(shape)))


class Pipeline(nn.Module):
    """A network of two modules, as a text encoder and a transformer."""

    def __init__(self):
        super().__init__()
        self.encoder, self.transformer = nn.Linear(3, 2), Named(TINY.of_diffusers())


def mlp(widths=(8,)):
    return get_target_model("MLP", in_features=6, widths=widths, classes=3)


def weights_of(shapes):
    torch.manual_seed(1)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def equal(model, tensors):
    state = model.state_dict()
    return state.keys() == tensors.keys() and all(state[name].equal(tensor) for name, tensor in tensors.items())


def test_files_of_metaopt_and_of_other_programs_fit_by_their_names(tmp_path):
    source, model = mlp(), mlp()
    save_model_weights(source, tmp_path / "own.safetensors")
    save_file(source.state_dict(), tmp_path / "other.safetensors")
    wrapped = {f"model.{name}": tensor for name, tensor in source.state_dict().items()}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    digests = set()
    for name in ("own", "other", "wrapped"):
        target = mlp()
        initial = read_initial_weights(tmp_path / f"{name}.safetensors", model)
        initial.load_into(target)
        assert equal(target, source.state_dict())
        digests |= {*initial.facts.items()}
    assert len(digests) == 1


def test_it_needs_names_and_shapes_only(tmp_path):
    save_model_weights(mlp(), tmp_path / "base.safetensors")
    with torch.device("meta"):
        skeleton = mlp()
    assert [part.module for part in read_initial_weights(tmp_path / "base.safetensors", skeleton).parts] == [""]


def test_weights_in_another_precision_are_converted(tmp_path):
    source = mlp().to(torch.bfloat16)
    save_file(source.state_dict(), tmp_path / "half.safetensors")
    target = mlp()
    read_initial_weights(tmp_path / "half.safetensors", target).load_into(target)
    assert equal(target, {name: tensor.float() for name, tensor in source.state_dict().items()})


@pytest.mark.parametrize("stored", ["shared.weight", "head.weight"])
def test_tied_weights_are_stored_under_one_of_their_names(tmp_path, stored):
    table = torch.randn(5, 4)
    save_file({stored: table, "scale": torch.zeros(3)}, tmp_path / "tied.safetensors")
    target = Tied()
    read_initial_weights(tmp_path / "tied.safetensors", target).load_into(target)
    assert target.head.weight.equal(table)
    assert target.scale.sum() == 0


def test_the_original_names_of_wan_fit_those_of_diffusers(tmp_path):
    tensors = weights_of(TINY.original())
    save_file(tensors, tmp_path / "wan.safetensors")
    target = Named(TINY.of_diffusers())
    read_initial_weights(tmp_path / "wan.safetensors", target).load_into(target)
    assert target.get_parameter("blocks.0.attn2.to_k.weight").equal(tensors["blocks.0.cross_attn.k.weight"])
    assert target.get_parameter("blocks.3.norm2.bias").equal(tensors["blocks.3.norm3.bias"])


def test_a_folder_has_the_weights_of_several_modules(tmp_path, caplog):
    encoder, tensors = nn.Linear(3, 2), weights_of(TINY.of_diffusers())
    names = sorted(tensors)
    for folder in ("text_encoder", "transformer", "vae"):
        (tmp_path / folder).mkdir()
    save_file(encoder.state_dict(), tmp_path / "text_encoder" / "model.safetensors")
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, tmp_path / "transformer" / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "transformer" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    save_file({"conv.weight": torch.zeros(2, 2)}, tmp_path / "vae" / "model.safetensors")
    target = Pipeline()
    initial = read_initial_weights(tmp_path, target)
    initial.load_into(target)
    assert [*initial.facts] == ["encoder", "transformer"]
    assert initial.unused == ("vae/model",)
    assert initial.left_out(target) == []
    assert equal(target.encoder, encoder.state_dict())
    assert equal(target.transformer, tensors)
    alone = read_initial_weights(tmp_path / "transformer", target)
    assert alone.facts == {"transformer": initial.facts["transformer"]}
    assert alone.left_out(target) == ["encoder"]


def test_one_of_two_experts_is_chosen_by_its_name(tmp_path):
    experts = {}
    for name in ("high_noise_model", "low_noise_model"):
        experts[name] = mlp().state_dict()
        save_file(experts[name], tmp_path / f"{name}.safetensors")
    target = mlp()
    with pytest.raises(InvalidConfig, match="has several networks that fit MLP"):
        read_initial_weights(tmp_path, target)
    read_initial_weights(tmp_path, target, expert="low_noise").load_into(target)
    assert equal(target, experts["low_noise_model"])
    save_file(experts["low_noise_model"], tmp_path / "alone.safetensors")
    with pytest.raises(InvalidConfig, match="has no experts; leave it out, or give another folder"):
        read_initial_weights(tmp_path / "alone.safetensors", target, expert="low_noise")


def test_adapters_in_a_file_are_merged():
    torch.manual_seed(0)
    model = insert_adapters(mlp(), ADAPTER)
    nn.init.normal_(model.get_parameter("layers.1.lora_B.default.weight"))
    inputs, whole = torch.randn(4, 6), mlp()
    whole.load_state_dict(merged(model.state_dict(), ADAPTER))
    torch.testing.assert_close(whole(inputs), model(inputs))
    lacking = {name: tensor for name, tensor in model.state_dict().items() if "lora_B" not in name}
    with pytest.raises(LayoutMismatch, match=r"no 'layers\.1\.lora_B\.default\.weight', which the adapters need"):
        merged(lacking, ADAPTER)
    with pytest.raises(LayoutMismatch, match=r"has the shapes \(8, 6\), \(8, 2\), \(3, 6\) of W, B and A"):
        merged({**model.state_dict(), "layers.1.lora_A.default.weight": torch.zeros(3, 6)}, ADAPTER)


def changed(**changes):
    tensors = {**mlp().state_dict(), **changes}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (changed(**{"layers.1.bias": None}), InvalidConfig, r"lacks 1 tensor \('layers.1.bias'\) of MLP"),
        (changed(more=torch.zeros(1)), InvalidConfig, r"has 1 tensor \('more'\) more"),
        (
            changed(**{"layers.1.weight": torch.zeros(9, 6)}),
            LayoutMismatch,
            r"has shape \(9, 6\), MLP expects \(8, 6\)",
        ),
        (changed(**{"layers.1.bias": torch.full((8,), torch.nan)}), LayoutMismatch, "holds NaN or infinity"),
        (changed(**{"layers.1.bias": torch.zeros(8, dtype=torch.long)}), LayoutMismatch, "is torch.int64"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, tensors, error, message):
    save_file(tensors, tmp_path / "base.safetensors")
    with pytest.raises(error, match=message):
        read_initial_weights(tmp_path / "base.safetensors", mlp())


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InvalidConfig, match="which does not exist; give a file or a folder"):
        read_initial_weights(tmp_path / "none.safetensors", mlp())
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(FileFormatError):
        read_initial_weights(tmp_path / "pickle.safetensors", mlp())
    (tmp_path / "run" / "seed_0").mkdir(parents=True)
    (tmp_path / "run" / "seed_0" / "step_00000000.safetensors").touch()
    with pytest.raises(InvalidConfig, match=r"which holds trajectories; give one, such as .*seed_0"):
        read_initial_weights(tmp_path / "run", mlp())
    for name in ("a", "b"):
        (tmp_path / "two").mkdir(exist_ok=True)
        save_file(mlp().state_dict(), tmp_path / "two" / f"{name}.safetensors")
    with pytest.raises(InvalidConfig, match="has several networks that fit MLP; name the file of one, or an expert"):
        read_initial_weights(tmp_path / "two", mlp())
