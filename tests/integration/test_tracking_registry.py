"""Registered optimizers: versions, descriptions, aliases, and loading without running their code."""

import ast

import mlflow
import pytest
import torch
from torch import nn

from metaopt.core.errors import CheckpointError, FileFormatError, TrackingError
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import save_optimizer
from metaopt.tracking import load_optimizer, promote, register_optimizer, shipping, start_run
from metaopt.weights.layout import Layout

LAYOUT = Layout.of(nn.Linear(4, 3))


@pytest.fixture
def register(store, config):
    def make(optimizer, **options):
        defaults = {
            "description": "for tests",
            "tags": {"task": "digits"},
            "stride": 10.0,
            "facts": {"runs": 3},
            "name": "tiny",
            "alias": "champion",
        }
        with start_run("meta", config) as tracker:
            version = register_optimizer(tracker, optimizer, [LAYOUT, LAYOUT], **{**defaults, **options})
        return version, tracker.run_id

    return make


def test_a_version_has_a_description_tags_and_a_signature(register, client):
    version, run_id = register(get_optimizer_model("Line", history=3))
    found = client.get_model_version_by_alias("tiny", "champion")
    assert (int(found.version), found.run_id) == (version, run_id)
    assert "for tests" in found.description
    assert found.tags["task"] == "digits"
    info = mlflow.models.get_model_info("models:/tiny@champion")
    assert [param.name for param in info.signature.params.params] == [
        "t_start",
        "t_end",
        "stride",
        "layout",
        "t_history",
    ]
    assert client.get_run(run_id).outputs.model_outputs[0].model_id == info.model_id


def test_an_alias_can_be_moved_and_old_versions_are_kept(register):
    first, _ = register(get_optimizer_model("Line", history=3))
    second, _ = register(get_optimizer_model("Average", history=4))
    assert (first, second) == (1, 2)
    assert load_optimizer("models:/tiny@champion").history == 4
    assert load_optimizer("models:/tiny/1").history == 3
    promote("tiny", first)
    assert load_optimizer("models:/tiny@champion").history == 3
    third, _ = register(get_optimizer_model("Hold"), alias=None)
    assert (third, load_optimizer("models:/tiny@champion").history) == (3, 3)


@pytest.mark.parametrize(("version", "alias"), [(9, "champion"), (1, "latest"), (1, "v1")])
def test_missing_versions_and_reserved_aliases_cannot_be_promoted(register, version, alias):
    register(get_optimizer_model("Hold"))
    with pytest.raises(TrackingError, match="cannot set the alias tiny@"):
        promote("tiny", version, alias)


def test_loading_runs_no_code_of_the_model(register, store):
    optimizer = get_optimizer_model(
        "PerceiverOptimizer", dim=16, latent_dim=16, num_latents=4, heads=2, depth=1, hidden=8
    )
    _, run_id = register(optimizer)
    for path in store.glob("mlruns/*/models/*/artifacts/**/*.py"):
        path.write_text("raise SystemExit('code of the model ran')")
    for source in ("models:/tiny@champion", "models:/tiny/1", f"runs:/{run_id}/tiny"):
        loaded = load_optimizer(source)
        assert loaded.config == optimizer.config
        assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in optimizer.state_dict().items())


def test_a_file_and_a_checkpoint_of_a_run_can_be_loaded(store, config, tmp_path):
    save_optimizer(get_optimizer_model("Line", history=7), tmp_path / "line.safetensors")
    assert load_optimizer(tmp_path / "line.safetensors").history == 7
    assert load_optimizer("line.safetensors").history == 7
    with start_run("meta", config) as tracker:
        tracker.files([tmp_path / "line.safetensors"], "checkpoints/epoch_0000")
    assert load_optimizer(tracker.run_id).history == 7
    assert load_optimizer(f"runs:/{tracker.run_id}/checkpoints/epoch_0000").history == 7


@pytest.mark.parametrize(
    "source", ["models:/tiny@nobody", "models:/tiny/9", "models:/none@champion", "models:/tiny", "nonsense"]
)
def test_a_missing_source_is_named(register, source):
    register(get_optimizer_model("Hold"))
    with pytest.raises(TrackingError, match=source):
        load_optimizer(source)


def test_a_foreign_version_is_rejected(store, client):
    with mlflow.start_run() as run:
        mlflow.log_text("x", "model/MLmodel")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", f"runs:/{run.info.run_id}/model", run.info.run_id)
    with pytest.raises(TrackingError, match=r"it has no artifacts/optimizer\.safetensors"):
        load_optimizer("models:/foreign/1")


def test_errors_of_files_and_runs_keep_their_types(store, config, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 64)
    with pytest.raises(FileFormatError):
        load_optimizer(tmp_path / "bad.safetensors")
    with start_run("empty", config) as tracker:
        pass
    with pytest.raises(CheckpointError):
        load_optimizer(tracker.run_id)


def test_an_optimizer_needs_a_layout(store, config):
    given = {"name": "tiny", "description": "", "tags": {}, "stride": 1, "facts": {}}
    with pytest.raises(TrackingError, match="no layout"), start_run("meta", config) as tracker:
        register_optimizer(tracker, get_optimizer_model("Hold"), [], **given)


def test_the_requirements_of_a_model_have_exact_versions_and_no_index(register, store):
    register(get_optimizer_model("Hold"))
    lines = next(store.glob("mlruns/*/models/*/artifacts/requirements.txt")).read_text().splitlines()
    assert {line.partition("==")[0] for line in lines if "==" in line} == set(shipping.PINNED)
    assert not [line for line in lines if "+" in line or "http" in line]
    assert [line for line in lines if line.startswith("mlflow")] in (["mlflow<4,>=3.11"], ["mlflow>=3.11,<4"])


@pytest.mark.parametrize("name", shipping.shipped_sources())
def test_shipped_modules_never_import_metaopt_by_name(name):
    tree = ast.parse(shipping.shipped_sources()[name].read_text(encoding="utf-8"))
    absolute = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    absolute += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    assert not [each for each in absolute if each.partition(".")[0] == "metaopt"]


def test_the_package_is_complete_and_named_after_its_code(tmp_path):
    package = shipping.copy_package(tmp_path)
    assert package.name == shipping.package_name()
    assert package.name.isidentifier()
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert files == {"__init__.py", *shipping.shipped_sources()}
