"""Schedules as baselines, and losses at the ends of the parts of the budget."""

import math

import pytest

from metaopt.evaluation.budgets import best_baseline, is_free, losses_at_budgets
from metaopt.evaluation.config import EvaluateConfig, budgets_of
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.evaluation.results import Comparison, Curve, Point
from metaopt.evaluation.schedules import DECAY, SCHEDULES, schedule_curve
from metaopt.recording.training import train_step
from metaopt.tasks import load_task

STEPS = 40


@pytest.fixture(scope="module")
def setup():
    options = {"target_options": {"widths": [8]}, "base_optimizer": "Adam", "lr": 0.01}
    config = EvaluateConfig(target_model="MLP", steps=STEPS, every=8, stride=4, evaluate_every=5, **options)
    return RunSetup(config, load_task("digits"), 0)


def loss_after(setup, steps, rate_at):
    """The validation loss after some steps, with learning rates of our own."""
    model = setup.build()
    optimizer = setup.base_optimizer(model)
    batches = setup.batches()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate_at(step)
        train_step(model, optimizer, setup.task, next(batches), setup.device)
    return setup.validation_loss(setup.layout.read(model))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_measured_at_the_ends_of_its_budgets_only(setup, name):
    curve = schedule_curve(setup, name)
    assert curve.contender == name
    assert curve.steps == setup.config.measured_steps
    assert [point.step for point in curve.points if not math.isnan(point.loss)] == [10, 20, 30, 40]
    assert schedule_curve(setup, name).losses[-1] == curve.losses[-1]


@pytest.mark.parametrize("budget", [10, 20, 40])
def test_a_branch_equals_a_training_that_decays_at_its_end(setup, budget):
    curve = schedule_curve(setup, "linear decay")
    length = round(DECAY * budget)
    expected = loss_after(setup, budget, lambda step: 0.01 * min(1.0, (budget - step) / length))
    assert curve.losses[curve.steps.index(budget)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("budget", [10, 40])
def test_cosine_ends_at_the_end_of_each_budget(setup, budget):
    curve = schedule_curve(setup, "cosine")
    expected = loss_after(setup, budget, lambda step: 0.005 * (1 + math.cos(math.pi * step / budget)))
    assert curve.losses[curve.steps.index(budget)] == pytest.approx(expected, rel=1e-4)


def test_a_schedule_that_diverges_has_nan_losses(setup, caplog):
    config = EvaluateConfig(
        target_model="MLP", steps=STEPS, every=8, stride=4, evaluate_every=5, base_optimizer="SGD", lr=1e30
    )
    curve = schedule_curve(RunSetup(config, setup.task, 0), "cosine")
    assert all(map(math.isnan, curve.losses))
    assert "the remaining losses of its curve are NaN" in caplog.text


def test_budgets_are_quarters():
    assert budgets_of(480) == (120, 240, 360, 480)
    assert budgets_of(10) == (2, 5, 8, 10)
    assert budgets_of(2) == (1, 2)


def comparison(losses):
    """Losses at steps 5 and 10, by contender, learning rate and random seed."""
    curves = [
        Curve(name, seed, (Point(5, first, 1.0), Point(10, last, 2.0)), rate=rate)
        for (name, rate), pairs in losses.items()
        for seed, (first, last) in enumerate(pairs)
    ]
    return Comparison({"steps": 10}, "learned", tuple(curves), ())


def test_each_contender_has_its_best_learning_rate_at_each_step():
    found = comparison(
        {
            ("hold", "0.1"): [(1.0, 0.9), (1.0, 0.9)],
            ("hold", "0.2"): [(1.2, 0.8), (1.2, 0.8)],
            ("SOAP", "0.1"): [(1.0, 0.4), (1.0, 0.6)],
            ("SOAP", "0.2"): [(math.nan, math.nan), (1.0, 0.1)],
            ("learned", "0.1"): [(0.5, 0.2), (0.5, 0.3)],
            ("learned", "0.2"): [(0.9, 0.9), (0.9, 0.9)],
        }
    )
    results = {(each.contender, each.step): each for each in losses_at_budgets(found, [5, 10])}
    assert (results["hold", 5].rate, results["hold", 10].rate) == ("0.1", "0.2")
    assert results["SOAP", 10].rate == "0.1"
    assert results["SOAP", 10].loss == pytest.approx(0.5)
    assert results["SOAP", 10].ratio is None
    assert best_baseline(found, 10) == "SOAP"
    assert results["learned", 10].ratio.mean == pytest.approx(0.5)


def test_only_contenders_without_nowcasts_are_baselines():
    assert all(map(is_free, ("EMA 0.98", "SOAP", "SOAP + average", "cosine", "schedule-free")))
    assert not any(
        map(
            is_free,
            (
                "hold",
                "LearnedSOAP",
                "LearnedSOAP + average",
                "slopes",
                "perceiver",
                "perceiver without guard",
                "learned + EMA",
            ),
        )
    )


def test_without_baselines_there_is_no_ratio():
    found = comparison({("hold", "0.1"): [(1.0, 0.9)], ("learned", "0.1"): [(0.5, 0.2)]})
    assert best_baseline(found, 10) is None
    assert [each.ratio for each in losses_at_budgets(found, [10])] == [None, None]
