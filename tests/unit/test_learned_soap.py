"""LearnedSOAP: that it is SOAP without a share of the gradient, its formula, batches of matrices, and its evolution."""

import json
import math

import pytest
import torch
from pytorch_optimizer import SOAP
from torch import nn

from benchmarks.learned_soap import evolve as evolution
from benchmarks.learned_soap.problems import Problem
from benchmarks.learned_soap.trainings import GAMMAS, Trainings
from metaopt.core.errors import InvalidConfig
from metaopt.optimizers import LearnedSOAP
from metaopt.optimizers.learned_soap import change_in_bases

AS_SOAP = {"momentum": 0.95, "gradient_weight": 0.0, "second_decay": 0.95, "basis_decay": 0.95, "output_rate": 1.0}
RULE = {"momentum": 0.8, "gradient_weight": 1.5, "second_decay": 0.9, "basis_decay": 0.9, "output_rate": 0.5}


def gradients(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def run(build, gradients, steps=None):
    weights = nn.Parameter(torch.zeros(gradients.shape[1:]))
    optimizer = build([weights])
    for gradient in gradients[:steps]:
        weights.grad = gradient.clone()
        optimizer.step()
    return weights.detach(), optimizer


@pytest.mark.parametrize("shape", [(5, 4), (6,), (4, 2, 2)])
def test_without_a_share_of_the_gradient_it_is_soap(shape):
    seen = gradients(25, *shape)
    ours, _ = run(lambda p: LearnedSOAP(p, lr=0.1, **AS_SOAP), seen)
    if len(shape) == 3:  # SOAP has a basis for each dimension, here it is a matrix
        seen = seen.flatten(2)
    library, _ = run(lambda p: SOAP(p, lr=0.1, weight_decay=0.0), seen)
    torch.testing.assert_close(ours.view_as(library), library, rtol=1e-3, atol=1e-4)


def test_a_vector_is_changed_by_momentum_and_gradient_over_the_root_of_the_second_moment():
    seen = gradients(4, 3)
    ours, _ = run(lambda p: LearnedSOAP(p, lr=0.1, **RULE), seen)
    first = second = torch.zeros(3)
    expected = torch.zeros(3)
    for updates, gradient in enumerate(seen[1:], start=1):  # the first step only measures
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        numerator = first / (1 - 0.8**updates) + 1.5 * gradient
        expected = expected - 0.1 * numerator / (second / (1 - 0.9**updates)).sqrt()
    torch.testing.assert_close(ours, expected)


def test_the_last_matrix_of_the_first_group_has_a_learning_rate_of_its_own():
    def changes(output_rate):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 2), (2, 3), (2,), (2, 2))]
        groups = [{"params": parameters[:3]}, {"params": parameters[3:]}]
        optimizer = LearnedSOAP(groups, lr=0.1, **{**RULE, "output_rate": output_rate})
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        return parameters

    for index, (one, three) in enumerate(zip(changes(1.0), changes(3.0), strict=True)):
        torch.testing.assert_close(three.detach(), one.detach() * (3.0 if index == 1 else 1.0))


def test_a_change_turns_with_the_gradients():
    seen = gradients(12, 5, 4)
    left, right = torch.linalg.qr(gradients(1, 5, 5, seed=1)[0])[0], torch.linalg.qr(gradients(1, 4, 4, seed=2)[0])[0]
    plain, _ = run(lambda p: LearnedSOAP(p, lr=0.1, **RULE), seen)
    turned, _ = run(lambda p: LearnedSOAP(p, lr=0.1, **RULE), left @ seen @ right)
    torch.testing.assert_close(turned, left @ plain @ right, rtol=1e-3, atol=1e-3)


def test_a_batch_of_matrices_with_numbers_of_their_own_is_changed_as_each_alone():
    numbers = [{**AS_SOAP, "lr": 0.1}, {**RULE, "lr": 0.2}]
    batched = {name: torch.tensor([one[name] for one in numbers]).view(2, 1, 1) for name in numbers[0]}
    shared = {"period": 3, "eps": 1e-8}
    states, state = [{}, {}], {}
    for gradient in gradients(10, 2, 5, 4):
        changes = change_in_bases(gradient, state, {**batched, **shared})
        for index, own in enumerate(numbers):
            alone = change_in_bases(gradient[index], states[index], {**own, **shared})
            torch.testing.assert_close(changes[index], alone, rtol=1e-3, atol=1e-4)


def test_a_large_dimension_has_no_basis():
    _, optimizer = run(lambda p: LearnedSOAP(p), gradients(2, 1100, 3))
    (state,) = optimizer.state.values()
    assert "left" not in state
    assert state["right"].shape == (3, 3)
    assert optimizer.largest_state() == 9


@pytest.mark.parametrize(
    ("option", "value"), [("gradient_weight", -1.0), ("basis_decay", 1.0), ("period", 0), ("output_rate", math.nan)]
)
def test_an_option_out_of_range_is_refused(option, value):
    with pytest.raises(InvalidConfig, match=f"{option} is"):
        LearnedSOAP([nn.Parameter(torch.zeros(2, 2))], **{option: value})


@pytest.fixture(scope="module")
def problem():
    return Problem("digits", "", {}, "MLP", {"widths": [8]}, 16)


def test_trainings_at_once_are_the_trainings_alone(problem):
    rules = [{**AS_SOAP, "lr": 0.01}, {**RULE, "lr": 0.02}]
    found = Trainings(problem, 3, rules).losses(12, 4)
    assert found.shape == (1 + len(GAMMAS), 2, 3)
    inputs, labels = problem.validation()
    for index, rule in enumerate(rules):
        model = problem.network(3)
        optimizer = LearnedSOAP(model.parameters(), **rule)
        for batch, _ in zip(problem.batches(3), range(12), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs), batch.labels.long()).backward()
            optimizer.step()
        loss = nn.functional.cross_entropy(model(inputs), labels.long())
        # many pixels of digits are always 0: rounding decides on the eigenvectors of these directions
        assert found[0, index, -1].item() == pytest.approx(loss.item(), rel=0.1)


def test_an_evolution_goes_on_after_its_last_generation(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(evolution, "STEPS", 16)
    monkeypatch.setattr(evolution, "EVERY", 4)
    kinds = {"perceptron": [problem]}
    evolution.evolve(kinds, tmp_path / "whole.jsonl", generations=3, population=4)
    evolution.evolve(kinds, tmp_path / "parts.jsonl", generations=2, population=4)
    evolution.evolve(kinds, tmp_path / "parts.jsonl", generations=3, population=4)
    whole, parts = [(tmp_path / f"{name}.jsonl").read_text() for name in ("whole", "parts")]
    assert whole == parts
    last = json.loads(whole.splitlines()[-1])
    assert set(last["numbers"]) == set(evolution.SOAP)
    assert len(last["scores"]) == 4


def test_the_start_of_the_evolution_is_soap():
    assert evolution.numbers([0.0] * len(evolution.SOAP)) == pytest.approx(evolution.SOAP)
