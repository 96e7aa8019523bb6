"""Objectives have known values for perfect and copied predictions, and finite gradients everywhere."""

import math

import pytest
import torch

from metaopt.core.rng import generator
from metaopt.metatraining.objectives import OBJECTIVES, log_loss_change, relative_error, score_predictions
from metaopt.metatraining.problem import InnerProblem
from metaopt.targets import get_target_model, target_config
from metaopt.tasks import Batch
from metaopt.trajectories import Recorder, Trajectory, WeightPair
from metaopt.weights.layout import Layout, WeightTensor

PAIRS = 3


@pytest.fixture
def problem(tmp_path):
    config = target_config("MLP", {"in_features": 64, "classes": 10}, {"widths": [8]})
    model = get_target_model("MLP", **config)
    run = {"task": "digits", "task_config": {}, "target_model": "MLP", "target_config": config}
    Recorder(tmp_path, run, Layout.of(model)).record(model, 0, 0, {})
    return InnerProblem.from_trajectory(Trajectory.open(tmp_path))


@pytest.fixture
def examples(problem):
    return problem.task.sample("meta", 32, generator(0))


@pytest.fixture
def pairs(problem):
    start = 0.2 * torch.randn(PAIRS, problem.layout.size)
    end = start + 0.1 * torch.randn_like(start)
    times = torch.zeros(PAIRS)
    return WeightPair(start, end, times, times + 10, start.unsqueeze(1), times.unsqueeze(1))


def test_the_relative_error_of_a_copy_is_one_and_of_the_truth_zero(problem, pairs):
    def error(predicted):
        return relative_error(predicted, pairs.end, pairs.start, problem.layout)

    torch.testing.assert_close(error(pairs.start), torch.ones(PAIRS))
    assert torch.equal(error(pairs.end), torch.zeros(PAIRS))
    torch.testing.assert_close(error((pairs.start + pairs.end) / 2), torch.full((PAIRS,), 0.25))


def test_every_tensor_counts_the_same_whatever_its_size_and_change(problem, pairs):
    names = [tensor.name for tensor in problem.layout.tensors]
    for name in names:
        predicted = problem.layout.unflatten(pairs.start.clone())
        predicted[name].copy_(problem.layout.unflatten(pairs.end)[name])
        flat = torch.cat([predicted[each].flatten(1) for each in names], 1)
        error = relative_error(flat, pairs.end, pairs.start, problem.layout)
        torch.testing.assert_close(error, torch.full((PAIRS,), 1 - 1 / len(names)))
    far = relative_error(100 * pairs.start, 100 * pairs.end, 99 * pairs.start, problem.layout)
    assert (far < 1.01).all()


def test_the_log_loss_change_of_a_copy_is_zero(problem, pairs, examples):
    assert torch.equal(log_loss_change(pairs.start, pairs.start, problem, examples), torch.zeros(PAIRS))


def test_the_log_loss_change_has_an_offset_in_both_losses(problem, pairs, examples):
    floor = 0.01 * problem.task.baseline_loss
    before, after = (problem.losses(weights, examples) + floor for weights in (pairs.start, pairs.end))
    change = log_loss_change(pairs.end, pairs.start, problem, examples)
    torch.testing.assert_close(change, (after / before).log())


def solved(problem, examples):
    """Examples of one class, and weights that predict it with a loss of zero."""
    of_class = examples.labels == examples.labels[0]
    weights = torch.zeros(1, problem.layout.size)
    list(problem.layout.split(weights))[-1][0, examples.labels[0]] = 1000.0
    return Batch(examples.inputs[of_class], examples.labels[of_class]), weights


def test_a_loss_of_zero_gives_finite_changes_and_gradients(problem, pairs, examples):
    shown, perfect = solved(problem, examples)
    start = pairs.start[:1]
    assert problem.losses(perfect, shown).item() == 0
    for predicted, copied in ((perfect, start), (start, perfect), (perfect, perfect)):
        predicted = predicted.clone().requires_grad_()
        change = log_loss_change(predicted, copied, problem, shown)
        change.sum().backward()
        assert change.isfinite().all()
        assert predicted.grad.isfinite().all()
    lowest = log_loss_change(perfect, torch.zeros_like(perfect), problem, shown).item()
    assert lowest == pytest.approx(math.log(0.01 / 1.01), abs=1e-3)


def test_no_gradient_flows_into_w_t(problem, pairs, examples):
    start = pairs.start.clone().requires_grad_()
    assert not log_loss_change(pairs.end, start, problem, examples).requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_weighted_sums(name, problem, pairs, examples):
    predicted = (pairs.start + 2 * pairs.end) / 3
    scores = score_predictions(predicted, pairs, problem.layout, OBJECTIVES[name], problem, examples)
    expected = {
        "weights": scores.relative_error,
        "task": scores.log_loss_change,
        "mix": OBJECTIVES["mix"].error * scores.relative_error + OBJECTIVES["mix"].task * scores.log_loss_change,
    }
    torch.testing.assert_close(scores.objective, expected[name])
    torch.testing.assert_close(scores.relative_error, torch.full((PAIRS,), 1 / 9))


def test_without_a_problem_only_weights_are_scored(problem, pairs):
    scores = score_predictions(pairs.end, pairs, problem.layout, OBJECTIVES["weights"], None, None)
    assert scores.log_loss_change is None
    assert torch.equal(scores.objective, torch.zeros(PAIRS))


def test_unchanged_tensors_do_not_count():
    layout = Layout((WeightTensor("moved", (3,), "float32"), WeightTensor("unused", (2,), "float32")))
    start = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]])
    end = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0]])
    assert relative_error(start, end, start, layout).item() == 1
    assert relative_error(start + 1e-3, end, start, layout).item() < 1
