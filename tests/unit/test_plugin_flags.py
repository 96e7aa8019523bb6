"""Unknown flags of a command are options of its plug-ins, or raise with the nearest names."""

import click
import pytest

from metaopt.cli.options import with_plugin_flags
from metaopt.core.errors import UnknownName
from metaopt.metatraining.trainer import TrainOptimizerConfig
from metaopt.recording.config import TrainTargetConfig
from metaopt.targets import target_config
from metaopt.workflows.generate_weights import GenerateConfig


def resolved(words, kind=TrainTargetConfig, **values):
    return with_plugin_flags(kind, {"target_model": "MLP", **values}, words.split())


def test_a_flag_is_an_option_of_the_plugin_that_has_it():
    values = resolved("--widths 16,32 --shift=2 --meta-fraction 0.1", lr="1e-2")
    assert values == {
        "lr": "1e-2",
        "target_model": "MLP",
        "task_options": {"shift": "2", "meta_fraction": "0.1"},
        "target_options": {"widths": "16,32"},
    }
    assert target_config("MLP", {}, values["target_options"])["widths"] == [16, 32]


def test_flags_add_to_options_and_override_them():
    values = resolved("--widths 8 --in_features 5", target_options={"widths": [4], "classes": 3})
    assert values["target_options"] == {"widths": "8", "classes": 3, "in_features": "5"}


def test_an_option_of_both_task_and_target_is_the_tasks():
    values = resolved("--image-size 16 --tied", task="image-folder", target_model="GPT")
    assert values["task_options"] == {"image_size": "16"}
    assert values["target_options"] == {"tied": "true"}


def test_networks_of_other_packages_accept_any_flag_as_yaml():
    values = resolved("--n-layer 2 --drop 1e-1", target_model="transformers:GPT2Config")
    assert values["target_options"] == {"n_layer": 2, "drop": 0.1}


def test_a_generative_optimizer_has_flags_too():
    values = with_plugin_flags(TrainOptimizerConfig, {}, ["--history", "3"])
    assert values["optimizer_options"] == {"history": "3"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--width 16", "unknown flag --width: did you mean --widths"),
        ("--epoch 3", "did you mean --epochs"),
        ("epochs", "expected a flag"),
        ("-- x", "expected a flag"),
    ],
)
def test_an_unknown_flag_raises_with_the_nearest_flags(words, message):
    with pytest.raises(click.UsageError, match=message):
        resolved(words)


def test_a_command_without_plugins_has_no_further_flags():
    with pytest.raises(click.UsageError, match="unknown flag --widths"):
        with_plugin_flags(GenerateConfig, {}, ["--widths", "3"])


def test_an_unknown_plugin_raises_when_it_is_built():
    values = resolved("--widths 3", target_model="MPL")
    with pytest.raises(UnknownName, match="did you mean MLP"):
        target_config("MPL", {}, values["target_options"])


@pytest.mark.parametrize("options", ["widths=[8]", {"widths": [8]}])
def test_a_flag_is_added_to_options_in_text(options):
    values = resolved("--shift 2 --classes 7", target_options=options, task_options="meta_fraction=0.2")
    assert values["target_options"] == {"widths": [8], "classes": "7"}
    assert values["task_options"] == {"meta_fraction": 0.2, "shift": "2"}
