"""Phase 3 as a user runs it: a run with its curves, a resumed one, who becomes champion, and its use in phase 1."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metaopt.core.config import Config
from metaopt.core.errors import TrackingError
from metaopt.growth.actions import actions_of
from metaopt.growth.policy import Policy, save_policy
from metaopt.growth.policy import load_policy as load_policy_file
from metaopt.operations.lineage_files import read_lineage
from metaopt.reinforcement.config import FACTS, EpisodeConfig
from metaopt.tracking import CHAMPION, champion_version, connect, load_policy, promote, register_policy, start_run

from ..growing import EPISODE, GROWTH
from ..killing import kill_once

NAME = "metaopt-controller-digits-HostCNN"
GROWS = " ".join(f"{name}={value}" for name, value in GROWTH.items())
SMALL = ["--batch-size", 101, "--target-options", "widths=[4,6,8]", "--growth-options", GROWS]
LEARN = ["train-controller", *SMALL, "--lr", 0.01, "--steps", 20, "--train-seeds", 2, "--n-envs", 2, "--minibatch", 6,
         "--ppo-epochs", 2, "--checkpoint-every", 1, "--comparison-seeds", 2]  # fmt: skip


def _result(done):
    assert done.exit_code == 0, done.output
    assert "Successfully registered" not in done.output  # a message of MLflow
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def learned(command_line, module_store):
    """The results of an uninterrupted training, and of one that is resumed by the ID of its run."""
    results = []
    for arguments in (["--run-name", "whole", "--episodes", 6], ["--run-name", "part", "--episodes", 2]):
        results.append(_result(command_line("--json", *LEARN, *arguments)))
    resume = ["--run-name", "rest", "--episodes", 6, "--resume-from", results[1]["run_id"], "--model-name", "none"]
    results.append(_result(command_line("--json", *LEARN, *resume)))
    return results


def test_a_run_has_curves_parameters_a_figure_and_files(learned):
    whole, *_ = learned
    client = connect()
    run = client.get_run(whole["run_id"])
    assert run.data.params["episodes"] == "6"
    assert run.data.tags["metaopt.phase"] == "controller"
    assert "mean return" in run.data.tags["mlflow.note.content"]
    for name in ("return", "loss_over_twin", "entropy", "kl", "value_loss"):
        assert [metric.step for metric in client.get_metric_history(whole["run_id"], name)] == [18, 36, 54]
    files = {item.path for item in client.list_artifacts(whole["run_id"])}
    assert {"return.png", "return.svg", "config.json", "policy", "checkpoints"} <= files


def test_a_run_that_is_resumed_by_its_id_equals_an_uninterrupted_one(learned):
    whole, part, rest = learned
    assert rest["model_uri"] is None
    same = [load_policy_file(Path(each["policy"])) for each in (whole, rest)]
    assert all(map(torch.equal, same[0].parameters(), same[1].parameters()))
    tags = connect().get_run(rest["run_id"]).data.tags
    assert (tags["resumed_from_run_id"], tags["resumed_from_step"]) == (part["run_id"], "18")


def test_a_killed_training_is_resumed_by_its_id_to_the_same_policy(learned, command_line, module_store):
    whole, *_ = learned
    command = [sys.executable, "-m", "metaopt.cli", *LEARN, "--run-name", "killed", "--episodes", 6]
    process = subprocess.Popen(list(map(str, command)), env={**os.environ, "OMP_NUM_THREADS": "1"})
    first = "mlruns/*/*/artifacts/checkpoints/rollout_0001/manifest.json"
    known = set(module_store.glob(first))
    kill_once(process, lambda: set(module_store.glob(first)) - known)
    ((_, _, run_id, *_),) = (path.relative_to(module_store).parts for path in set(module_store.glob(first)) - known)
    assert not Path("checkpoints/killed/controller_policy.safetensors").exists()
    resume = ["--run-name", "killed", "--episodes", 6, "--resume-from", run_id, "--model-name", "none"]
    done = _result(command_line("--json", *LEARN, *resume))
    assert Path(done["policy"]).read_bytes() == Path(whole["policy"]).read_bytes()


def test_the_policy_is_registered_and_is_loaded_without_code(learned):
    whole, part, _ = learned
    assert (whole["model_uri"], part["model_uri"]) == (f"models:/{NAME}/1", f"models:/{NAME}/2")
    assert "is now champion: there was no champion yet" in whole["promotion"]
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
    lineage = read_lineage("trajectories/grown/seed_0", Path("checkpoints"), Path("trajectories"))
    assert lineage.problems() == []
    kinds = ["trajectory", "data set", "model", "checkpoint"]
    assert [node.kind for node in lineage] == kinds
    assert f"models:/{NAME}/1" in [node.name for node in lineage]


def test_a_policy_of_a_run_leads_to_its_checkpoint_in_the_store(learned, command_line, tmp_path):
    whole, *_ = learned
    grow = ["train-target", "--target-model", "HostCNN", *SMALL, "--epochs", 1, "--run-name", "by_run"]
    _result(command_line("--json", *grow, "--controller", f"runs:/{whole['run_id']}"))
    lineage = read_lineage("trajectories/by_run/seed_0", tmp_path, Path("trajectories"))
    assert lineage.problems() == []
    assert f"run {whole['run_id']}" in [node.place for node in lineage]


def test_another_network_than_that_of_the_policy_names_the_actions(command_line, learned):
    grow = ["train-target", "--target-model", "MLP", "--epochs", 1, "--run-name", "other"]
    taps = ["--growth-options", "taps=[layers.1]"]
    result = command_line(*grow, *taps, "--controller", f"models:/{NAME}@champion")
    assert result.exit_code != 0
    assert "GERMINATE_CONV" in result.stderr


class Nothing(Config):
    """What a run needs to start."""


def register(name: str, preferred: str, topology: str = "cnn") -> int:
    """Register a policy that always prefers one action, as if phase 3 had trained it where weights cost much."""
    episodes = EpisodeConfig(**{**EPISODE, "rent": 10.0})
    policy = Policy([action.name for action in actions_of(topology)], growth=episodes.growth.to_mapping())
    with torch.no_grad():
        policy.layers[-1].weight.zero_()
        policy.layers[-1].bias.copy_(torch.tensor([float(action == preferred) for action in policy.actions]))
    save_policy(policy, Path("preferred.safetensors"), {FACTS: {"episode": episodes.to_mapping()}})
    with start_run("register", Nothing()) as tracker:
        return register_policy(tracker, policy, Path("preferred.safetensors"), name=name, description="", tags={})


def test_a_new_policy_is_compared_with_the_champion_on_held_out_random_seeds(learned):
    _, part, _ = learned
    assert "is not promoted: its return minus the champion's: " in part["promotion"]
    assert "(paired t-test on 2 random seeds, p = " in part["promotion"]
    run = connect().get_run(part["run_id"])
    assert run.data.tags["metaopt.promotion"] == part["promotion"]
    assert {"val_return", "val_loss_over_twin", "champion_return"} <= run.data.metrics.keys()
    report = Path(connect().download_artifacts(part["run_id"], "report.md", ".")).read_text(encoding="utf-8")
    assert f"| {part['model_uri']} |" in report
    assert "| champion |" in report
    assert "random seeds 2000000 to 2000001" in report
    assert "2 held-out random seeds" in connect().get_model_version(NAME, "2").description
    assert champion_version(NAME) == 1


@pytest.mark.parametrize(
    ("topology", "seeds", "reason"),
    [
        ("transformer", 2, "cannot be compared: the policy was trained for other actions"),
        ("cnn", 0, "were not compared"),
    ],
)
def test_a_champion_that_is_not_compared_stays(learned, command_line, topology, seeds, reason):
    name = f"{topology}-champion"
    promote(name, register(name, "WAIT", topology), CHAMPION)
    arguments = ["--run-name", name, "--model-name", name, "--episodes", 2, "--comparison-seeds", seeds]
    made = _result(command_line("--json", *LEARN, *arguments))
    assert (
        f"version 2 of {name} is not promoted: version 1 stays champion, because the two {reason}"
        in (made["promotion"])
    )
    assert made["next"][-1] == f"metaopt evaluate-controller models:/{name}/2 --promote true"
    assert champion_version(name) == 1


def test_the_alias_moves_to_a_better_policy_and_to_no_other(learned, command_line):
    grows, waits = register("mine", "GERMINATE_CONV"), register("mine", "WAIT")

    def judge(version, *arguments):
        command = ["evaluate-controller", f"models:/mine/{version}", "--seeds", 3, "--promote", "true", *arguments]
        return _result(command_line("--json", *command))

    assert "is now champion: there was no champion yet" in judge(grows, "--against", "none")["promotion"]
    assert "it is the champion already" in judge(grows, "--against", "none")["promotion"]
    better = judge(waits, "--against", "heuristic,champion,schedule:conv@0.1")
    assert f"version {waits} of mine is now champion: its return minus the champion's: +" in better["promotion"]
    assert "below 0.05" in better["promotion"]
    assert champion_version("mine") == waits
    names = [f"models:/mine/{waits}", CHAMPION, "heuristic", "schedule:conv@0.1"]
    assert [row["controller"] for row in better["standings"]] == names
    assert better["figures"]["val_return"] == 0.0 > better["figures"]["champion_return"]
    worse = judge(grows)
    assert f"version {grows} of mine is not promoted: its return minus the champion's: -" in worse["promotion"]
    assert champion_version("mine") == waits
    tags = connect().get_run(worse["run_id"]).data.tags
    assert (tags["metaopt.phase"], tags["metaopt.judged"]) == ("evaluation", f"models:/mine/{grows}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no controller given"),
        (["heuristic"], "no policy at"),
        (["policy.safetensors", "--promote", "true"], "is not a registered version"),
        (["policy.safetensors", "--against", "nobody"], "the controller is 'nobody'"),
        (["bare.safetensors"], "states no training"),
    ],
)
def test_an_evaluation_that_is_not_possible_is_refused_before_a_run(learned, command_line, arguments, message):
    Path("policy.safetensors").write_bytes(Path(learned[0]["policy"]).read_bytes())
    save_policy(load_policy_file(Path("policy.safetensors")), Path("bare.safetensors"))
    before = len(connect().search_runs(["1"]))
    result = command_line("evaluate-controller", *arguments)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert len(connect().search_runs(["1"])) == before
