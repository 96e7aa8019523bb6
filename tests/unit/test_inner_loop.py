"""Inner trainings: Adam, batches, histories, the EMA of the weights, and divergence."""

import torch

from metaopt.metatraining.inner_loop import InnerTrainings
from metaopt.nowcast import NowcastPolicy
from metaopt.weights.averaging import ExponentialMovingAverage


def trainings(component, rows=2, **changes):
    weights = torch.stack([component.problem.initial_weights(seed) for seed in range(rows)])
    settings = {"batch_size": 32, "policy": NowcastPolicy(5, 5), "history": 3, "averaging": 0.0, "seed": 7, **changes}
    return InnerTrainings(component.problem, weights, torch.tensor([1e-3, 1e-2])[:rows], **settings)


def test_adam_equals_that_of_torch(mlp):
    cohort = trainings(mlp)
    problem, start = mlp.problem, cohort.weights.clone()
    cohort.advance(30)
    parameters = [torch.nn.Parameter(row.clone()) for row in start]
    adams = [torch.optim.Adam([p], lr) for p, lr in zip(parameters, (1e-3, 1e-2), strict=True)]
    batches = trainings(mlp)._batches
    for _ in range(30):
        for parameter, adam in zip(parameters, adams, strict=True):
            adam.zero_grad()
            problem.losses(parameter.unsqueeze(0), next(batches)).sum().backward()
            adam.step()
    torch.testing.assert_close(cohort.weights, torch.stack([p.detach() for p in parameters]), atol=1e-5, rtol=1e-4)


def test_the_arguments_determine_the_trainings(mlp):
    one, same, other = trainings(mlp), trainings(mlp), trainings(mlp, seed=8)
    for each in (one, same, other):
        each.advance(10)
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)


def test_a_history_has_snapshots_of_the_ema_and_shifts_with_the_weights(mlp):
    cohort, plain = trainings(mlp, averaging=0.5), trainings(mlp)
    cohort.advance(10)
    plain.advance(10)
    history, times = cohort.history()
    assert times.tolist() == [[0, 5, 10]] * 2
    assert torch.equal(history[:, -1], cohort.averaged)
    assert torch.equal(cohort.weights, plain.weights)
    assert torch.equal(plain.averaged, plain.weights)
    assert not torch.equal(cohort.averaged, cohort.weights)
    before = cohort.weights
    cohort.shift(torch.tensor([True, False]), torch.ones_like(cohort.weights))
    moved, moved_times = cohort.history()
    assert torch.equal(moved_times, times)
    assert torch.equal(moved, history + torch.tensor([1.0, 0.0]).reshape(2, 1, 1))
    assert torch.equal(cohort.weights, before + torch.tensor([[1.0], [0.0]]))


def test_the_average_equals_that_of_nowcast(mlp):
    cohort = trainings(mlp, averaging=0.9)
    average = ExponentialMovingAverage(0.9)
    for _ in range(7):
        cohort.advance(1)
        average.update([cohort.weights])
    torch.testing.assert_close(cohort.averaged, average.tensors[0])


def test_a_diverged_training_stops(mlp):
    cohort = trainings(mlp)
    cohort.shift(torch.tensor([True, False]), torch.full_like(cohort.weights, float("nan")))
    cohort.advance(5)
    assert cohort.diverged.tolist() == [True, False]
    assert cohort.weights[1].isfinite().all()
