"""Baselines do what their papers say, and only that."""

import pytest
import torch

from metaopt.evaluation.baselines import TRAININGS, cosine, schedule_free
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import AverageObserver, HoldObserver, RunSetup, train_contender
from metaopt.evaluation.read_outs import (
    EMA,
    READ_OUTS,
    LastAverage,
    NonlinearAcceleration,
    combination,
)
from metaopt.generative.extrapolation import Hold
from metaopt.tasks import load_task


@pytest.fixture(scope="module")
def setup():
    config = EvaluateConfig(
        target_model="MLP", target_options={"widths": [8]}, steps=24, every=8, stride=4, evaluate_every=4, lr=0.01
    )
    return RunSetup(config, load_task("digits"), 0)


def taken(readout, *values):
    for value in values:
        readout.take(torch.tensor([float(value)]), snapshot=True)
    return readout.read().item()


def test_the_last_average_leaves_out_old_snapshots_and_the_initial_weights():
    assert taken(LastAverage(3), 100) == 100
    assert taken(LastAverage(3), 100, 2, 4) == 3
    assert taken(LastAverage(3), 100, 2, 4, 6, 8) == 6


def test_the_running_average_forgets_the_initial_weights():
    assert taken(EMA(0.5), 7) == 7
    assert taken(EMA(0.5), 100, 0) == 0
    assert taken(EMA(0.5), 100, 1, 4) == pytest.approx((1 * 0.25 + 4 * 0.5) / 0.75)


def test_acceleration_finds_the_fixed_point_of_a_linear_iteration():
    shrink, fixed = torch.diag(torch.tensor([0.9, 0.5])), torch.tensor([3.0, -2.0])
    path = [torch.zeros(2)]
    for _ in range(3):
        path.append(fixed + shrink @ (path[-1] - fixed))
    exact = combination(torch.stack(path).diff(dim=0), regularisation=1e-9) @ torch.stack(path[1:])
    assert exact.tolist() == pytest.approx(fixed.tolist(), abs=1e-3)


def test_acceleration_waits_for_three_snapshots():
    assert taken(NonlinearAcceleration(), 1, 2) == 2
    assert taken(NonlinearAcceleration(), 3, 3, 3) == pytest.approx(3)


def test_strong_regularisation_weighs_all_snapshots_alike():
    shares = combination(torch.randn(4, 9, generator=torch.Generator().manual_seed(0)), regularisation=1e6)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=1e-4)
    assert combination(torch.zeros(3, 9)).tolist() == pytest.approx([1 / 3] * 3)


def test_the_cosine_ends_at_nothing(setup):
    model = setup.build()
    optimizer = cosine(setup, model)
    rates = []
    for _ in range(setup.config.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    assert rates[0] == pytest.approx(0.01)
    assert rates[12] == pytest.approx(0.005)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_schedule_free_is_measured_at_the_weights_it_is_meant_to_be_used_with(setup):
    seen = []
    curve = train_contender(setup, "schedule-free", schedule_free, lambda step, weights, jumped: seen.append(weights))
    model = setup.build()
    optimizer = schedule_free(setup, model)
    for batch, _ in zip(setup.batches(), range(setup.config.steps), strict=False):
        optimizer.zero_grad()
        setup.task.loss(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    trained = setup.layout.read(model)
    optimizer.eval()
    used = setup.layout.read(model)
    assert torch.allclose(seen[-1], used, atol=1e-5)
    assert not torch.allclose(trained, used, atol=1e-4)
    assert curve.losses[-1] == pytest.approx(setup.loss_of(used), rel=1e-3)


@pytest.mark.parametrize("name", TRAININGS)
def test_each_training_starts_where_hold_does_and_learns(setup, name):
    curve = train_contender(setup, name, TRAININGS[name])
    assert curve.steps == [4, 8, 12, 16, 20, 24]
    assert curve.losses[-1] < curve.losses[0]


def test_the_average_of_a_nowcasting_twin_is_that_of_its_optimizer(setup):
    observer, movers = AverageObserver(setup), []

    def watch(step, weights, mover):
        observer(step, weights, mover)
        movers.append(mover)

    curve = train_contender(setup, "hold", Hold(), watch)
    averaged = observer.curve(curve)
    assert movers[-1].average.decay == 0.98
    assert averaged.contender == "EMA"
    assert averaged.steps == curve.steps
    with movers[-1].averaged_weights() as model:
        assert averaged.losses[-1] == setup.loss_of(setup.layout.read(model))
    assert averaged.losses[-1] != curve.losses[-1]


def test_snapshots_are_of_the_average_that_is_asked_for(setup):
    plain, averaged = HoldObserver(setup, {}), HoldObserver(setup, {}, averaging=0.5)
    for observer in (plain, averaged):
        train_contender(setup, "hold", watch=observer)
    assert plain.snapshots.keys() == averaged.snapshots.keys() == set(range(0, 25, 4))
    assert torch.equal(plain.snapshots[0], averaged.snapshots[0])
    assert not torch.equal(plain.snapshots[4], averaged.snapshots[4])


def test_every_baseline_of_the_protocol_is_there():
    assert {*READ_OUTS, *TRAININGS} == {"EMA 0.98", "EMA 0.99", "LAWA", "RNA", "cosine", "schedule-free"}
