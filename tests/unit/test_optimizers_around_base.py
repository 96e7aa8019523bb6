"""Optimizers around a base optimizer: what they compute, and what they refuse."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.optimizers import EMANesterov, MuonMemory, OuterNesterov, PrimalAveraging, build_optimizer, evaluation_mode

AROUND_BASE = ("EMANesterov", "OuterNesterov", "PrimalAveraging")


def trained(optimizer_of, steps=7, seed=0):
    """The weights and the optimizer of a small regression after some steps."""
    torch.manual_seed(seed)
    weights = nn.Parameter(torch.randn(5))
    optimizer = optimizer_of([weights])
    targets = torch.randn(steps, 5)
    for target in targets:
        optimizer.zero_grad()
        (weights - target).square().sum().backward()
        optimizer.step()
    return weights.detach().clone(), optimizer


@pytest.mark.parametrize("base", ["Adam", "SGD", "SOAP"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("OuterNesterov", {"momentum": 0.0}),
        ("EMANesterov", {"beta": 0.0}),
        ("PrimalAveraging", {"interpolation": 0.0}),
    ],
)
def test_without_its_momentum_an_optimizer_equals_its_base(name, options, base):
    plain, _ = trained(lambda params: build_optimizer(base, params, 0.1, {}))
    around, _ = trained(
        lambda params: build_optimizer(
            name,
            params,
            0.1,
            {"base": base, "every": 1, **options} if name == "OuterNesterov" else {"base": base, **options},
        )
    )
    torch.testing.assert_close(around, plain)


def test_outer_nesterov_moves_the_slow_weights_by_displacement_and_momentum():
    start = torch.zeros(1)
    weights = nn.Parameter(start.clone())
    optimizer = OuterNesterov([weights], lr=1.0, base="SGD", every=2, momentum=0.5)
    slow, velocity = 0.0, 0.0
    for gradient in ([1.0, 2.0], [-1.0, 4.0], [0.5, 0.5]):
        for value in gradient:
            weights.grad = torch.tensor([value])
            optimizer.step()
        displacement = -sum(gradient)
        velocity = 0.5 * velocity + displacement
        slow += displacement + 0.5 * velocity
        assert weights.item() == pytest.approx(slow)


def test_ema_nesterov_trains_ahead_and_evaluates_behind():
    weights = nn.Parameter(torch.zeros(1))
    optimizer = EMANesterov([weights], lr=1.0, base="SGD", beta=0.5, decay=0.5)
    behind, average, ahead = 0.0, 0.0, 0.0
    for step, gradient in enumerate([1.0, -2.0, 0.5], 1):
        weights.grad = torch.tensor([gradient])
        optimizer.step()
        moved = ahead - gradient
        share = 0.5 / (1 - 0.5**step)
        average += share * (moved - behind - average)
        behind, ahead = moved, moved + 0.5 * average
        assert weights.item() == pytest.approx(ahead)
        with evaluation_mode(optimizer):
            assert weights.item() == pytest.approx(behind)
        assert weights.item() == pytest.approx(ahead)


def test_primal_averaging_evaluates_at_the_average_of_the_base_weights():
    weights = nn.Parameter(torch.zeros(1))
    optimizer = PrimalAveraging([weights], lr=1.0, base="SGD", decay=0.5, interpolation=0.25)
    moved, average = 0.0, 0.0
    for step, gradient in enumerate([1.0, -2.0, 0.5], 1):
        weights.grad = torch.tensor([gradient])
        optimizer.step()
        moved -= gradient
        average += 0.5 / (1 - 0.5**step) * (moved - average)
        assert weights.item() == pytest.approx(0.25 * average + 0.75 * moved)
        with evaluation_mode(optimizer):
            assert weights.item() == pytest.approx(average)


@pytest.mark.parametrize("name", AROUND_BASE)
def test_a_scheduler_changes_the_learning_rate_of_the_base(name):
    weights = nn.Parameter(torch.zeros(3))
    optimizer = build_optimizer(name, [weights], 0.1, {"base": "SGD"})
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0 if epoch else 1.0)
    weights.grad = torch.ones(3)
    optimizer.step()
    schedule.step()
    with evaluation_mode(optimizer):
        before = weights.detach().clone()
    weights.grad = torch.ones(3)
    optimizer.param_groups[0]["ahead"] = 0.0
    optimizer.step()
    assert optimizer._base.param_groups[0]["lr"] == 0.0
    if name == "OuterNesterov":
        assert torch.equal(weights, before)


@pytest.mark.parametrize("name", AROUND_BASE)
def test_a_parameter_without_a_gradient_stays(name):
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(name, [used, unused], 0.1, {})
    for _ in range(3):
        used.grad = torch.ones(2)
        optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    unused.grad = torch.ones(2)
    optimizer.step()
    assert not torch.equal(unused, torch.ones(2))


@pytest.mark.parametrize("name", AROUND_BASE)
@pytest.mark.parametrize("base", AROUND_BASE)
def test_one_around_another_is_refused(name, base):
    with pytest.raises(InvalidConfig, match=f"base is {base}, which is itself built around"):
        build_optimizer(name, [nn.Parameter(torch.ones(1))], 0.1, {"base": base})


def test_an_unknown_base_is_named():
    with pytest.raises(UnknownName, match="Adm"):
        OuterNesterov([nn.Parameter(torch.ones(1))], base="Adm")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: OuterNesterov(p, every=0), "every is 0; expected 1 or more"),
        (lambda p: OuterNesterov(p, every=1.5), r"every is 1\.5; expected an integer"),
        (lambda p: OuterNesterov(p, momentum=1.0), r"outer_momentum is 1\.0"),
        (lambda p: EMANesterov(p, beta=float("nan")), "ahead is nan"),
        (lambda p: EMANesterov(p, decay="a"), "displacement_decay is 'a'; expected a number"),
        (lambda p: PrimalAveraging(p, interpolation=-0.1), r"interpolation is -0\.1"),
        (lambda p: MuonMemory(p, others="sgd"), "others is 'sgd'; expected momentum or adam"),
        (lambda p: MuonMemory(p, adjust_lr_fn="x"), "adjust_lr_fn is 'x'"),
    ],
)
def test_an_option_out_of_range_is_refused(make, message):
    with pytest.raises(InvalidConfig, match=message):
        make([nn.Parameter(torch.ones(1))])


def test_muon_with_the_size_of_adam_equals_that_of_torch():
    torch.manual_seed(0)
    start, gradients = torch.randn(6, 3), torch.randn(5, 6, 3)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = {"lr": 0.01, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    pairs = [(ours, MuonMemory([ours], **options)), (theirs, torch.optim.Muon([theirs], **options))]
    for gradient in gradients:
        for weights, optimizer in pairs:
            weights.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)


def test_muon_updates_other_parameters_by_adam():
    ours, theirs = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    pairs = [(ours, MuonMemory([ours], lr=0.01, others="adam")), (theirs, torch.optim.Adam([theirs], lr=0.01))]
    for gradient in torch.randn(5, 4):
        for weights, optimizer in pairs:
            weights.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
