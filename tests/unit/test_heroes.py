"""Heroes and layers: which value holds, where it comes from, and which files are refused."""

from pathlib import Path

import pytest

from metaopt.core.errors import InvalidConfig, UnknownName, UntrustedCode
from metaopt.operations.heroes import hero_workflows, read_hero
from metaopt.operations.hosts import machine_layer
from metaopt.operations.layers import flag_layer, resolve
from metaopt.operations.workflow_table import WORKFLOWS
from metaopt.recording.config import TrainTargetConfig

ROOT = Path(__file__).parents[2]
HEROES = sorted(path for path in (ROOT / "configs" / "heroes").glob("*.yaml") if "curriculum" not in path.name)

HERO = """\
common:
  task: digits
  target-model: MLP
  run_name: one
train-target:
  epochs: 3
  run_name: two
evaluate: {steps: 100}
"""


@pytest.fixture
def hero(tmp_path):
    path = tmp_path / "hero.yaml"
    path.write_text(HERO)
    return path


def test_each_workflow_reads_its_part(hero):
    target = resolve("train-target", [read_hero(hero, "train-target")])
    assert (target.config.run_name, target.config.epochs, target.config.target_model) == ("two", 3, "MLP")
    optimizer = resolve("train-optimizer", [read_hero(hero, "train-optimizer")])
    assert optimizer.config.run_name == "one"  # `task` is no parameter of it
    assert hero_workflows(hero) == ["train-target", "evaluate"]


def test_origins_are_files_and_lines(hero):
    origins = resolve("train-target", [read_hero(hero, "train-target"), flag_layer({"seed": "4"})]).origins
    shown = {name: str(origins[name]) for name in ("target_model", "epochs", "run_name", "seed", "lr")}
    assert shown == {
        "target_model": f"hero {hero}:3",
        "epochs": f"hero {hero}:6",
        "run_name": f"hero {hero}:7",
        "seed": "flag",
        "lr": "default",
    }


def test_later_layers_hold(hero, tmp_path):
    (tmp_path / "hosts.yaml").write_text("gpu-1: {parameters: {epochs: 5, steps: 7, batch-size: 8}}")
    machine = machine_layer(tmp_path / "hosts.yaml", "gpu-1", "train-target")
    layers = [read_hero(hero, "train-target"), machine]
    resolved = resolve("train-target", layers)
    assert (resolved.config.epochs, resolved.config.batch_size) == (5, 8)
    assert str(resolved.origins["epochs"]) == f"machine {tmp_path / 'hosts.yaml'}:1"
    assert resolve("train-target", [*layers, flag_layer({"epochs": "6"})]).config.epochs == 6


def test_a_file_without_sections_has_the_parameters_of_one_workflow():
    path = ROOT / "configs" / "shapes_base.yaml"
    assert resolve("train-target", [read_hero(path, "train-target")]).config.run_name == "shapes"


def test_no_parameter_has_the_name_of_a_section():
    sections = {"common", *(name.replace("-", "_") for name in WORKFLOWS)}
    for workflow in WORKFLOWS.values():
        assert not sections & {*workflow.config_class.names(), *workflow.config_class.renamed}


@pytest.mark.parametrize("path", HEROES, ids=lambda path: path.stem)
def test_the_shipped_heroes_are_valid(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert hero_workflows(path) == ["train-target", "train-optimizer", "evaluate"]
    for workflow in hero_workflows(path):
        resolved = resolve(workflow, [read_hero(path, workflow)])
        assert resolved.origins["run_name" if workflow != "evaluate" else "optimizer"].file == path
    assert f"`{path.name}`" in (ROOT / "configs" / "heroes" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{train-traget: {}, common: {}}", "has the section 'train_traget': did you mean train-target"),
        ("{train-target: {epoch: 3}}", "the section train-target of .* has the parameter 'epoch': did you mean epochs"),
        ("{common: {runn_name: a}}", "the section common of .* has the parameter 'runn_name': did you mean run_name"),
        ("{train-target: 5}", "the section train-target of .* is 5; expected names with values"),
        ("{evaluate: {}}", "has the sections evaluate, and none for train-target; add `train-target:` or `common:`"),
        ("{epoch: 5}", "has the parameter 'epoch': did you mean epochs"),
        ("[1]", "contains a list"),
    ],
)
def test_invalid_heroes_are_refused(tmp_path, text, message):
    (tmp_path / "hero.yaml").write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        read_hero(tmp_path / "hero.yaml", "train-target")


def test_an_invalid_value_is_refused(tmp_path):
    (tmp_path / "hero.yaml").write_text("train-target: {epochs: many}")
    with pytest.raises(InvalidConfig, match="epochs is 'many'; expected a whole number"):
        resolve("train-target", [read_hero(tmp_path / "hero.yaml", "train-target")])
    with pytest.raises(UnknownName, match="no workflow 'train': did you mean"):
        resolve("train", [])


def test_a_file_names_code_only_if_a_flag_trusts_it(tmp_path):
    (tmp_path / "hero.yaml").write_text("common: {target_model: 'os:system', trust_config: true}")
    layer = read_hero(tmp_path / "hero.yaml", "train-target")
    with pytest.raises(UntrustedCode, match=r"hero\.yaml sets"):
        resolve("train-target", [layer])
    trusted = flag_layer({"trust_config": "true"})
    assert resolve("train-target", [layer, trusted]).config.target_model == "os:system"
    typed = flag_layer({"target_model": "my_nets:build", "trust_config": "false"})
    assert resolve("train-target", [layer, typed]).config.target_model == "my_nets:build"


def test_an_old_name_of_a_parameter_warns_and_holds(tmp_path):
    (tmp_path / "hero.yaml").write_text("train-optimizer: {trust_code: false, run_name: a}")
    with pytest.warns(DeprecationWarning, match="trust_code"):
        resolved = resolve("train-optimizer", [read_hero(tmp_path / "hero.yaml", "train-optimizer")])
    assert resolved.config.trust_config is False


def test_defaults_have_the_digest_of_the_defaults():
    from metaopt.core.config_digest import config_digest

    assert resolve("train-target", []).digest == config_digest(TrainTargetConfig())
