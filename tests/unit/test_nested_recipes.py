"""The recipes of nested learning: their names exist, HOPE is as large as the GPT beside it, and they run."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.nested.hope_against_gpt import weights_of
from metaopt.core.config import read_config_file
from metaopt.core.tracker import SilentTracker
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import train_targets
from metaopt.targets import target_config
from metaopt.tasks import task_config
from metaopt.trajectories import Trajectory

RECIPES = sorted((Path(__file__).parents[2] / "benchmarks" / "nested").glob("*.yaml"))
FACTS = {"sentencepiece": {"vocab_size": 2000}, "characters": {"vocab_size": 65}}


def facts_of(config):
    """Of the data of a recipe, whose files a machine may not have."""
    options = config.task_options
    return {**options, **FACTS.get(options.get("tokenizer"), {})}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_independent_of_the_machine(path):
    config = TrainTargetConfig.from_mapping(read_config_file(path))
    assert config.run_name == path.stem
    assert config.data_dir is None, "data_dir depends on the machine: give it on the command line"
    assert f"--config benchmarks/nested/{path.name}" in path.read_text(encoding="utf-8")
    task_config(config.task, config.task_options)
    target_config(config.target_model, {}, config.target_options)


@pytest.mark.parametrize("name", ["recall", "tinyshakespeare", "tinystories"])
def test_hope_and_the_gpt_differ_in_nothing_but_the_network(name):
    hope, gpt = (
        TrainTargetConfig.from_mapping(read_config_file(path))
        for path in (path for kind in ("hope", "gpt") for path in RECIPES if path.stem == f"{kind}_{name}")
    )
    assert replace(hope, run_name="", target_model="GPT", target_options={}) == replace(
        gpt, run_name="", target_options={}
    )
    sizes = [
        weights_of(each.target_model, target_config(each.target_model, facts_of(each), each.target_options))
        for each in (hope, gpt)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize("name", ["tinyshakespeare", "tinystories"])
def test_the_real_texts_fit_a_recipe(name, real_data):
    file = f"text/{name}.txt"
    (path,) = (path for path in RECIPES if path.stem == f"hope_{name}")
    config = TrainTargetConfig.from_mapping(read_config_file(path) | {"data_dir": real_data(file) / file})
    assert config.load_task().model_facts == {**FACTS[config.task_options["tokenizer"]], "block_size": 128}


def test_a_recipe_runs(tmp_path):
    path = next(path for path in RECIPES if path.stem == "hope_recall")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["task_options"] |= {"examples": 200}
    values["target_options"] |= {"n_layer": 1}
    folders = {"trajectory_dir": tmp_path, "checkpoint_dir": tmp_path / "checkpoints"}
    (folder,) = train_targets(TrainTargetConfig.from_mapping({**values, **folders, "epochs": 1}), SilentTracker())
    assert Trajectory.open(folder).run["target_model"] == "Hope"
