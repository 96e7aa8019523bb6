"""Deep optimizers: their equations, that each descends, and what of the equations as printed does not."""

import copy

import pytest
import torch
from torch import nn

import metaopt
from metaopt.core.errors import InvalidConfig
from metaopt.optimizers import (
    DMGD,
    M3,
    DeltaGradientDescent,
    DeltaMomentum,
    MuonMemory,
    PreconditionedMomentum,
    build_optimizer,
)
from metaopt.optimizers.orthogonal import orthogonalised

TUNED = {  # the best of three to four learning rates on the shared problem
    "PreconditionedMomentum": 0.001,
    "DeltaMomentum": 0.1,
    "DMGD": 0.4,
    "MuonMemory": 0.02,
    "M3": 0.04,
    "DeltaGradientDescent": 0.6,
}


@pytest.fixture(scope="module")
def task():
    return metaopt.load_task("digits")


def train(task, build, steps=150):
    """Train a perceptron on digits: mean loss of the last 30 steps, mean cosine of changes with −gradient."""
    torch.manual_seed(0)
    model = metaopt.get_target_model("MLP", task.model_facts)
    optimizer = build(model.parameters())
    losses, cosines, matrices = [], [], [each for each in model.parameters() if each.ndim == 2]
    for epoch in range(-(-steps // 15)):
        for inputs, labels in task.batches(batch_size=64, seed=0, epoch=epoch):
            optimizer.zero_grad()
            loss = task.loss(model(inputs), labels)
            loss.backward()
            before = [matrix.detach().clone() for matrix in matrices]
            optimizer.step()
            losses.append(loss.item())
            for matrix, old in zip(matrices, before, strict=True):
                change = (matrix.detach() - old).flatten()
                cosines.append(-nn.functional.cosine_similarity(change, matrix.grad.flatten(), 0).item())
    return sum(losses[-30:]) / 30, sum(cosines) / len(cosines)


@pytest.fixture(scope="module")
def loss_of_momentum(task):
    return min(train(task, lambda p, lr=lr: torch.optim.SGD(p, lr=lr, momentum=0.9))[0] for lr in (0.06, 0.1))


@pytest.mark.parametrize("name", TUNED)
def test_each_descends_and_ends_near_momentum(name, task, loss_of_momentum):
    loss, cosine = train(task, lambda parameters: build_optimizer(name, parameters, TUNED[name], {}))
    assert cosine > 0.05
    assert loss <= 2.5 * loss_of_momentum


def quadratic(rows=6, columns=4, seed=0):
    """A matrix, and the gradients of noisy quadratic problems at it."""
    generator = torch.Generator().manual_seed(seed)
    target, start = torch.randn(2, rows, columns, generator=generator)
    return nn.Parameter(start.clone()), lambda w: w.detach() - target + 0.1 * torch.randn(w.shape, generator=generator)


def run(build, steps, gradient_scale=1.0, **sizes):
    weights, gradient = quadratic(**sizes)
    optimizer = build([weights])
    for _ in range(steps):
        weights.grad = gradient_scale * gradient(weights)
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize(
    "build",
    [
        lambda p: PreconditionedMomentum(p, lr=0.1, momentum=0.8, preconditioner="identity"),
        lambda p: DeltaMomentum(p, lr=0.1, momentum=0.8, delta=0.0),
    ],
)
def test_without_their_extension_memories_are_plain_momentum(build):
    expected = run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8), 20)
    torch.testing.assert_close(run(build, 20), expected)


def test_preconditioned_momentum_without_momentum_is_rmsprop_with_a_corrected_average():
    ours = run(lambda p: PreconditionedMomentum(p, lr=0.1, momentum=0.0, decay=0.9), 20)
    adam = run(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.9)), 20)
    torch.testing.assert_close(ours, adam)


def test_delta_momentum_erases_the_present_directions_only():
    weights = nn.Parameter(torch.zeros(2, 3))
    optimizer = DeltaMomentum([weights], lr=1.0, momentum=1 - 1e-9)
    weights.grad = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    optimizer.step()
    weights.grad = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[weights]["momentum"][0], torch.tensor([-1.0, -2.0, 0.0]))
    optimizer.step()  # the same gradient again: what was remembered of it is erased, and it is written once more
    torch.testing.assert_close(optimizer.state[weights]["momentum"][0], torch.tensor([-1.0, -2.0, 0.0]))


