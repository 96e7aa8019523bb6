"""Main job, resume and load against the server of docs/tracking_server.md: PostgreSQL, proxied artifacts, passwords."""

import base64
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from mlflow import MlflowClient

from benchmarks.operations.postgres import free_port, running

from ..postgres import postgres

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "tracking_server.md").read_text(encoding="utf-8")
ADMIN = ("admin", "battery staple 42")
ADA = ("ada", "correct horse 17")
BOB = ("bob", "another horse 18")
TARGET = ["--target-model", "MLP", "--target-options", "widths=[8]"]
TRIAL = ["--steps", 40, "--every", 20, "--seeds", 1]
MAIN = ["main", "--runs", 4, "--target-epochs", 2, "--optimizer-epochs", 1, "--pairs-per-epoch", 16, *TARGET, *TRIAL]
LOAD = """
from pathlib import Path
import mlflow, numpy, torch
import metaopt
from metaopt.tracking import fetch_trajectories

trajectory = metaopt.Trajectory.open(fetch_trajectories("digits", Path("trajectories"))[0])
t_start, stride = float(trajectory.steps[-1]), float(trajectory.steps[-1] - trajectory.steps[-2])
history = trajectory.weights(-1)[None]
learned = metaopt.load_optimizer("models:/metaopt-digits-MLP@champion")
model = mlflow.pyfunc.load_model("models:/metaopt-digits-MLP@champion")
direct = learned.predict(history[None], torch.tensor([[t_start]]), torch.tensor([t_start + stride]), trajectory.layout)
served = model.predict(history.numpy(), params={"t_start": t_start, "t_end": t_start + stride})
numpy.testing.assert_allclose(served, direct.numpy(), rtol=1e-5, atol=1e-7)
"""


def block_with(start: str) -> str:
    """The code block of the page that begins with a text."""
    (block,) = re.findall(rf"^```\w+\n({re.escape(start)}.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return block


def replace_all(text: str, replacements: dict[str, str]) -> str:
    for shown, real in replacements.items():
        text = text.replace(shown, real)
    return text


@pytest.fixture(scope="module")
def database():
    """The URI of a PostgreSQL server with two empty databases, for runs and for users."""
    for package in ("psycopg2", "flask_wtf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is missing; install psycopg2-binary and mlflow[auth]")
    with postgres("runs", "users") as url:
        yield url


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """Environment variables of a user with a name and a password on a tracking server."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    here = {"--port 5000": f"--port {port}", "postgresql+psycopg2://metaopt@127.0.0.1:5432": database}
    users, command = (replace_all(block, here) for block in (block_with("[mlflow]"), block_with("mlflow server")))
    (folder / "auth.ini").write_text(users, encoding="utf-8")
    common = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    common |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": "auth.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    url = f"http://127.0.0.1:{port}"
    start = [sys.executable, "-m", *shlex.split(command)]
    with running(start, folder / "log", lambda: responds(f"{url}/health"), env=common | settings, cwd=folder):
        for who in (ADA, BOB):
            make_user(url, *who)
        yield common | {"MLFLOW_TRACKING_URI": url} | as_user(ADA)


def responds(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def make_user(url: str, name: str, password: str) -> None:
    key = base64.b64encode(":".join(ADMIN).encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {key}"}
    text = json.dumps({"username": name, "password": password}).encode()
    with urlopen(Request(f"{url}/api/2.0/mlflow/users/create", text, headers)):
        pass


def as_user(who: tuple[str, str]) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": who[0], "MLFLOW_TRACKING_PASSWORD": who[1]}


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    """Runs Python in a folder by name; the folders are initially empty and independent."""
    folders: dict[str, Path] = {}

    def run_in(name: str, *words: Any, who: tuple[str, str] = ADA) -> subprocess.CompletedProcess:
        folder = folders.setdefault(name, tmp_path_factory.mktemp(name))
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=folder, env=server | as_user(who), capture_output=True, text=True)

    return run_in


@pytest.fixture(scope="module")
def metaopt(run):
    """Runs a metaopt command that must succeed, and returns its output."""

    def succeed(folder: str, *words: Any) -> str:
        result = run(folder, "-m", "metaopt.cli", *words)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout

    return succeed


@pytest.fixture(scope="module")
def main(metaopt):
    """The output of the main job; its results are on the server."""
    return metaopt("first", *MAIN)


@pytest.fixture
def client(server, monkeypatch):
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return MlflowClient(server["MLFLOW_TRACKING_URI"])


def test_the_main_job_registers_and_every_run_ends(main, client):
    assert "version 1 of metaopt-digits-MLP is now champion" in main
    assert "View run" not in main
    runs = client.search_runs([client.get_experiment_by_name("metaopt").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.info.artifact_uri.startswith("mlflow-artifacts:") for run in runs)


def test_another_folder_resumes_from_the_server(main, metaopt, client):
    experiment = client.get_experiment_by_name("metaopt").experiment_id
    (phase,) = client.search_runs([experiment], "tags.`metaopt.phase` = 'optimizer'")
    resumed = metaopt(
        "second", "train-optimizer", "--run-name", "digits", "--resume-from", phase.info.run_id, "--objective", "mix",
        "--epochs", 1, "--pairs-per-epoch", 16, "--model-name", "resumed",
    )  # fmt: skip
    assert "checkpoints/digits/PerceiverOptimizer_epoch_1.safetensors" in resumed
    assert client.get_model_version_by_alias("resumed", "champion").version == "1"
    (after,) = client.search_runs([experiment], f"tags.resumed_from_run_id = '{phase.info.run_id}'")
    assert after.data.metrics["epoch"] == phase.data.metrics["epoch"] + 1


def test_a_third_folder_loads_generates_and_evaluates(main, run, metaopt):
    loaded = run("third", "-c", LOAD)
    assert loaded.returncode == 0, loaded.stderr
    assert "next.safetensors" in metaopt("third", "generate", "--trajectory", "trajectories/digits/seed_0")
    evaluated = metaopt("third", "evaluate", "--controls", "false", *TARGET, *TRIAL)
    assert "\nperceiver " in evaluated


@pytest.mark.parametrize(
    ("who", "message"),
    [
        (("ada", "wrong"), "MLFLOW_TRACKING_PASSWORD"),
        (BOB, "choose names of your own (MLFLOW_EXPERIMENT_NAME"),  # who may read the experiment that ada made
    ],
    ids=["a wrong password", "no right to write"],
)
def test_the_message_explains_denied_access(main, run, who, message):
    denied = run("fourth", "-m", "metaopt.cli", "train-target", "--run-name", "x", "--epochs", 1, who=who)
    assert denied.returncode == 1
    assert denied.stderr.startswith("Error: ")
    assert message in denied.stderr
    assert "Traceback" not in denied.stderr
