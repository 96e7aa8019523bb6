"""`metaopt evaluate` as users run it: cases, a kill in the middle, and who becomes champion."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from torch import nn

from metaopt.core.config import Config
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import save_optimizer
from metaopt.tracking import champion_version, connect, load_optimizer, register_optimizer, start_run
from metaopt.weights.layout import Layout

CASE = """
task: digits
target_model: MLP
target_options: {widths: [16]}
learning_rates: [0.001, 0.003]
steps: 80
every: 40
stride: 20
seeds: 1
baselines: all
output: result.json
"""
LINE = "line.safetensors"
CACHE = Path("checkpoints/.evaluations")


@pytest.fixture(scope="module")
def case(module_store):
    Path("case.yaml").write_text(CASE)
    save_optimizer(get_optimizer_model("Line", history=3), Path(LINE))
    return ["evaluate", "--config", "case.yaml", "--optimizer", LINE]


def process(*arguments) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "metaopt.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def entries() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in CACHE.glob("*.safetensors")}


def figures(path) -> tuple[list, list]:
    result = json.loads(Path(path).read_text())
    curves = [(c["contender"], c["seed"], c["rate"], [p["loss"] for p in c["points"]]) for c in result["curves"]]
    return curves, result["predictions"]


def test_a_killed_evaluation_goes_on_and_ends_in_the_same_figures(case):
    killed = process(*case)
    deadline = time.monotonic() + 120
    while len(entries()) < 3:
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    there = entries()
    assert not Path("result.json").exists()
    assert process(*case).wait() == 0
    assert {name: entries()[name] for name in there} == there
    result = json.loads(Path("result.json").read_text())
    cached = {(c["contender"], c["seed"], c["rate"]) for c in result["curves"] if c["cached"]}
    assert ("hold", 1000, "0.001") in cached
    assert 0 < len(cached) < len(result["curves"])
    assert process(*case, "--cache-dir", "none", "--output", "whole.json").wait() == 0
    assert figures("result.json") == figures("whole.json")


def test_everything_is_in_the_store(command_line, case):
    Path("result.json").write_text("of an earlier evaluation")
    for output in ("result.json", "/dev/null", "."):
        refused = command_line(*case, "--output", output)
        assert refused.exit_code == 1
        assert f"{output} exists" in refused.output or f"{output} is no regular file" in refused.output
    assert Path("result.json").read_text() == "of an earlier evaluation"
    assert "is no regular file" in command_line(*case, "--output", "/dev/null", "--overwrite", "true").output
    result = command_line(*case, "--seeds", 1, "--overwrite", "true")
    assert result.exit_code == 0, result.output
    (run,) = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("metaopt").experiment_id],
        "tags.`metaopt.phase` = 'evaluation'",
        max_results=1,
    )
    kept = {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert {"evaluation.json", "contenders.csv", "report.md", "loss_curves.png"} <= kept
    assert {
        "val_loss",
        "speedup",
        "final_val_loss",
        "gain",
        "gain_zero_history",
        "best_baseline_val_loss",
    } <= run.data.metrics.keys()
    below = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    contenders = MlflowClient().search_runs([run.info.experiment_id], below)
    names = {each.info.run_name.partition(":")[0] for each in contenders}
    assert {"Adam alone", "RNA", "cosine", "schedule-free", "judged line + EMA"} <= names
    assert all("speedup" in each.data.metrics for each in contenders)


class Nothing(Config):
    """What a run needs to start."""


def register(optimizer, alias=None) -> int:
    with start_run("meta", Nothing()) as tracker:
        return register_optimizer(
            tracker,
            optimizer,
            [Layout.of(nn.Linear(4, 3))],
            name="tiny",
            description="for tests",
            tags={},
            stride=20.0,
            facts={},
            alias=alias,
        )


JUDGE = [
    *("--seeds", 5, "--steps", 240, "--every", 80, "--controls", "false"),
    *("--target-model", "MLP", "--promote", "true"),
]


def test_the_alias_moves_to_what_is_better_and_to_nothing_else(command_line, module_store):
    hold, line = register(get_optimizer_model("Hold")), register(get_optimizer_model("Line"))

    def judge(version):
        result = command_line("evaluate", "--optimizer", f"models:/tiny/{version}", *JUDGE)
        assert result.exit_code == 0, result.output
        return result.output

    assert champion_version("tiny") is None
    assert "is now champion: there was no champion yet" in judge(hold)
    assert champion_version("tiny") == hold
    assert "is not promoted: it is the champion already" in judge(hold)
    assert f"version {line} of tiny is now champion" in judge(line)
    assert champion_version("tiny") == line
    assert f"version {hold} of tiny is not promoted" in judge(hold)
    assert type(load_optimizer("models:/tiny@champion")).__name__ == "Line"
    runs = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("metaopt").experiment_id], "tags.`metaopt.promotion` LIKE '%promoted%'"
    )
    assert len(runs) == 2


MIXTURE = """
mlp: {task: digits, target_model: MLP, target_options: {widths: [8]}, rows: 2}
"""
QUICK = """
task: digits
target_model: MLP
steps: 40
every: 20
evaluate_every: 20
seeds: 2
controls: false
"""


def test_rounds_are_judged_and_promoted_by_one_command_only_if_they_are_better(command_line, module_store):
    Path("mixture.yaml").write_text(MIXTURE)
    Path("quick.yaml").write_text(QUICK)

    def rounds(seed):
        return command_line(
            *("train-optimizer", "--rounds", 1, "--mixture", "mixture.yaml", "--inner-steps", 60, "--every", 20),
            *("--optimizer-options", "dim=16 num_latents=4 latent_dim=16 heads=2 depth=1", "--model-name", "rounds"),
            *("--seed", seed, "--checkpoint-name", f"rounds_{seed}", "--promote-on", "quick.yaml"),
        )

    first = rounds(0)
    assert first.exit_code == 0, first.output
    assert "version 1 of rounds is now champion: there was no champion yet" in first.output
    second = rounds(1)
    assert "version 2 of rounds is not promoted" in second.output
    assert champion_version("rounds") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--promote-on", "nowhere.yaml"], "cannot read the configuration nowhere.yaml"),
        (["--promote-on", "wrong.yaml"], "did you mean MLP"),
        (["--promote-on", "quick.yaml", "--model-name", "none"], "no version is registered"),
    ],
)
def test_a_case_that_cannot_decide_is_refused_before_the_training(command_line, module_store, arguments, message):
    Path("mixture.yaml").write_text(MIXTURE)
    Path("quick.yaml").write_text(QUICK)
    Path("wrong.yaml").write_text("target_model: MPL")
    result = command_line("train-optimizer", "--rounds", 1, "--mixture", "mixture.yaml", *arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert not Path("checkpoints/mixture").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", LINE, "--promote", "true"], "is not a registered version; expected models:/<name>/<version>"),
        (["--optimizer", "models:/nobody@champion", "--promote", "true"], "models:/nobody@champion"),
        (["--optimizer", "models:/nobody@best"], "models:/nobody@best"),
        (["--optimizer", LINE, "--config", "unknown_parameter.yaml"], "did you mean task"),
        (["--optimizer", LINE, "--config", "unknown_task.yaml"], "did you mean digits"),
        (["--optimizer", LINE, "--config", "unknown_target.yaml"], "did you mean MLP"),
        (["--optimizer", LINE, "--config", "unknown_base.yaml"], "did you mean Adam"),
        (["--optimizer", LINE, "--seen", "nowhere"], "no trajectory 'nowhere'"),
    ],
)
def test_bad_input_is_refused(command_line, case, arguments, message):
    Path("unknown_parameter.yaml").write_text("tusk: digits")
    Path("unknown_task.yaml").write_text("task: digit")
    Path("unknown_target.yaml").write_text("target_model: MPL")
    Path("unknown_base.yaml").write_text("base_optimizer: Adan")
    assert connect()
    result = command_line("evaluate", *arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert "Traceback" not in result.output
