"""Phase 3 as a user runs it: a run with its curves, a registered policy, a resumed run, and its use in phase 1."""

import json
from pathlib import Path

import pytest
import torch

from metaopt.core.errors import TrackingError
from metaopt.growth.policy import load_policy as load_policy_file
from metaopt.tracking import connect, load_policy

from ..growing import GROWTH

NAME = "metaopt-controller-digits-HostCNN"
GROWS = " ".join(f"{name}={value}" for name, value in GROWTH.items())
SMALL = ["--batch-size", 101, "--target-options", "widths=[4,6,8]", "--growth-options", GROWS]
LEARN = ["train-controller", *SMALL, "--lr", 0.01, "--steps", 20, "--train-seeds", 2, "--n-envs", 2, "--minibatch", 6,
         "--ppo-epochs", 2, "--checkpoint-every", 1]  # fmt: skip


def _result(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def learned(command_line, module_store):
    """The results of an uninterrupted training, and of one that is resumed by the ID of its run."""
    results = []
    for arguments in (["--run-name", "whole", "--episodes", 4], ["--run-name", "part", "--episodes", 2]):
        results.append(_result(command_line("--json", *LEARN, *arguments)))
    resume = ["--run-name", "rest", "--episodes", 4, "--resume-from", results[1]["run_id"], "--model-name", "none"]
    results.append(_result(command_line("--json", *LEARN, *resume)))
    return results


def test_a_run_has_curves_parameters_a_figure_and_files(learned):
    whole, *_ = learned
    client = connect()
    run = client.get_run(whole["run_id"])
    assert run.data.params["episodes"] == "4"
    assert run.data.tags["metaopt.phase"] == "controller"
    assert "mean return" in run.data.tags["mlflow.note.content"]
    for name in ("return", "loss_over_twin", "entropy", "kl", "value_loss"):
        assert [metric.step for metric in client.get_metric_history(whole["run_id"], name)] == [18, 36]
    files = {item.path for item in client.list_artifacts(whole["run_id"])}
    assert {"return.png", "return.svg", "config.json", "policy", "checkpoints"} <= files


def test_a_run_that_is_resumed_by_its_id_equals_an_uninterrupted_one(learned):
    whole, part, rest = learned
    assert rest["model_uri"] is None
    same = [load_policy_file(Path(each["policy"])) for each in (whole, rest)]
    assert all(map(torch.equal, same[0].parameters(), same[1].parameters()))
    tags = connect().get_run(rest["run_id"]).data.tags
    assert (tags["resumed_from_run_id"], tags["resumed_from_step"]) == (part["run_id"], "18")


def test_the_policy_is_registered_and_is_loaded_without_code(learned):
    whole, part, _ = learned
    assert (whole["model_uri"], part["model_uri"]) == (f"models:/{NAME}/1", f"models:/{NAME}/2")
    assert "is now champion" in whole["promotion"]
    assert "is not promoted" in part["promotion"]
    expected = load_policy_file(Path(whole["policy"]))
    for source in (f"models:/{NAME}@champion", f"models:/{NAME}/1", f"runs:/{whole['run_id']}", whole["policy"]):
        assert all(map(torch.equal, load_policy(source).parameters(), expected.parameters()))
    version = connect().get_model_version(NAME, "1")
    assert "--controller" in version.description
    assert version.tags["trained_on"] == "HostCNN on digits"


@pytest.mark.parametrize("source", ["models:/missing@champion", f"models:/{NAME}/9", "nowhere.safetensors"])
def test_a_policy_that_does_not_exist_is_refused(learned, source):
    with pytest.raises(TrackingError):
        load_policy(source)


def test_phase_1_grows_by_the_champion(command_line, learned):
    grow = ["train-target", "--target-model", "HostCNN", *SMALL, "--epochs", 1, "--run-name", "grown"]
    result = command_line("--json", *grow, "--controller", f"models:/{NAME}@champion")
    assert result.exit_code == 0, result.output


def test_another_network_than_that_of_the_policy_names_the_actions(command_line, learned):
    grow = ["train-target", "--target-model", "MLP", "--epochs", 1, "--run-name", "other"]
    taps = ["--growth-options", "taps=[layers.1]"]
    result = command_line(*grow, *taps, "--controller", f"models:/{NAME}@champion")
    assert result.exit_code != 0
    assert "GERMINATE_CONV" in result.stderr
