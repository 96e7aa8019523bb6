"""The complete protocol on MNIST by the command line; it takes minutes, so run it with `pytest -m slow`."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

import metaopt
from metaopt.tasks.measure import measure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mnist(mnist_dir):
    return metaopt.load_task("mnist", data_dir=str(mnist_dir))


@pytest.fixture(scope="module")
def succeed(command_line):
    def run(*arguments) -> None:
        result = command_line(*arguments)
        assert result.exit_code == 0, result.output

    return run


@pytest.fixture(scope="module")
def runs(succeed, mnist_dir):
    """The run of phase 2 and the resumed run, after phase 1 recorded a training run and a held-out run."""
    record = ["train-target", "--task", "mnist", "--data-dir", mnist_dir, "--target-model", "TargetCNN", "--epochs", 10]
    train = ["train-optimizer", "--run-name", "cnn", "--training-mode", "permutation"]
    succeed(*record, "--run-name", "cnn")
    succeed(*record, "--run-name", "unseen", "--seed", 100)
    succeed(*train, "--epochs", 20)
    first = newest_optimizer_run()
    succeed(*train, "--epochs", 10, "--resume-from", first.info.run_id)
    return first, newest_optimizer_run()


def newest_optimizer_run():
    query = "tags.`metaopt.phase` = 'optimizer'"
    return MlflowClient().search_runs(["1"], query, order_by=["attributes.start_time DESC"])[0]


def history(run, metric: str) -> list[float]:
    points = MlflowClient().get_metric_history(run.info.run_id, metric)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def test_phase_1_records_the_initial_weights_and_each_epoch(runs):
    trajectory = metaopt.Trajectory.open(Path("trajectories/cnn/seed_0"))
    assert len(trajectory) == 11
    assert trajectory.layout.size == 421_642
    assert len(metaopt.WeightTrajectoryDataset([trajectory], "permutation")) == 55


def test_checkpoints_are_listed_with_the_run(runs):
    folders = [item.path for item in MlflowClient().list_artifacts(runs[0].info.run_id, "checkpoints")]
    assert folders == [f"checkpoints/epoch_{epoch:04d}" for epoch in (4, 9, 14, 19)]


def test_the_resumed_run_continues_epochs_and_loss(runs):
    first, second = runs
    assert history(first, "epoch") == list(range(20))
    assert history(second, "epoch") == list(range(20, 30))
    assert second.data.tags["resumed_from_run_id"] == first.info.run_id
    before, after = history(first, "train_objective"), history(second, "train_objective")
    assert sum(after) / len(after) < sum(before) / len(before)


def test_the_registered_optimizer_lowers_the_loss_of_an_unseen_run(runs, mnist):
    optimizer = metaopt.load_optimizer("models:/metaopt-mnist-TargetCNN@champion")
    trajectory = metaopt.Trajectory.open(Path("trajectories/unseen/seed_100"))
    model = metaopt.get_target_model("TargetCNN", mnist.model_facts)
    losses = []
    for last in range(1, 6):
        rows = range(max(0, last + 1 - optimizer.history), last + 1)
        times = torch.tensor([[float(trajectory.steps[row]) for row in rows]])
        snapshots = torch.stack([trajectory.weights(row) for row in rows])[None]
        end = torch.tensor([float(trajectory.steps[last + 1])])
        generated = optimizer.predict(snapshots, times, end, trajectory.layout)[0]
        losses.append(
            (loss_of(model, trajectory, generated, mnist), loss_of(model, trajectory, snapshots[0, -1], mnist))
        )
    assert sum(after < before for after, before in losses) >= 4, losses


def loss_of(model, trajectory, weights, task) -> float:
    model.load_state_dict(trajectory.layout.unflatten(weights), strict=False)
    return measure(model, task, task.splits["validation"].in_order(task.rows_at_once))["loss"]
