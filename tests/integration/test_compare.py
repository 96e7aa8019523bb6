"""`metaopt compare` as a user runs it: a script, its verdict, its run, a kill, a failure, and other processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaopt.operations.jobs import State
from metaopt.operations.queue import JobQueue
from metaopt.tracking import connect

from ..killing import kill_once
from ..working import WorkerProcess

SCRIPT = """
import os
import time

import torch
from torch import nn

import metaopt


def train(trial):
    print("begins")
    if os.environ.get("BROKEN") == f"{trial.arm} {trial.seed}":
        raise RuntimeError("the data is gone")
    inputs = torch.randn(64, 4)
    targets = inputs.sum(1, keepdim=True).sin()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    loss = lambda: nn.functional.mse_loss(model(inputs), targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    line, options = metaopt.get_optimizer_model("Line"), {"every": 10, "stride": 5, "max_overhead": None}
    optimizer = trial.optimizer(optimizer, model, line, guard=loss, **options)
    for step in range(40):
        rows = torch.randperm(64)[:16]
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
        time.sleep(float(os.environ.get("PAUSE", 0)))
        if step % 10 == 9:
            trial.report(step + 1, loss())
    return lambda: {"loss": loss().item(), "worst": (model(inputs) - targets).abs().max()}


if __name__ == "__main__":
    raise AssertionError("a comparison is not a run of the script")
"""
COMMAND = ["compare", "fit.py:train", "--metric", "loss", "--seeds", "2"]


@pytest.fixture(scope="module", autouse=True)
def script(module_store):
    path = module_store / "fit.py"
    path.write_text(SCRIPT)
    return path


def result_of(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compared(command_line, script):
    return result_of(command_line("--json", *COMMAND, "--cache-dir", "whole"))


def values(result):
    return {each["name"]: each["values"] for each in result["contenders"]}


def test_the_result_has_a_verdict_and_a_row_for_each_kind_of_weights(compared):
    assert [*values(compared)] == ["plain", "EMA 0.9", "EMA 0.98", "EMA 0.99", "nowcast"]
    assert all(each.keys() == {"0", "1"} for each in values(compared).values())
    assert compared["lines"]["verdict"].startswith(compared["verdict"])
    assert [each["nowcasts"] for each in compared["nowcasts"]] == [4, 4]
    assert compared["difference"]["unit"] == "%"
    assert compared["failures"] == []
    assert compared["next"] == ["mlflow ui"]


def test_the_run_has_metrics_charts_reports_and_a_child_for_each_contender(compared):
    client = connect()
    run = client.get_run(compared["run_id"])
    assert run.info.run_name == "compare fit.py:train"
    assert run.data.params["seeds"] == "2"
    assert run.data.metrics["difference"] == pytest.approx(compared["difference"]["mean"])
    assert {"difference_low", "difference_seconds", "difference_to_average"} <= run.data.metrics.keys()
    assert compared["verdict"] in run.data.tags["mlflow.note.content"]
    files = {item.path for item in client.list_artifacts(compared["run_id"])}
    assert files >= {"comparison.json", "contenders.csv", "report.md", "report.html", "differences.svg"}
    assert "loss_curves.png" in files
    query = f"tags.`mlflow.parentRunId` = '{compared['run_id']}'"
    children = client.search_runs([run.info.experiment_id], query)
    assert {each.data.params["contender"] for each in children} == {*values(compared)}
    assert all("final_metric" in each.data.metrics for each in children)


def test_the_summary_shows_the_table_and_the_verdict(command_line, compared):
    done = command_line(*COMMAND, "--cache-dir", "whole")
    assert "loss (lower is better)" in done.stdout
    assert f"verdict:          {compared['lines']['verdict']}" in done.stdout
    assert "begins" not in done.output  # all trainings were stored


def test_another_metric_costs_no_training(command_line, compared):
    done = command_line("--json", *COMMAND, "--cache-dir", "whole", "--metric", "worst")
    assert "begins" not in done.output
    assert values(result_of(done))["plain"] != values(compared)["plain"]


def test_a_killed_comparison_goes_on_after_its_last_training(command_line, compared, module_store):
    command = [sys.executable, "-m", "metaopt.cli", *COMMAND, "--cache-dir", "killed"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    kill_once(process, lambda: [*module_store.glob("killed/*/nowcast_seed_0.json")])
    stored = {path: path.stat().st_mtime_ns for path in module_store.glob("killed/*/*.json")}
    resumed = result_of(command_line("--json", *COMMAND, "--cache-dir", "killed"))
    assert values(resumed) == values(compared)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_a_job_replaces_trainings_once_and_survives_a_kill(command_line, compared, module_store, monkeypatch):
    shutil.copytree("whole", "jobs")
    old = {path: path.stat().st_mtime_ns for path in Path("jobs").glob("*/*.json")}
    (first,) = [path for path in old if path.name == "nowcast_seed_0.json"]
    add = ["queue", "add", *COMMAND, "--cache-dir", "jobs", "--overwrite", "true"]
    result_of(command_line("--json", *add))
    monkeypatch.setenv("PAUSE", "0.01")
    worker = WorkerProcess(module_store, "--trust-config", "true")
    worker.start()
    try:
        with JobQueue() as queue:
            (job,) = queue.jobs()
            written = worker.wait_for(lambda: first.exists() and first.stat().st_mtime_ns > old[first] and first.stat())
            assert worker.kill_job(queue, job.id)
            worker.wait_for(lambda: queue.get(job.id).state in (State.DONE, State.FAILED))
            job = queue.get(job.id)
    finally:
        worker.kill()
    assert (job.state, job.attempt, job.failures) == (State.DONE, 2, 1), job.error
    assert job.steps > 40, "a training counts its steps, by which its job keeps its lease"
    assert first.stat().st_mtime_ns == written.st_mtime_ns, "the next attempt keeps what the first one stored"
    assert all(path.stat().st_mtime_ns > before for path, before in old.items())
    found = values(result_of(command_line("--json", *COMMAND, "--cache-dir", "jobs")))
    assert found == values(compared)


def test_trainings_in_processes_of_their_own_are_the_same(command_line, compared):
    done = subprocess.run(
        [sys.executable, "-m", "metaopt.cli", "--json", *COMMAND, "--seeds", "1", "--processes", "true"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = values(json.loads(done.stdout))  # what the script prints is not in stdout
    assert found == {name: {"0": each["0"]} for name, each in values(compared).items()}
    assert done.stderr.count("begins") == 2


def ended_job(command_line, folder, *words):
    """A job that compares, after a worker has run it."""
    number = result_of(command_line("--json", "queue", "add", *COMMAND, *words))["job"]["id"]
    worker = WorkerProcess(folder, "--trust-config", "true")
    worker.start()
    try:
        with JobQueue() as queue:
            worker.wait_for(lambda: queue.get(number).state in (State.DONE, State.FAILED))
            return queue.get(number)
    finally:
        worker.kill()


def test_a_training_that_raises_is_an_error_with_a_result_and_runs_again(command_line, compared, monkeypatch):
    monkeypatch.setenv("BROKEN", "nowcast 1")
    done = command_line("--json", *COMMAND, "--cache-dir", "broken")
    assert done.exit_code == 1
    (failure,) = json.loads(done.stdout)["failures"]
    assert (failure["arm"], failure["seed"]) == ("nowcast", 1)
    assert "the data is gone" in failure["reason"]
    assert "fit.py, line 14" in failure["reason"]
    job = ended_job(command_line, Path.cwd(), "--cache-dir", "broken")
    assert job.state is State.FAILED
    assert "the data is gone" in job.error
    monkeypatch.delenv("BROKEN")
    done = command_line("--json", *COMMAND, "--cache-dir", "broken")
    assert done.output.count("begins") == 1
    assert values(result_of(done)) == values(compared)


def test_a_function_that_is_refused_leaves_no_run(command_line, module_store):
    before = len(connect().search_runs(["0", "1"]))
    for words in (["fit.py:trian"], [], ["fit.py", "--forecaster", "nowhere"], ["fit.py", "--nowcast", "evry=3"]):
        done = command_line("compare", *words)
        assert done.exit_code == 1
        assert "Error: " in done.output
    assert len(connect().search_runs(["0", "1"])) == before


def test_a_file_names_no_function(command_line, module_store):
    Path("settings.yaml").write_text("train: fit.py:train\nseeds: 2\nmetric: loss\n")
    done = command_line("compare", "--config", "settings.yaml")
    assert done.exit_code == 1
    assert "a file must not run code" in done.output
    assert "--train fit.py:train" in done.output
    done = command_line("compare", "--config", "settings.yaml", "--trust-config", "true", "--cache-dir", "whole")
    assert done.exit_code == 0, done.output
