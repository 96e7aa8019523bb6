"""A small main job, and all ways to use its optimizer."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

import metaopt

TINY = [
    "main", "--runs", 4, "--target-epochs", 2, "--optimizer-epochs", 1, "--pairs-per-epoch", 16,
    "--steps", 40, "--every", 20, "--seeds", 1, "--target-options", "widths=[8]",
]  # fmt: skip


@pytest.fixture(scope="module")
def printed(command_line):
    """Output of the main job; its trajectories, runs and model are in the working directory."""
    result = command_line(*TINY)
    assert result.exit_code == 0, result.output
    return result.output


def test_it_prints_a_table_and_the_next_commands(printed):
    for contender in ("Adam alone", "EMA", "line", "average", "perceiver"):
        assert f"\n{contender} " in printed
    assert "registered:  version 1 of metaopt-digits-MLP is now champion: there was no champion yet\n" in printed
    assert "\n  mlflow ui\n" in printed


def test_messages_of_mlflow_are_not_printed(printed):
    for note in ("Creating initial", "Successfully registered", "Failed to resolve", "Validating input"):
        assert note not in printed


def test_the_printed_command_works(printed, command_line):
    (line,) = [line for line in printed.splitlines() if "metaopt generate" in line]
    words = line.split()
    result = command_line(*words[words.index("generate") :])
    assert result.exit_code == 0, result.output
    model = metaopt.get_target_model("MLP", widths=[8], in_features=64)
    metaopt.load_model_weights(model, Path("next.safetensors"))


def test_all_phases_are_children_of_one_run(printed):
    client = mlflow.MlflowClient()
    runs = client.search_runs(["1"])
    (main,) = [run for run in runs if run.data.tags.get("metaopt.phase") == "main"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == main.info.run_id]
    free = ("Adam alone", "EMA 0.98", "EMA 0.99", "growing average", "LAWA", "RNA", "line", "average", "slopes")
    quick = (*free, "perceiver", "perceiver without EMA")
    phases = (
        "phase 1: record trajectories",
        "phase 2: evolve its gains on whole trainings",
        "phase 2: train the optimizer",
        "phase 3: evaluate on held-out random seeds",
    )
    assert sorted(run.info.run_name for run in below) == list(phases)
    (judge,) = [run for run in below if run.info.run_name == phases[-1]]
    contenders = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == judge.info.run_id]
    assert {run.info.run_name for run in contenders} == {f"{name}: MLP on digits" for name in quick}
    kept = {item.path for item in client.list_artifacts(judge.info.run_id)}
    assert {"report.md", "evaluation.json", "loss_curves.png", "steps_to_target.png", "nowcasts.png"} <= kept
    assert all(run.info.status == "FINISHED" for run in runs)
    learned = {run.info.run_id for run in runs if run.data.tags.get("metaopt.phase") == "target"}
    optimizers = [run for run in runs if run.data.tags.get("metaopt.phase") == "optimizer"]
    assert len(optimizers) == 2
    assert all(set(run.data.tags["metaopt.trajectory_runs"].split(",")) <= learned for run in optimizers)


def test_every_run_has_a_purpose_and_a_result(printed):
    for run in mlflow.MlflowClient().search_runs(["1"]):
        lines = run.data.tags["mlflow.note.content"].split("\n")
        assert len(lines) in (2, 3), run.info.run_name
        assert lines[1].startswith("**Result:** "), run.info.run_name
        assert "none yet" not in lines[1], run.info.run_name


def test_runs_of_one_kind_have_the_same_metrics(printed):
    runs = mlflow.MlflowClient().search_runs(["1"])
    seeds = [set(run.data.metrics) for run in runs if run.data.tags.get("metaopt.phase") == "target"]
    assert seeds == [{"train_loss", "val_loss", "val_accuracy", "seconds", "epoch", "final_val_loss"}] * 4
    (parent,) = [run.data.metrics for run in runs if run.data.tags.get("metaopt.phase") == "targets"]
    assert parent["final_val_loss"] == parent["val_loss"]
    contenders = [set(run.data.metrics) for run in runs if run.data.tags.get("metaopt.phase") == "contender"]
    shared = {"val_loss", "speedup", "speedup_early", "speedup_seconds", "steps_to_target", "final_val_loss"}
    assert all(shared <= metrics for metrics in contenders)
    assert all(
        shared | {"gain", "kept"} <= set(run.data.metrics)
        for run in runs
        if run.data.tags.get("metaopt.phase") in ("main", "evaluation")
    )


def test_the_version_describes_its_training_and_its_evaluation(printed):
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("metaopt-digits-MLP", "champion")
    runs = {run.info.run_id: run.info.run_name for run in client.search_runs(["1"])}
    assert runs[version.run_id] == "phase 2: evolve its gains on whole trainings"
    assert version.tags["trained_on"] == "MLP on digits"
    for words in ("MLP on digits", "like the recorded ones: digits/seed_", "Adam alone", "phase 3", "Limits"):
        assert words in version.description, words


def test_pyfunc_predicts_the_same_weights(printed):
    trajectory = metaopt.Trajectory.open(Path("trajectories/digits/seed_0"))
    steps = trajectory.steps[-2:]
    history = torch.stack([trajectory.weights(index) for index in (-2, -1)])
    optimizer = metaopt.load_optimizer("models:/metaopt-digits-MLP@champion")
    times = torch.tensor([list(map(float, steps))])
    expected = optimizer.predict(history[None], times, torch.tensor([99.0]), trajectory.layout)
    served = mlflow.pyfunc.load_model("models:/metaopt-digits-MLP@champion").predict(
        history.numpy(), params={"t_start": float(steps[1]), "t_end": 99.0, "stride": float(steps[1] - steps[0])}
    )
    assert served.dtype == np.float32
    assert served.shape == (1, trajectory.layout.size)
    np.testing.assert_allclose(served, expected.numpy(), rtol=1e-5, atol=1e-7)


def test_the_champion_can_be_evaluated_again(printed, command_line):
    result = command_line(
        "evaluate", "--steps", 40, "--every", 20, "--seeds", 1, "--controls", "false", "--target-model", "MLP",
        "--target-options", "widths=[8]", "--output", "result.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "\nperceiver " in result.output
    assert Path("result.json").is_file()