def test_delta_momentum_is_stable_where_the_printed_raw_key_diverges():
    def with_raw_key(steps):
        weights, gradient = quadratic()
        memory = torch.zeros(6, 4)
        for _ in range(steps):
            key = 5 * gradient(weights)
            memory = 0.9 * memory - memory @ key.mT @ key - 0.01 * key
            weights.data += memory
        return memory.norm()

    assert with_raw_key(4) > 1e3
    build = lambda p: DeltaMomentum(p, lr=0.01)  # noqa: E731
    assert run(build, 200, gradient_scale=5.0).norm() < 10


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_memory_equals_muon(shape, nesterov):
    options = {"lr": 0.02, "weight_decay": 0.1, "nesterov": nesterov}
    ours = run(lambda p: MuonMemory(p, **options), 50, rows=shape[0], columns=shape[1])
    theirs = run(lambda p: torch.optim.Muon(p, **options), 50, rows=shape[0], columns=shape[1])
    assert (ours - theirs).norm() <= 5e-3 * theirs.norm()


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)])
def test_orthogonalised_matrices_keep_singular_vectors_and_have_singular_values_of_about_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(*shape)
    result = orthogonalised(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    between = left.mT @ result @ right.mT
    assert (between - between.diagonal().diag()).abs().max() < 1e-4
    assert orthogonalised(torch.zeros(*shape)).equal(torch.zeros(*shape))


def test_the_slow_memory_of_m3_changes_every_period_only():
    weights, gradient = quadratic()
    optimizer = M3([weights], lr=0.01, period=4)
    outputs = []
    for _ in range(12):
        weights.grad = gradient(weights)
        optimizer.step()
        outputs.append(optimizer.state[weights]["slow_output"].clone())
    changed = [not one.equal(other) for one, other in zip([torch.zeros(6, 4), *outputs[:-1]], outputs, strict=True)]
    assert changed == 3 * [False, False, False, True]


def test_the_steps_of_m3_do_not_grow_as_gradients_shrink():
    build = lambda p: M3(p, lr=0.01)  # noqa: E731
    torch.testing.assert_close(run(build, 1), run(build, 1, gradient_scale=1e-3), rtol=1e-3, atol=1e-4)


def test_delta_gradient_descent_of_one_example_is_the_closed_form_of_its_regression():
    torch.manual_seed(0)
    inputs, error = torch.randn(4), torch.randn(3)
    inputs /= inputs.norm()
    start, rate = torch.randn(3, 4), 0.7
    weights = nn.Parameter(start.clone())
    optimizer = DeltaGradientDescent([weights], lr=rate, delta=1.0)
    weights.grad = torch.outer(error, inputs)
    optimizer.step()
    system = torch.outer(inputs, inputs) + torch.eye(4) / rate  # of ½ ‖W x + error‖² + ‖W − start‖² / (2 rate)
    solved = torch.linalg.solve(system.mT, (start / rate - torch.outer(error, inputs)).mT).mT
    torch.testing.assert_close(weights.detach(), solved)


def test_the_printed_value_of_dmgd_gives_changes_of_equal_columns_whatever_the_gradient_is():
    """One step of ⟨m(k), 1⟩ from W₂ = 0, as printed, against the value −k."""
    torch.manual_seed(0)
    for gradient in torch.randn(5, 8, 12):
        first, second = torch.randn(12, 64), torch.zeros(64, 12, requires_grad=True)
        hidden = torch.tanh(gradient / gradient.norm() * 8**0.5 @ first)
        (slope,) = torch.autograd.grad((hidden @ second).sum(), second)
        change = hidden @ slope
        torch.testing.assert_close(change, change[:, :1].expand(8, 12))
        weights = nn.Parameter(torch.zeros(8, 12))
        weights.grad = gradient
        DMGD([weights], lr=0.1).step()
        assert nn.functional.cosine_similarity(weights.detach().flatten(), -gradient.flatten(), 0) > 0.5


def test_dmgd_learns_directions_that_come_again():
    torch.manual_seed(0)
    common, weights = torch.randn(1, 8, 12), nn.Parameter(torch.zeros(8, 12))
    optimizer = DMGD([weights], lr=0.1)
    for _ in range(60):
        before = weights.detach().clone()
        weights.grad = common[0] + 0.5 * torch.randn(8, 12)
        optimizer.step()
    change = weights.detach() - before
    cosine = nn.functional.cosine_similarity
    assert cosine(change.flatten(), -common.flatten(), 0) > cosine(weights.grad.flatten(), common.flatten(), 0)


@pytest.mark.parametrize("name", TUNED)
def test_resumed_equals_uninterrupted_for_matrices_and_other_parameters(name):
    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2))
        return model, build_optimizer(name, model.parameters(), 0.01, {})

    def steps(model, optimizer, numbers):
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            optimizer.zero_grad()
            model(torch.randn(5, 1, 4, 4, generator=generator)).square().mean().backward()
            optimizer.step()

    whole, optimizer = build()
    steps(whole, optimizer, range(25))
    half, optimizer = build()
    steps(half, optimizer, range(13))
    state = copy.deepcopy(optimizer.state_dict())
    resumed, optimizer = build()
    resumed.load_state_dict(half.state_dict())
    optimizer.load_state_dict(state)
    steps(resumed, optimizer, range(13, 25))
    assert all(one.equal(other) for one, other in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: DeltaMomentum(p, lr=-1), "lr is -1; expected a number from 0"),
        (lambda p: DeltaMomentum(p, momentum=1.0), "momentum is 1.0; expected a number from 0 to below 1"),
        (lambda p: DeltaMomentum(p, delta=float("nan")), "delta is nan"),
        (lambda p: DMGD(p, hidden=0), "hidden is 0; expected an integer from 1"),
        (lambda p: DMGD(p, hidden=2.5), "hidden is 2.5; expected an integer from 1"),
        (lambda p: DMGD(p, memory_lr=2), "memory_lr is 2; expected a number from 0 to below 2"),
        (lambda p: M3(p, period="often"), "period is 'often'"),
        (lambda p: PreconditionedMomentum(p, preconditioner="hessian"), "expected second_moment or identity"),
    ],
)
def test_invalid_options_are_refused(build, message):
    with pytest.raises(InvalidConfig, match=message):
        build([nn.Parameter(torch.zeros(2, 2))])


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 2, sparse=True)
    optimizer = DeltaMomentum(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(InvalidConfig, match="DeltaMomentum got a sparse gradient"):
        optimizer.step()
