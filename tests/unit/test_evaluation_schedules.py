"""Schedules and other baselines with an end for each part of the budget, and the losses at these ends."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR

from metaopt.core.progress import NO_PROGRESS
from metaopt.evaluation import config
from metaopt.evaluation.baselines import BUDGET_BASELINES
from metaopt.evaluation.budget_runs import BudgetRun, budget_curve
from metaopt.evaluation.budgets import best_baseline, is_free, losses_at_budgets
from metaopt.evaluation.config import EvaluateConfig, budgets_of
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.evaluation.results import Comparison, Curve, Point
from metaopt.evaluation.schedules import DECAY, cosine, linear_decay
from metaopt.recording.training import train_step
from metaopt.tasks import load_task

STEPS = 40


@pytest.fixture(scope="module")
def setup():
    options = {"target_options": {"widths": [8]}, "base_optimizer": "Adam", "lr": 0.01}
    case = EvaluateConfig(target_model="MLP", steps=STEPS, every=8, stride=4, evaluate_every=5, **options)
    return RunSetup(case, load_task("digits"), 0)


def loss_after(setup, steps, rate_at):
    """The validation loss after some steps, with learning rates of our own."""
    model = setup.build()
    optimizer = setup.base_optimizer(model)
    batches = setup.batches()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate_at(step)
        train_step(model, optimizer, setup.task, next(batches), setup.device)
    return setup.validation_loss(setup.layout.read(model))


class Counted:
    """Counts steps."""

    def __init__(self):
        self.steps = 0

    def update(self, count=1, **figures):
        self.steps += count


@pytest.mark.parametrize("name", BUDGET_BASELINES)
def test_a_curve_is_measured_at_the_ends_of_its_budgets_only(setup, name):
    training, _ = BUDGET_BASELINES[name]
    curve = budget_curve(setup, name, training)
    assert curve.contender == name
    assert curve.steps == setup.config.measured_steps
    measured = [point for point in curve.points if not math.isnan(point.loss)]
    assert [point.step for point in measured] == [10, 20, 30, 40]
    assert all(later.seconds > sooner.seconds > 0 for sooner, later in itertools.pairwise(measured))
    again = budget_curve(setup, name, training)
    assert [point.loss for point in again.points if not math.isnan(point.loss)] == [point.loss for point in measured]


@pytest.mark.parametrize("name", BUDGET_BASELINES)
def test_the_steps_of_all_trainings_are_those_that_are_announced(setup, name):
    training, steps = BUDGET_BASELINES[name]
    bar = Counted()
    list(training(setup, bar))
    assert bar.steps == pytest.approx(steps * STEPS, abs=2)  # the length of a branch is rounded


@pytest.mark.parametrize("steps", [2, 3, 10])
@pytest.mark.parametrize("name", BUDGET_BASELINES)
def test_a_budget_may_be_of_few_steps(setup, name, steps):
    small = RunSetup(replace(setup.config, steps=steps, every=1, stride=1, evaluate_every=1), setup.task, 0)
    points = list(BUDGET_BASELINES[name].training(small, NO_PROGRESS))
    assert [point.step for point in points] == list(budgets_of(steps))
    assert all(math.isfinite(point.loss) for point in points)


@pytest.mark.parametrize("base", ["Adam", "AdamWScheduleFree"])
def test_a_branch_leaves_the_trunk_as_it_is(setup, base):
    setup = RunSetup(replace(setup.config, base_optimizer=base), setup.task, 0)
    alone, trunk = BudgetRun(setup), BudgetRun(setup)
    alone.train(setup.batches(), 8, NO_PROGRESS)
    batches = setup.batches()
    trunk.train(batches, 5, NO_PROGRESS)
    before = trunk.weights()
    branch = trunk.branch(partial(ConstantLR, factor=0.5))
    assert torch.equal(branch.weights(), before)
    branch.train(setup.batches(), 4, NO_PROGRESS)
    assert (trunk.steps, branch.steps) == (5, 9)
    assert not torch.equal(branch.weights(), before)
    assert torch.equal(trunk.weights(), before)
    trunk.train(batches, 3, NO_PROGRESS)
    assert torch.equal(trunk.weights(), alone.weights())


@pytest.mark.parametrize("name", ["linear decay", "trainable averaging"])
def test_branches_draw_no_random_numbers_of_the_trunk(setup, name, tmp_path, monkeypatch):
    layers = "nn.Flatten(), nn.Linear(in_features, 8), nn.Dropout(), nn.Linear(8, classes)"
    code = f"from torch import nn\n\ndef build(in_features, classes):\n    return nn.Sequential({layers})\n"
    (tmp_path / "dropping.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    dropping = RunSetup(
        replace(setup.config, target_model="dropping:build", target_options={}, stride=1), setup.task, 0
    )
    *_, after_branches = BUDGET_BASELINES[name].training(dropping, NO_PROGRESS)
    monkeypatch.setattr(config, "BUDGETS", (1.0,))
    (only,) = BUDGET_BASELINES[name].training(dropping, NO_PROGRESS)
    assert after_branches.loss == only.loss


@pytest.mark.parametrize("budget", [10, 20, 40])
def test_a_branch_equals_a_training_that_decays_at_its_end(setup, budget):
    curve = budget_curve(setup, "linear decay", linear_decay)
    length = round(DECAY * budget)
    expected = loss_after(setup, budget, lambda step: 0.01 * min(1.0, (budget - step) / length))
    assert curve.losses[curve.steps.index(budget)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("budget", [10, 40])
def test_cosine_ends_at_the_end_of_each_budget(setup, budget):
    curve = budget_curve(setup, "cosine", cosine)
    expected = loss_after(setup, budget, lambda step: 0.005 * (1 + math.cos(math.pi * step / budget)))
    assert curve.losses[curve.steps.index(budget)] == pytest.approx(expected, rel=1e-4)


def test_a_schedule_that_diverges_has_nan_losses(setup, caplog):
    wild = replace(setup.config, base_optimizer="SGD", lr=1e30)
    curve = budget_curve(RunSetup(wild, setup.task, 0), "cosine", cosine)
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
