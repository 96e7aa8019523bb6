"""Baselines implement the formulas of their papers."""

from dataclasses import replace

import pytest
import torch

from metaopt.evaluation.baselines import (
    AVERAGED,
    BUDGET_BASELINES,
    DERIVED_BASELINES,
    LEARNED_BASES,
    TRAINED_BASELINES,
)
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.observers import AverageObserver, HoldObserver, ReadOutObserver
from metaopt.evaluation.paired_runs import RunSetup, train_contender
from metaopt.evaluation.read_outs import (
    EMA,
    GrowingAverage,
    LatestWeightAverage,
    NonlinearAcceleration,
    rna_coefficients,
)
from metaopt.generative.extrapolation import Hold
from metaopt.optimizers import BASE_OPTIMIZERS, PrimalAveraging, build_optimizer, without_momentum
from metaopt.tasks import load_task

NOT_AROUND = {"EMANesterov", "LBFGS", "OuterNesterov", "PrimalAveraging", "SparseAdam"} | {
    name for name in BASE_OPTIMIZERS.names() if name.endswith("ScheduleFree")
}
"""Base optimizers around which there can be no other, with or without their momentum."""


@pytest.fixture(scope="module")
def setup():
    config = EvaluateConfig(
        target_model="MLP", target_options={"widths": [8]}, steps=24, every=8, stride=4, evaluate_every=4, lr=0.01
    )
    return RunSetup(config, load_task("digits"), 0)


def derived_from(values, derived):
    for value in values:
        derived.update(torch.tensor([float(value)]), snapshot=True)
    return derived.weights().item()


def test_lawa_averages_the_last_snapshots_without_the_initial_weights():
    assert derived_from([100], LatestWeightAverage(3)) == 100
    assert derived_from([100, 2, 4], LatestWeightAverage(3)) == 3
    assert derived_from([100, 2, 4, 6, 8], LatestWeightAverage(3)) == 6


def test_the_running_average_ignores_the_initial_weights():
    assert derived_from([7], EMA(0.5)) == 7
    assert derived_from([100, 0], EMA(0.5)) == 0
    assert derived_from([100, 1, 4], EMA(0.5)) == pytest.approx((1 * 0.25 + 4 * 0.5) / 0.75)


def test_the_growing_average_is_a_weighted_mean_of_all_weights():
    assert derived_from([7], GrowingAverage()) == 7
    assert derived_from([100, 3], GrowingAverage()) == 3
    assert derived_from([100, 1, 2, 6], GrowingAverage(0)) == pytest.approx(3)  # the mean of all steps
    third = 1 + 3 / 4 * (2 - 1)  # γ = 2: the shares of the second and third weights are 3/4 and 3/5
    assert derived_from([100, 1, 2, 6], GrowingAverage(2)) == pytest.approx(third + 3 / 5 * (6 - third))


def test_the_growing_average_covers_a_share_of_the_steps():
    average = GrowingAverage(8)
    for step in range(1001):
        average.update(torch.tensor([float(step)]), snapshot=False)
    assert average.weights().item() == pytest.approx(1000 * 9 / 10, rel=0.01)


def test_acceleration_finds_the_fixed_point_of_a_linear_iteration():
    shrink, fixed = torch.diag(torch.tensor([0.9, 0.5])), torch.tensor([3.0, -2.0])
    path = [torch.zeros(2)]
    for _ in range(3):
        path.append(fixed + shrink @ (path[-1] - fixed))
    exact = rna_coefficients(torch.stack(path).diff(dim=0), regularisation=1e-9) @ torch.stack(path[1:])
    assert exact.tolist() == pytest.approx(fixed.tolist(), abs=1e-3)


def test_acceleration_needs_three_snapshots():
    assert derived_from([1, 2], NonlinearAcceleration()) == 2
    assert derived_from([3, 3, 3], NonlinearAcceleration()) == pytest.approx(3)


def test_strong_regularisation_gives_equal_coefficients():
    coefficients = rna_coefficients(torch.randn(4, 9, generator=torch.Generator().manual_seed(0)), regularisation=1e6)
    assert coefficients.tolist() == pytest.approx([0.25] * 4, abs=1e-4)
    assert rna_coefficients(torch.zeros(3, 9)).tolist() == pytest.approx([1 / 3] * 3)


def test_schedule_free_is_measured_at_its_evaluation_weights(setup):
    seen = []
    build = TRAINED_BASELINES["schedule-free"]
    curve = train_contender(setup, "schedule-free", build, lambda step, weights, optimizer: seen.append(weights))
    model = setup.build()
    optimizer = build(setup, model)
    for batch, _ in zip(setup.batches(), range(setup.config.steps), strict=False):
        optimizer.zero_grad()
        setup.task.loss(model(batch.inputs), batch.labels).backward()
        optimizer.step()
    trained = setup.layout.read(model)
    optimizer.eval()
    evaluated = setup.layout.read(model)
    assert torch.allclose(seen[-1], evaluated, atol=1e-5)
    assert not torch.allclose(trained, evaluated, atol=1e-4)
    assert curve.losses[-1] == pytest.approx(setup.validation_loss(evaluated), rel=1e-3)


