"""The recipes in configs/: the small ones run one after the other, and the large ones fit the released checkpoints."""

from functools import partial
from pathlib import Path

import torch

from metaopt import Trajectory, get_target_model
from metaopt.adapters import WAN, adapt_as, chosen_adapters
from metaopt.adapters.initial_weights import _Names
from metaopt.core.config import read_config_file
from metaopt.recording.config import TrainTargetConfig
from metaopt.trajectories import read_whole_network
from metaopt.weights.building import skeleton_of
from metaopt.weights.model_files import copy_into

from ..wan_files import TI2V_5B

CONFIGS = Path(__file__).parents[2] / "configs"
LARGE = ("wan22_te_ft", "wan22_dit_lora_translator")
UMT5_XXL = 5_680_910_336
"""Weights of google/umt5-xxl's encoder."""


def recipe(name):
    path = CONFIGS / f"{name}.yaml"
    return TrainTargetConfig.from_file_values(read_config_file(path), path, trusted=False)


def check_that_diffusers_loads(trajectory, folder):
    """The transformer with an exported adapter gives what the recorded network gives."""
    build = partial(get_target_model, "TextToVideo", **trajectory.run["target_config"])
    weights, _ = read_whole_network(trajectory.folder)
    recorded, theirs = adapt_as(build(), trajectory.snapshots[-1].path), build()
    copy_into(recorded, weights)
    names = {name.replace("base_layer.", ""): tensor for name, tensor in weights.items() if ".lora_" not in name}
    copy_into(theirs, names)
    videos, times, embeddings = torch.randn(2, 3, 3, 12, 12), torch.rand(2), torch.randn(2, 8, 48)
    before = theirs.velocity(videos, times, embeddings)
    theirs.transformer.load_lora_adapter(folder, weight_name="pytorch_lora_weights.safetensors")
    after = theirs.velocity(videos, times, embeddings)
    torch.testing.assert_close(after, recorded.velocity(videos, times, embeddings))
    assert not after.equal(before)


def test_the_list_names_every_recipe():
    text = (CONFIGS / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in text for path in CONFIGS.glob("*.yaml"))


def test_the_small_recipes_run_one_after_the_other(command_line, module_store):
    for name in ("shapes_base", "shapes_te_ft", "shapes_dit_lora_translator"):
        small = ["--epochs", 1, "--examples", 80, "--threads", 1]
        result = command_line("train-target", "--config", CONFIGS / f"{name}.yaml", *small)
        assert result.exit_code == 0, result.output
    base, encoder, adapters = (
        Trajectory.open(f"trajectories/{name}/seed_0") for name in ("shapes", "shapes_te_ft", "shapes_translator")
    )
    assert {tensor.name.partition(".")[0] for tensor in base.layout.tensors} == {"encoder", "transformer"}
    assert {tensor.name.partition(".")[0] for tensor in encoder.layout.tensors} == {"encoder"}
    assert {name.rpartition(".")[0] for name in adapters.run["adapter"]["modules"]} == {
        f"transformer.blocks.{block}.attn2" for block in (1, 2)
    }
    exported = command_line("export-adapter", adapters.folder, "--module", "transformer", "--output", "translator")
    assert exported.exit_code == 0, exported.output
    check_that_diffusers_loads(adapters, "translator")
    refused = command_line(
        *("train-target", "--config", CONFIGS / "shapes_te_ft.yaml", "--run-name", "both"),
        *("--cache-embeddings", "true", "--examples", 80),
    )
    assert refused.exit_code == 1
    assert "mode is encoder-finetune, and cache_embeddings (in target_options) is true" in refused.output
    assert "training would do nothing" in refused.output


def test_the_large_recipes_have_the_names_and_shapes_of_wan():
    encoder, adapters = map(recipe, LARGE)
    assert {**encoder.target_options, "cache_embeddings": True} == adapters.target_options
    facts = {"video_shape": [48, 5, 16, 16], "prompt_length": 512}
    network = skeleton_of(partial(get_target_model, "TextToVideo", facts, **encoder.target_options))
    assert all(weights.device == torch.device("meta") for weights in network.parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in network.transformer.state_dict().items()}
    assert shapes == TI2V_5B.of_diffusers()
    assert sum(weights.numel() for weights in network.encoder.parameters()) == UMT5_XXL
    for names in (TI2V_5B.original(), TI2V_5B.of_diffusers()):
        assert _Names(network.transformer, [*names], WAN).fit
    assert chosen_adapters(network, adapters).modules == [
        f"transformer.blocks.{block}.attn2.to_{part}" for block in range(20, 30) for part in "kv"
    ]
