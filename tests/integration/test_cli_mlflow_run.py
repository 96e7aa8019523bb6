"""Both phases through `mlflow run`, which creates the run that the command continues."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
SMALL = "dim=16 num_latents=2 latent_dim=16 heads=2"


@pytest.fixture(scope="module")
def project(module_store):
    """A working directory with the files of the MLflow project."""
    for name in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, name)
    shutil.copytree(ROOT / "entrypoints", "entrypoints", ignore=shutil.ignore_patterns("__pycache__"))
    return module_store


def launch(entry_point: str, **parameters) -> subprocess.CompletedProcess:
    """Run `mlflow run . -e <entry point> -P <name>=<value> …` with the Python of this process."""
    words = [word for name, value in parameters.items() for word in ("-P", f"{name}={value}")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "--experiment-name", "launched"]
    return subprocess.run([*launcher, "-e", entry_point, *words], env=environment, capture_output=True, text=True)


def runs():
    """All runs, newest first."""
    return MlflowClient().search_runs(["1"], order_by=["attributes.start_time DESC"])


def test_both_phases_and_a_resume_by_run_id(project):
    Path("phase1.yaml").write_text("target_model: MLP\ntarget_options: {widths: [8]}\nepochs: 9\n", encoding="utf-8")
    done = launch("train_target", run_name="cnn", config="phase1.yaml", epochs=2, runs=2, lr="1e-3:2e-3")
    assert done.returncode == 0, done.stderr
    assert len(list(Path("trajectories/cnn").glob("seed_*/step_*.safetensors"))) == 6
    (launched,) = [run for run in runs() if "mlflow.parentRunId" not in run.data.tags]
    assert launched.data.params["epochs"] == "2"
    assert {run.info.status for run in runs()} == {"FINISHED"}

    small = {"run_name": "cnn", "optimizer_options": SMALL, "model_name": "none", "pairs_per_epoch": 8}
    done = launch("train_optimizer", epochs=2, held_out=1, **small)
    assert done.returncode == 0, done.stderr
    first = runs()[0]
    assert first.data.metrics["epoch"] == 1
    stored = MlflowClient().download_artifacts(first.info.run_id, "config.json", ".")
    assert json.loads(Path(stored).read_text(encoding="utf-8"))["epochs"] == 2

    done = launch("train_optimizer", epochs=1, held_out=1, resume_from=first.info.run_id, **small)
    assert done.returncode == 0, done.stderr
    second = runs()[0]
    assert [metric.value for metric in MlflowClient().get_metric_history(second.info.run_id, "epoch")] == [2]
    assert second.data.tags["resumed_from_run_id"] == first.info.run_id
    assert Path("checkpoints/cnn/PerceiverOptimizer_epoch_2.safetensors").is_file()


SCRIPT = """\
import torch


def train(trial):
    model = torch.nn.Linear(4, 1)
    optimizer = trial.optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, "builtin-fast")
    inputs = torch.randn(16, 4)
    for _ in range(4):
        optimizer.zero_grad()
        (model(inputs) - 1).square().mean().backward()
        optimizer.step()
    return model.bias.item()
"""


def test_a_training_of_the_user_is_compared_in_the_run_of_the_launcher(project):
    Path("my_script.py").write_text(SCRIPT, encoding="utf-8")
    count = len(runs())
    done = launch("compare", train="my_script.py:train", seeds=2)
    assert done.returncode == 0, done.stderr
    (launched,) = [run for run in runs()[: len(runs()) - count] if "mlflow.parentRunId" not in run.data.tags]
    assert launched.info.status == "FINISHED"
    assert launched.data.params["train"] == "my_script.py:train"
    assert "overhead" in launched.data.metrics


def test_an_error_fails_the_run_without_a_stack_trace(project):
    done = launch("train_target", target_model="TargetCN", no_such_flag=1)
    assert done.returncode != 0
    assert "no_such_flag" in done.stderr.replace("-", "_")
    assert runs()[0].info.status == "FAILED"
    assert "Traceback" not in done.stderr


def test_a_refused_command_leaves_the_reason_in_the_run_of_the_launcher(project):
    count = len(runs())
    done = launch("train_target", target_model="TargetCN")
    assert done.returncode != 0
    assert len(runs()) == count + 1, "only the run of the launcher"
    assert runs()[0].info.status == "FAILED"
    assert "did you mean TargetCNN?" in runs()[0].data.tags["metaopt.error"]
