"""The main job refuses what its later phases cannot do, before it records anything."""

from pathlib import Path

import pytest

from metaopt.core.errors import InvalidConfig, RunNameError
from metaopt.workflows.main_job import MainConfig, main


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_evolution_needs_gains():
    with pytest.raises(InvalidConfig, match="generations is 5, and optimizer_options has no gains"):
        MainConfig(optimizer_options={"start": "hold"})
    assert MainConfig(optimizer_options={"start": "hold"}, generations=0).optimizer().rounds == 0


@pytest.mark.parametrize("options", [{"strat": "slopes", "gains": True}, {"start": "line", "gains": True}])
def test_options_of_the_optimizer_are_checked_first(options):
    with pytest.raises(InvalidConfig, match=r"strat|start"):
        MainConfig(optimizer_options=options)


def test_evolution_goes_on_from_the_epochs_in_a_folder_of_its_own():
    evolution = MainConfig(run_name="mine", steps=80, generations=3).evolution(Path("checkpoint.safetensors"))
    assert (evolution.rounds, evolution.method, evolution.inner_steps) == (3, "evolution", 80)
    assert evolution.start_from == "checkpoint.safetensors"
    assert evolution.run_names == ["mine"]
    assert evolution.checkpoint_folder.name == "mine_evolved"


def test_a_network_that_inner_trainings_cannot_train_is_refused_first(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    config = MainConfig(
        task="text",
        data_dir=text,
        task_options={"block_size": 8, "order": "stream"},
        target_model="Hope",
        target_options={"n_layer": 1, "n_head": 1, "n_embd": 4, "chunk": 4, "periods": [1, 4]},
    )
    with pytest.raises(InvalidConfig, match=r"levels with periods above 1.*generations=0 leaves evolution out"):
        main(config)
    assert not [*Path().rglob("*.safetensors")]


def test_evolved_checkpoints_that_exist_are_kept(tmp_path):
    folder = Path("checkpoints/digits_evolved")
    folder.mkdir(parents=True)
    (folder / "PerceiverOptimizer_epoch_3.safetensors").touch()
    with pytest.raises(RunNameError, match="digits_evolved"):
        main(MainConfig(overwrite=False))
    assert not Path("trajectories/digits").exists()
