"""Look-ahead updates: which forecasts count, which weights follow, and the horizon of a forecast."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from metaopt.core.rng import generator
from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Line
from metaopt.metatraining.cohort import Cohort, OnlineSettings
from metaopt.metatraining.lookahead import forecast_at_best_horizon, lookahead_update
from metaopt.nowcast import NowcastPolicy

SMALL = {"dim": 16, "num_latents": 4, "latent_dim": 16, "heads": 2, "depth": 1}


def test_an_update_has_a_gradient_and_metrics(mlp):
    model = get_optimizer_model("PerceiverOptimizer", **SMALL)
    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    update = lookahead_update(model, cohort)
    update.objective.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert update.metrics["log_loss_change"] == pytest.approx(0, abs=1e-6)  # an untrained optimizer predicts no change
    assert update.metrics["kept"] == 1
    assert cohort.trainings.step > 20


def test_most_forecasts_use_the_horizon_with_the_lowest_loss(mlp):
    """Seven of ten; the others use a random horizon in between."""
    line, problem, policy = get_optimizer_model("Line"), mlp.problem, NowcastPolicy(10, 10, horizons=(10, 40))
    start = torch.stack([problem.initial_weights(seed) for seed in range(20)])
    examples = problem.task.sample("meta", 64, generator(2))
    given = start.clone().requires_grad_()
    problem.losses(given, examples).sum().backward()
    history = torch.stack([start, start - 0.1 * given.grad], 1)  # downhill: the longest horizon has the lowest loss
    times = torch.tensor([[90.0, 100.0]]).expand(20, -1)
    followed = forecast_at_best_horizon(line, history, times, policy, problem, examples, generator(3))
    ahead = 10 * (followed - history[:, 1]).norm(dim=1) / (history[:, 1] - history[:, 0]).norm(dim=1)
    best = (ahead - 40).abs() < 0.01
    assert 10 <= best.sum() < 20
    assert ((ahead > 10) & (ahead < 40))[~best].all()
    assert len(ahead[~best].round(decimals=2).unique()) == (~best).sum()
    early = forecast_at_best_horizon(
        line, history, torch.tensor([[30.0, 40.0]]).expand(20, -1), policy, problem, examples, generator(3)
    )
    ahead = 10 * (early - history[:, 1]).norm(dim=1) / (history[:, 1] - history[:, 0]).norm(dim=1)
    assert ahead.max() < 20.01, "at most half of the steps so far"


def test_a_memory_is_written_twice_however_many_horizons_there_are(mlp):
    """Once to compare the horizons, and once with gradients for the forecast."""

    class Solutions(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten.linalg_solve_triangular.default
            return function(*args, **(kwargs or {}))

    hope, policy = get_optimizer_model("HopeOptimizer", dim=8, keys=4), NowcastPolicy(10, 10, horizons=(10, 20, 40))
    history = torch.stack([mlp.problem.initial_weights(seed) for seed in range(10)]).unflatten(0, (2, 5))
    times = torch.arange(200.0, 250.0, 10.0).expand(2, -1)
    with Solutions() as solutions:
        examples = mlp.problem.task.sample("meta", 8, generator(2))
        forecast_at_best_horizon(hope, history, times, policy, mlp.problem, examples, generator(3))
    assert solutions.count == 2  # a write solves one triangular system


def test_a_harmful_forecast_is_rejected(mlp):
    class Wild(Line):
        def extrapolate(self, history, t_history, t_end, layout):
            return 100 * history[:, -1] + 50

    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    plain = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    update = lookahead_update(Wild(), cohort)
    plain.trainings.advance(cohort.trainings.step - plain.trainings.step)
    assert update.metrics["kept"] == 0
    assert update.objective == 0, "a rejected forecast has no gradient"
    assert torch.equal(cohort.trainings.weights, plain.trainings.weights)


def test_weights_do_not_follow_an_average_that_lags_behind_them(mlp):
    cohort = Cohort(mlp, OnlineSettings(600, NowcastPolicy(20, 10), history=5, averaging=0.999, examples=512), seed=3)
    cohort.trainings.advance(400)
    trainings = cohort.trainings
    lag = trainings.weights - trainings.averaged
    trainings.short_average.tensors[0] = trainings.weights + 5 * lag  # beyond the minimum

    class CatchUp(Line):
        def extrapolate(self, history, t_history, t_end, layout):
            return history[:, -1] + (trainings.weights - trainings.averaged)

    before = trainings.weights.clone()
    update = lookahead_update(CatchUp(), cohort)
    assert update.metrics["kept"] == 1
    assert update.metrics["followed"] == 0
    assert (trainings.weights - before).abs().max() < 1


def test_weights_follow_only_where_the_average_keeps_its_direction(mlp):
    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.9, examples=64), seed=3)
    trainings = cohort.trainings
    trainings.advance(60 - trainings.step)
    rows, still = len(trainings.weights), torch.zeros_like(trainings.weights)
    turns = torch.arange(rows) % 2 == 0
    ways = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).repeat(rows, 1)
    ways[turns] = torch.tensor([0.0, 1.0, 2.0, 3.0, 2.0])
    trainings._history = trainings.weights.unsqueeze(1) + ways.unsqueeze(-1)
    followed = trainings.follow(torch.ones(rows, dtype=torch.bool), still, cohort.draw_examples())
    assert torch.equal(followed, ~turns)


def test_without_averaging_weights_follow_every_accepted_forecast(mlp):
    cohort = Cohort(mlp, OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=0.0, examples=64), seed=3)
    trainings = cohort.trainings
    trainings.short_average.tensors[0] = trainings.weights + 100  # a high loss
    update = lookahead_update(Line(), cohort)
    assert update.metrics["followed"] == update.metrics["kept"] > 0
