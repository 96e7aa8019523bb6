"""`metaopt queue`: adds, lists and steers jobs, as text and as JSON, and starts without torch and MLflow."""

import json
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from metaopt.cli import cli
from metaopt.operations.claims import Claims
from metaopt.operations.jobs import JobOptions, Owner, State
from metaopt.operations.queue import JobQueue


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METAOPT_QUEUE", raising=False)
    return tmp_path


def metaopt(*words):
    return CliRunner().invoke(cli, list(map(str, words)))


def facts(*words):
    result = metaopt(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_job_has_the_parameters_of_its_flags_and_of_its_file(folder):
    (folder / "run.yaml").write_text("epochs: 3\nseed: 4\n", encoding="utf-8")
    words = ["--config", "run.yaml", "--seed", 5, "--target-model", "MLP", "--widths", 8, "--name", "mine"]
    job = facts("queue", "add", "train-target", *words, "--priority", 2)["job"]
    assert (job["id"], job["name"], job["priority"], job["state"]) == (1, "mine", 2, "queued")
    assert {**job["config"], "epochs": 3, "seed": 5, "target_options": {"widths": "8"}} == job["config"]
    assert facts("queue", "show", 1)["job"] == job


def test_a_workflow_with_an_argument_takes_it_as_its_command_does(folder):
    job = facts("queue", "add", "register", "checkpoints/a.safetensors", "--after", "none")["job"]
    assert job["config"]["checkpoint"] == "checkpoints/a.safetensors"


def test_the_suggested_worker_trusts_a_job_that_runs_code(folder):
    assert facts("queue", "add", "compare", "fit.py:train")["next"][1] == "metaopt worker --trust-config true"
    assert facts("queue", "add", "train-target", "--queue", "queue.db")["next"][1] == "metaopt worker --queue queue.db"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "train-tarket"], "did you mean train-target"),
        (["add", "train-target", "--epoch", "2"], "did you mean --epochs"),
        (["add", "train-target", "--epochs", "none"], "epochs is"),
        (["add", "train-target", "--after", "3"], "there is no job 3"),
        (["list"], "there is no queue at"),
        (["show", "1"], "there is no queue at"),
        (["move", "1"], "give --priority or --after"),
    ],
)
def test_mistakes_are_one_line_and_store_nothing(folder, words, message):
    result = metaopt("queue", *words)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output
    if words[0] != "add":
        assert list(folder.iterdir()) == []
    else:
        assert not (folder / "queue.db").exists() or JobQueue().jobs() == []


def test_jobs_are_steered_by_their_ids(folder):
    with JobQueue() as queue:
        first, second = (queue.add("generate", {"optimizer": "builtin"}, JobOptions(name=name)).id for name in "ab")
        assert metaopt("queue", "pause", first, second).output == "job 1:  paused\njob 2:  paused\n"
        assert [job["state"] for job in facts("queue", "list", "--state", "paused")["jobs"]] == ["paused", "paused"]
        facts("queue", "resume", first, second)
        facts("queue", "move", second, "--priority", 7, "--after", "none")
        assert [job["id"] for job in facts("queue", "list")["jobs"]] == [2, 1]
        facts("queue", "move", first, "--after", second)
        facts("queue", "stop", second)
        assert "cannot run: job 2 is stopped" in metaopt("queue", "list").output
        facts("queue", "skip", first)
        facts("queue", "retry", first, second)
        assert queue.get(first).state is State.QUEUED
        result = metaopt("queue", "retry", first)
        assert (result.exit_code, result.output) == (1, "Error: job 1 is queued; expected one that is failed, skipped, "
                                                        "stopped\n")  # fmt: skip


def test_messages_of_a_job_are_printed_without_control_characters(folder):
    with JobQueue() as queue:
        claims, owner = Claims(queue), Owner("elsewhere", 1, "slot", None)
        queue.add("generate", {"optimizer": "builtin"})
        assert "it has not begun" in metaopt("queue", "logs", 1).output
        log = folder / "1.log"
        claims.begin(claims.claim(owner), owner, str(log))
        assert "1.log cannot be read (No such file or directory): it is on elsewhere; read it there" in (
            metaopt("queue", "logs", 1).output
        )
        assert "it is on the machine of attempt 2" in metaopt("queue", "logs", 1, "--attempt", 2).output
        here = Owner(socket.gethostname(), 1, "slot", None)
        claims.begin(queue.get(1), here, str(log))
        assert "it was written on this machine" in metaopt("queue", "logs", 1).output
        log.write_text("loss 0.3\n\x1b[2Jgone\n", encoding="utf-8")
        assert metaopt("queue", "logs", 1).output.splitlines()[:2] == ["loss 0.3", "\\x1b[2Jgone"]


def test_looking_at_a_queue_imports_neither_torch_nor_mlflow(folder):
    JobQueue().close()
    code = (
        "import sys; from metaopt.cli import cli; cli(['queue', 'list'], standalone_mode=False); "
        "print({'torch', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
