"""Files, registered versions and plug-ins of metaopt 0.1.0 still work and give the same results."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient

import metaopt

HERE = Path(__file__).parents[1] / "golden" / "v0_1_0"
EXPECTED = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def old_runs(store):
    """A working folder with the trajectories and checkpoints of old runs, and an empty store."""
    for name in ("trajectories", "checkpoints"):
        shutil.copytree(HERE / name, store / name)
    return store


def history(trajectory):
    return torch.stack([trajectory.weights(index) for index in range(-3, 0)])[None]


def run(*arguments):
    from metaopt.cli import cli

    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result


def test_a_trajectory():
    trajectory = metaopt.Trajectory.open(HERE / "trajectories/old/seed_0")
    assert trajectory.digest == EXPECTED["digest"]
    assert trajectory.run == EXPECTED["run"]
    assert trajectory.task == EXPECTED["task"]
    assert trajectory.averaging == 0.9


def test_a_trajectory_with_frozen_weights_in_bfloat16():
    trajectory = metaopt.Trajectory.open(HERE / "trajectories/frozen/seed_0")
    assert {tensor.name for tensor in trajectory.layout.tensors} == {"classifier.weight", "classifier.bias"}
    assert "blocks.0.0.weight" in trajectory.frozen()


@pytest.mark.parametrize("name", ["builtin", "builtin-fast"])
def test_an_optimizer_predicts_the_same(name):
    trajectory = metaopt.Trajectory.open(HERE / "trajectories/old/seed_0")
    past, times = history(trajectory), torch.tensor([[15.0, 20.0, 30.0]])
    generated = metaopt.load_optimizer(name).predict(past, times, torch.tensor([90.0]), trajectory.layout)
    change = (generated - past[:, -1])[0, :8]
    torch.testing.assert_close(change, torch.tensor(EXPECTED[name]), rtol=1e-3, atol=1e-7)


def test_an_optimizer_file():
    assert metaopt.load_optimizer(HERE / "line.safetensors").history == 3


def test_a_checkpoint_of_phase_1_resumes_to_the_same_weights(old_runs):
    flags = ["--widths", 4, "--averaging", 0.9, "--space", ".*", "--snapshot-every", 10, "--keep-last", 4]
    run("train-target", "--run-name", "old", "--target-model", "MLP", "--epochs", 3, "--resume", *flags)
    trajectory = metaopt.Trajectory.open(old_runs / "trajectories/old/seed_0")
    assert trajectory.steps == EXPECTED["resumed_steps"]
    torch.testing.assert_close(trajectory.weights(-1)[:8], torch.tensor(EXPECTED["resumed"]))


def test_a_checkpoint_of_phase_2_resumes(old_runs):
    checkpoint = "checkpoints/old/PerceiverOptimizer_epoch_0.safetensors"
    size = "dim=8 num_latents=2 latent_dim=8 heads=1 hidden=8"
    flags = ["--pairs-per-epoch", 8, "--held-out", 1, "--optimizer-options", size, "--model-name", "none"]
    run("train-optimizer", "--run-name", "old", "--epochs", 1, "--resume-from", checkpoint, *flags)
    assert (old_runs / "checkpoints/old/PerceiverOptimizer_epoch_1.safetensors").is_file()


def test_a_registered_version(old_runs):
    client = MlflowClient()
    client.create_registered_model("old")
    shutil.copytree(HERE / "registered", old_runs / "registered")
    client.create_model_version("old", (old_runs / "registered").as_uri())
    optimizer = metaopt.load_optimizer("models:/old/1")
    trajectory = metaopt.Trajectory.open(HERE / "trajectories/old/seed_0")
    times, end = torch.tensor([[15.0, 20.0, 30.0]]), torch.tensor([90.0])
    ours = optimizer.predict(history(trajectory), times, end, trajectory.layout).numpy()
    np.testing.assert_allclose(ours[0, :8], EXPECTED["prediction"], rtol=1e-4)
    served = mlflow.pyfunc.load_model("models:/old/1")
    params = {"t_start": 30.0, "t_end": 90.0, "stride": 7.5}
    theirs = served.predict(history(trajectory)[0].numpy(), params=params)
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-6)


def test_the_state_of_a_nowcast_resumes_to_the_same_weights():
    from metaopt.trajectories.checkpoint import load_checkpoint

    state, _ = load_checkpoint(HERE / "nowcast.safetensors")
    task = metaopt.load_task("digits")
    model = metaopt.get_target_model("MLP", task.model_facts, widths=[4])
    model.load_state_dict(state["model"])
    held_out = task.splits["guard"][:64]
    optimizer = metaopt.Nowcast(
        torch.optim.Adam(model.parameters(), lr=1e-3),
        model,
        metaopt.get_optimizer_model("Slopes", averaging=0.9),
        every=4,
        stride=2,
        guard=lambda: task.losses(model(held_out.inputs), held_out.labels),
        max_overhead=None,
    )
    optimizer.load_state_dict(state["optimizer"])
    for _, (inputs, labels) in zip(range(6), task.batches(64, 0, 1), strict=False):
        optimizer.zero_grad()
        task.loss(model(inputs), labels).backward()
        optimizer.step()
    assert [list(event)[3:6] for event in optimizer.events] == [event[3:6] for event in EXPECTED["events"]]
    torch.testing.assert_close(optimizer.layout.read(model)[:8], torch.tensor(EXPECTED["nowcast"]))


def test_a_plug_in_package_with_the_old_groups_and_imports(old_runs, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(HERE / "plugin", site)
    project = tomllib.loads((site / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / "my_metaopt_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-metaopt-plugins\nVersion: 1.0\n")
    points = [
        line
        for group, named in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in named.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")
    code = f"""
import sys, warnings
sys.path[:0] = {[str(site), str(ROOT)]!r}
from metaopt.cli import cli
for words in (
    "train-target --run-name circles --task circles --target-model Ring --runs 4 --epochs 2",
    "train-optimizer --run-name circles --optimizer-model Momentum --epochs 1 --model-name none",
):
    cli(words.split(), standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=old_runs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