@pytest.mark.parametrize("name", {**TRAINED_BASELINES, **LEARNED_BASES})
def test_each_other_training_rule_learns(setup, name):
    curve = train_contender(setup, name, {**TRAINED_BASELINES, **LEARNED_BASES}[name])
    assert curve.steps == [4, 6, 8, 12, 16, 18, 20, 24]
    assert curve.losses[-1] < curve.losses[0]


@pytest.mark.parametrize(
    ("base", "options", "expected"),
    [
        ("Adam", {}, {"betas": (0.0, 0.999)}),
        ("Adam", {"betas": [0.8, 0.95], "eps": 1e-6}, {"betas": (0.0, 0.95), "eps": 1e-6}),
        ("SOAP", {}, {"betas": (0.0, 0.95)}),
        ("SGD", {"momentum": 0.9}, {"momentum": 0.9}),
        ("RMSprop", {"alpha": 0.9}, {"alpha": 0.9}),
        ("Adagrad", {"eps": 1e-9}, {"eps": 1e-9}),
    ],
)
def test_a_base_optimizer_without_momentum_keeps_its_other_options(base, options, expected):
    assert without_momentum(base, options) == expected


@pytest.mark.parametrize("base", [name for name in BASE_OPTIMIZERS.names() if name not in NOT_AROUND])
def test_primal_averaging_goes_around_base_optimizers_without_their_momentum(base):
    weights = torch.nn.Parameter(torch.ones(3, 2))
    options = {"base": base, "base_options": without_momentum(base, {})}
    optimizer = build_optimizer("PrimalAveraging", [weights], 0.01, options)
    for _ in range(3):
        weights.grad = torch.ones_like(weights)
        optimizer.step()
    assert not torch.equal(weights, torch.ones(3, 2))


def test_primal_averaging_has_no_other_momentum_than_its_average(setup):
    optimizer = TRAINED_BASELINES["primal averaging"](setup, setup.build())
    assert isinstance(optimizer, PrimalAveraging)
    (group,) = optimizer.param_groups
    assert (group["betas"], group["lr"]) == ((0.0, 0.999), 0.01)
    assert (group["average_decay"], group["interpolation"]) == (0.98, 0.7)
    options = {"base_optimizer": "AdamW", "base_optimizer_options": {"betas": [0.8, 0.99], "weight_decay": 0.1}}
    of_adamw = RunSetup(replace(setup.config, **options), setup.task, 0)
    (group,) = TRAINED_BASELINES["primal averaging"](of_adamw, of_adamw.build()).param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.0, 0.99), 0.1)
    (group,) = TRAINED_BASELINES["EMA-Nesterov"](of_adamw, of_adamw.build()).param_groups
    assert group["betas"] == (0.8, 0.99)


def test_the_average_of_a_nowcasting_run_is_that_of_its_optimizer(setup):
    observer, optimizers = AverageObserver(setup), []

    def observe(step, weights, optimizer):
        observer(step, weights, optimizer)
        optimizers.append(optimizer)

    curve = train_contender(setup, "hold", Hold(), observe)
    averaged = observer.curve(curve)
    assert optimizers[-1].average.decay == 0.98
    assert averaged.contender == "EMA"
    assert averaged.steps == curve.steps
    with optimizers[-1].averaged_weights() as model:
        assert averaged.losses[-1] == setup.validation_loss(setup.layout.read(model))
    assert averaged.losses[-1] != curve.losses[-1]


def test_snapshots_contain_the_requested_average(setup):
    plain, averaged = HoldObserver(setup, {}), HoldObserver(setup, {}, averaging=0.5)
    for observer in (plain, averaged):
        train_contender(setup, "hold", observer=observer)
    assert plain.snapshots.keys() == averaged.snapshots.keys() == set(range(0, 25, 4))
    assert torch.equal(plain.snapshots[0], averaged.snapshots[0])
    assert not torch.equal(plain.snapshots[4], averaged.snapshots[4])


def test_a_read_out_is_measured_beside_its_run(setup):
    observer = ReadOutObserver(setup, {"Muon + average": lambda: EMA(0.0)})
    curve = train_contender(setup, "Muon", TRAINED_BASELINES["Muon"], observer)
    (read_out,) = observer.curves(curve)
    assert read_out.contender == "Muon + average"
    assert read_out.losses == pytest.approx(curve.losses)


def test_every_baseline_of_the_protocol_exists():
    assert set(AVERAGED) < {*TRAINED_BASELINES, *LEARNED_BASES}
    assert {*DERIVED_BASELINES, *TRAINED_BASELINES, *BUDGET_BASELINES} == {
        "EMA 0.98",
        "EMA 0.99",
        "EMA-Nesterov",
        "LAWA",
        "Muon",
        "RNA",
        "SOAP",
        "SOAP 0.5",
        "cosine",
        "growing average",
        "linear decay",
        "outer Nesterov",
        "primal averaging",
        "schedule-free",
        "trainable averaging",
    }
