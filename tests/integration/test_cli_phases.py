"""Both phases through the command line; a stopped training resumes to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import torch
from mlflow import MlflowClient

import metaopt
from metaopt.cli import cli
from metaopt.cli.options import without_defaults

SMALL = "dim=16 num_latents=2 latent_dim=16 heads=2 hidden=16"
RECORD = ["train-target", "--target-model", "MLP", "--target-options", "widths=[8]", "--epochs", 3]
LEARN = ["train-optimizer", "--run-name", "recorded", "--optimizer-options", SMALL, "--pairs-per-epoch", 16,
         "--checkpoint-every", 1, "--model-name", "none"]  # fmt: skip


@pytest.fixture(scope="module")
def succeed(command_line):
    """Runs a command that must succeed and returns its output."""

    def run(*arguments) -> str:
        result = command_line(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    return run


@pytest.fixture(scope="module")
def recorded(succeed):
    """Four trajectories in the working directory."""
    succeed(*RECORD, "--run-name", "recorded", "--runs", 4, "--lr", "1e-3:4e-3")
    return Path("trajectories/recorded")


@pytest.fixture(scope="module")
def whole(succeed, recorded):
    """The checkpoints of an optimizer after three epochs without a stop."""
    succeed(*LEARN, "--checkpoint-name", "whole", "--epochs", 3)
    return checkpoints("whole")


def checkpoints(name: str) -> dict[str, bytes]:
    """The contents of all checkpoints of a name, by file."""
    return {path.name: path.read_bytes() for path in sorted(Path("checkpoints", name).glob("*.safetensors"))}


def newest_run(phase: str):
    query = f"tags.`metaopt.phase` = '{phase}'"
    return MlflowClient().search_runs(["1"], query, order_by=["attributes.start_time DESC"])[0]


def test_a_trajectory_is_rebuilt_from_the_configuration_of_its_run(succeed, recorded):
    run = newest_run("target")
    seed = run.data.tags["metaopt.seed"]
    config = MlflowClient().download_artifacts(run.info.run_id, "config.json", ".")
    assert json.loads(Path(config).read_text(encoding="utf-8"))["epochs"] == 3
    succeed("train-target", "--config", config, "--run-name", "rebuilt")
    for path in (recorded / f"seed_{seed}").glob("*.safetensors"):
        rebuilt = Path("trajectories/rebuilt", f"seed_{seed}", path.name)
        assert torch.equal(load(rebuilt), load(path)), path.name


def load(path: Path) -> torch.Tensor:
    model = metaopt.get_target_model("MLP", widths=[8], in_features=64)
    metaopt.load_model_weights(model, path)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_flags_override_a_file_and_have_two_spellings(succeed, recorded):
    Path("settings.yaml").write_text(
        "run-name: from_file\nepochs: 1\nlr: 1e-2:2e-2\ntarget_model: MLP\ntarget_options: {widths: [4]}\n",
        encoding="utf-8",
    )
    succeed("train-target", "--config", "settings.yaml", "--run_name", "from flag", "--seed", 7)
    config = metaopt.Trajectory.open(Path("trajectories/from flag/seed_7"))
    assert config.run["target_config"]["widths"] == [4]
    assert 1e-2 < config.run["lr"] < 2e-2


def test_defaults_that_mlflow_passes_do_not_override_a_file():
    """`mlflow run` passes every parameter."""
    command = cli.get_command(click.Context(cli), "train-target")
    given = ["--run-name", "target", "--lr", "0.01", "--config", "none", "--resume", "false", "--unknown_flag", "1"]
    assert without_defaults(command, given) == ["--lr", "0.01", "--unknown_flag", "1"]
    assert without_defaults(command, ["--help"]) == ["--help"]


def test_a_training_resumed_from_a_run_equals_one_without_a_stop(succeed, whole):
    succeed(*LEARN, "--checkpoint-name", "parts", "--epochs", 2)
    first = newest_run("optimizer")
    succeed(*LEARN, "--checkpoint-name", "parts", "--epochs", 1, "--resume-from", first.info.run_id)
    assert checkpoints("parts") == whole
    second = newest_run("optimizer")
    assert second.data.tags["resumed_from_run_id"] == first.info.run_id
    assert second.data.metrics["epoch"] == 2
    assert second.data.metrics.keys() == first.data.metrics.keys()


def test_a_training_resumed_from_a_file_equals_one_without_a_stop(succeed, whole):
    source = "checkpoints/whole/PerceiverOptimizer_epoch_0.safetensors"
    succeed(*LEARN, "--checkpoint-name", "rest", "--epochs", 2, "--resume-from", source)
    assert checkpoints("rest") == {name: whole[name] for name in whole if not name.endswith("epoch_0.safetensors")}


def test_a_killed_training_resumes_to_the_same_bits(succeed, whole):
    arguments = [*LEARN, "--checkpoint-name", "killed", "--epochs", 1000]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "metaopt.cli", *map(str, arguments)], env=environment, stderr=subprocess.DEVNULL
    )
    wait_for("checkpoints/killed/PerceiverOptimizer_epoch_0.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = len(checkpoints("killed")) - 1
    source = f"checkpoints/killed/PerceiverOptimizer_epoch_{last}.safetensors"
    succeed(*LEARN, "--checkpoint-name", "killed", "--epochs", 1, "--resume-from", source)
    succeed(*LEARN, "--checkpoint-name", "never killed", "--epochs", last + 2)
    assert checkpoints("killed") == checkpoints("never killed")


def wait_for(path: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not Path(path).exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_generated_weights_load_into_the_target(succeed, recorded, whole):
    trajectory = recorded / "seed_0"
    last = metaopt.Trajectory.open(trajectory).steps[-1]
    checkpoint = "checkpoints/whole/PerceiverOptimizer_epoch_2.safetensors"
    printed = succeed("generate", "--optimizer", checkpoint, "--trajectory", trajectory, "--t-end", last + 10)
    assert f"weights for step {last + 10}, from step {last}: next.safetensors" in printed
    generated = load(Path("next.safetensors"))
    assert generated.isfinite().all()
    assert not torch.equal(generated, metaopt.Trajectory.open(trajectory).weights(-1))


def test_ctrl_c_prints_how_to_resume(command_line, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("metaopt.recording.record.PreparedRecording.run", interrupted)
    result = command_line(*RECORD, "--run-name", "interrupted")
    assert result.exit_code == 130
    assert "what was written is kept; resume with the same command and `--resume true`" in result.output
    everything = MlflowClient().search_runs(["1"], order_by=["attributes.start_time DESC"])
    assert everything[0].info.status == "KILLED"


@pytest.fixture(scope="module")
def registered(succeed, whole) -> str:
    """The second of the three checkpoints as a registered version."""
    made = succeed("register", "checkpoints/whole/PerceiverOptimizer_epoch_1.safetensors", "--json")
    return json.loads(made)["model_uri"]


def test_a_lineage_leads_from_a_version_to_the_data(succeed, registered):
    shown = json.loads(succeed("lineage", registered, "--check", "--output", "chain", "--json"))
    kinds = [node["kind"] for node in shown["nodes"]]
    assert kinds == ["model", "checkpoint", *["trajectory"] * 4, "data set"]
    assert shown["problems"] == []
    assert all(Path(path).exists() for path in shown["drawings"])


def test_a_lineage_goes_on_in_the_store_where_files_are_gone(succeed, command_line, registered, tmp_path):
    elsewhere = ("--checkpoint-dir", tmp_path, "--trajectory-dir", tmp_path, "--output", tmp_path / "chain")
    tree = succeed("lineage", registered, "--check", *elsewhere)
    assert tree.count("in run ") == 5  # four trajectories and the checkpoint
    run_id = newest_run("registration").info.run_id
    failed = command_line("lineage", run_id, *elsewhere)
    assert failed.exit_code == 1
    assert "has no checkpoint with a ledger entry" in failed.output


def test_registered_checkpoints_are_not_pruned(succeed, registered):
    strict = ("prune", "--keep-latest", 1, "--keep-days", 0, "--json")
    decisions = {each["path"]: each for each in json.loads(succeed(*strict))["decisions"]}
    assert decisions["whole/PerceiverOptimizer_epoch_1.safetensors"]["reason"] == f"registered as {registered}"
    assert "mlflow" not in {Path(path).parts[0] for path in decisions}


def test_the_ledger_lists_and_checks_checkpoints(succeed, command_line, whole, tmp_path):
    assert "whole/PerceiverOptimizer_epoch_2.safetensors" in succeed("ledger")
    path = tmp_path / "net.safetensors"
    for ending in ("", ".json"):
        source = Path(f"checkpoints/whole/PerceiverOptimizer_epoch_2.safetensors{ending}")
        Path(f"{path}{ending}").write_bytes(source.read_bytes())
    failed = command_line("ledger", "--checkpoint-dir", tmp_path, "--check")
    assert failed.exit_code == 1
    assert "is the sidecar of another file" in failed.output
