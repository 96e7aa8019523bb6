"""Which version is champion, under which name, and how a checkpoint becomes a version later."""

import json
import shlex
from pathlib import Path

import pytest
from mlflow import MlflowClient

from metaopt.core.errors import TrackingError
from metaopt.tracking import champion_version
from metaopt.workflows.model_names import champion_uri, chosen_name

MLP = "metaopt-digits-MLP"
RECORD = ["train-target", "--target-model", "MLP", "--widths", 8, "--epochs", 2, "--runs", 4, "--run-name"]
SMALL = ["--optimizer-options", "dim=16 num_latents=2 latent_dim=16 heads=2", "--pairs-per-epoch", 8]
LEARN = ["train-optimizer", *SMALL, "--run-name"]


@pytest.fixture(scope="module")
def succeed(command_line):
    """Runs a command that must succeed and returns its JSON document."""

    def run(*arguments):
        result = command_line("--json", *arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def aliases(name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in MlflowClient().get_registered_model(name).aliases.items()}


@pytest.fixture(scope="module")
def trained(succeed):
    """The first version, and a training that was not registered, as after a kill."""
    succeed(*RECORD, "mlp")
    first = succeed(*LEARN, "mlp", "--epochs", 1)
    return first, succeed(*LEARN, "mlp", "--epochs", 2, "--checkpoint-name", "killed", "--model-name", "none")


def test_the_first_version_is_champion_and_later_ones_are_candidates(trained, succeed):
    first, _ = trained
    assert first["promotion"] == f"version 1 of {MLP} is now champion: there was no champion yet"
    second = succeed(*LEARN, "mlp", "--epochs", 1, "--overwrite", "true", "--seed", 1)
    assert second["promotion"].endswith("is not promoted: version 1 stays champion, because the two were not compared")
    assert aliases(MLP) == {"champion": 1, "candidate": second["version"]}
    evaluate, compare = second["next"]
    assert compare == f"{evaluate} --promote true"
    small = ["--steps", 40, "--every", 20, "--seeds", 1, "--controls", "false", "--baselines", "none"]
    compared = succeed(*shlex.split(compare)[1:], *small)
    assert "is not promoted: the champion's steps to target" in compared["promotion"]
    assert champion_version(MLP) == 1


def test_another_network_has_a_champion_of_its_own(trained, succeed):
    before = champion_version(MLP)
    succeed(*RECORD, "conv", "--target-model", "ConvNet", "--widths", 4, "--epochs", 1, "--runs", 2)
    made = succeed(*LEARN, "conv", "--epochs", 1)
    assert made["model_uri"] == "models:/metaopt-digits-ConvNet/1"
    assert champion_version(MLP) == before
    generated = succeed("generate", "--trajectory", "trajectories/conv/seed_0", "--output", "conv.safetensors")
    params = MlflowClient().get_run(generated["run_id"]).data.params
    assert params["optimizer"] == "models:/metaopt-digits-ConvNet@champion"
    assert Path("conv.safetensors").is_file()


@pytest.mark.parametrize("source", ["checkpoint", "run_id"])
def test_a_checkpoint_is_registered_later(trained, succeed, source):
    _, killed = trained
    found = succeed("register", killed[source])
    version = MlflowClient().get_model_version(MLP, str(found["version"]))
    assert "MLP on digits" in version.description
    assert "held out: mlp/seed_" in version.description
    assert version.tags["run_name"] == "mlp"
    assert found["figures"] == {name: value for name, value in killed["figures"].items() if name != "seconds"}
    assert "not promoted" in found["promotion"]
    assert found["next"][0].startswith(f"metaopt evaluate --optimizer {found['model_uri']} --task digits")


def test_a_registration_can_choose_name_and_alias(trained, succeed):
    _, killed = trained
    found = succeed("register", "--checkpoint", killed["checkpoint"], "--model-name", "mine", "--alias", "tried")
    assert found["model_uri"] == "models:/mine/1"
    assert aliases("mine") == {"candidate": 1, "tried": 1}


def test_resuming_with_nothing_left_registers(trained, succeed):
    _, killed = trained
    before = Path(killed["checkpoint"]).read_bytes()
    settings = [*LEARN, "mlp", "--checkpoint-name", "killed", "--resume-from", killed["run_id"]]
    found = succeed(*settings, "--epochs", 0, "--model-name", "resumed")
    assert found["model_uri"] == "models:/resumed/1"
    assert found["checkpoint"] == killed["checkpoint"]
    assert Path(killed["checkpoint"]).read_bytes() == before
    stored = MlflowClient().list_artifacts(found["run_id"], "checkpoints/epoch_0001")
    assert any(item.path.endswith("manifest.json") for item in stored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["register"], "no checkpoint given"),
        (["register", "nowhere.safetensors"], "no checkpoint at"),
        (["register", "trajectories/mlp/seed_0/step_00000000.safetensors"], "expected"),
        (["register", "a", "b"], "unexpected 'b'"),
        ([*LEARN, "mlp", "--epochs", 0], "epochs is 0; expected 1 or more"),
        ([*LEARN, "mlp", "--epochs", 1], "or give --resume-from and its last checkpoint"),
        (["evaluate", "--target-model", "ResNet18"], "no optimizer for ResNet18 on digits is registered"),
    ],
)
def test_bad_input_is_refused(trained, command_line, arguments, message):
    result = command_line(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("given", "problems", "name"),
    [
        ("auto", ["MLP on digits"], MLP),
        ("auto", ["transformers:GPT2Config on text"], "metaopt-text-transformers-GPT2Config"),
        ("auto", ["MLP on digits", "TargetCNN on digits"], "metaopt-cnn-mlp"),
        ("mine", ["MLP on digits"], "mine"),
    ],
)
def test_default_names(given, problems, name):
    assert chosen_name(given, problems, "cnn,mlp") == name


def test_the_champion_of_metaopt_0_1_is_used_where_there_is_no_other(store, client):
    with pytest.raises(TrackingError, match="expected a champion of metaopt-digits-GPT"):
        champion_uri("digits", "GPT")
    client.create_registered_model("metaopt-perceiver")
    client.create_model_version("metaopt-perceiver", "file:/nothing")
    client.set_registered_model_alias("metaopt-perceiver", "champion", "1")
    assert champion_uri("digits", "GPT") == "models:/metaopt-perceiver@champion"
