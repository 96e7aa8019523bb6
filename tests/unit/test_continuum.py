"""Levels that learn at their own pace: which parameters move when, by which gradients, and resuming."""

import copy

import pytest
import torch
from torch import nn

from metaopt.core.clock import LevelSpec
from metaopt.core.errors import CheckpointError, InvalidConfig, LayoutMismatch
from metaopt.generative import get_optimizer_model
from metaopt.nested import ContinuumMemory, Levels
from metaopt.nowcast import Nowcast

FAST, SLOW, SLOWEST = LevelSpec("fast", 1), LevelSpec("slow", 3), LevelSpec("slowest", 6)


def build(variant="sequential", specs=(FAST, SLOW, SLOWEST), kind=torch.optim.Adam, attach=True):
    torch.manual_seed(0)
    memory = ContinuumMemory(4, specs, hidden=(6,), variant=variant)
    optimizer = kind(memory.parameters(), lr=0.01)
    if attach:
        memory.levels().attach(optimizer)
    return memory, optimizer


def loss_at(memory, step):
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
    return (memory(inputs) - inputs.flip(1)).square().mean()


def train(memory, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        loss_at(memory, step).backward()
        optimizer.step()


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(one, other):
    return all(map(torch.equal, one, other))


def test_a_level_moves_when_it_is_due_and_is_otherwise_bit_for_bit_the_same():
    memory, optimizer = build()
    for step in range(12):
        before, gradients = [weights(block) for block in memory.blocks], []
        optimizer.zero_grad()
        loss_at(memory, step).backward()
        gradients = [parameter.grad.clone() for parameter in memory.parameters()]
        optimizer.step()
        moved = [not equal(old, weights(block)) for old, block in zip(before, memory.blocks, strict=True)]
        assert moved == [True, (step + 1) % 3 == 0, (step + 1) % 6 == 0]
        assert equal(gradients, [parameter.grad for parameter in memory.parameters()])


def test_a_level_is_updated_by_the_sum_of_its_gradients():
    memory, optimizer = build(kind=torch.optim.SGD)
    before = weights(memory.blocks[1])
    total = [torch.zeros_like(each) for each in before]
    for step in range(3):
        train(memory, optimizer, [step])
        for each, parameter in zip(total, memory.blocks[1].parameters(), strict=True):
            each += parameter.grad
    expected = [old - 0.01 * each for old, each in zip(before, total, strict=True)]
    torch.testing.assert_close(weights(memory.blocks[1]), expected)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("variant", ["sequential", "headwise"])
def test_with_all_periods_of_one_it_is_the_plain_optimizer_bit_for_bit(kind, variant):
    specs = [LevelSpec("a"), LevelSpec("b")]
    memory, optimizer = build(variant, specs, kind)
    plain, plain_optimizer = build(variant, specs, kind, attach=False)
    train(memory, optimizer, range(7))
    train(plain, plain_optimizer, range(7))
    assert equal(weights(memory), weights(plain))


def test_each_level_has_its_own_optimizer_state():
    memory, optimizer = build()
    train(memory, optimizer, range(7))
    counts = [int(optimizer.state[next(block.parameters())]["step"]) for block in memory.blocks]
    assert counts == [7, 2, 1]


def test_gradients_flow_into_inputs_through_levels_that_are_not_due():
    memory, _ = build()
    inputs = torch.randn(3, 4, requires_grad=True)
    memory(inputs).square().sum().backward()
    assert inputs.grad.abs().sum() > 0


def test_a_closure_that_computes_the_gradients_gives_the_same_training():
    memory, optimizer = build()
    train(memory, optimizer, range(7))
    other, other_optimizer = build()
    for step in range(7):

        def closure(step=step):
            other_optimizer.zero_grad()
            loss = loss_at(other, step)
            loss.backward()
            return loss

        assert other_optimizer.step(closure).item() > 0
    assert equal(weights(memory), weights(other))


class StepOfItsBase(torch.optim.Adam):
    """PyTorch runs the hooks of both steps once the base class has been used."""

    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize("has_closure", [False, True])
def test_a_step_that_calls_the_step_of_its_base_class_is_one_step(has_closure):
    memory, optimizer = build()
    train(memory, optimizer, range(7))
    other, other_optimizer = build(kind=StepOfItsBase)
    for step in range(7):
        other_optimizer.zero_grad()
        if has_closure:
            other_optimizer.step(lambda step=step: loss_at(other, step).backward())
        else:
            loss_at(other, step).backward()
            other_optimizer.step()
    assert other_optimizer.state_dict()["levels"]["clock"]["step"] == 7
    assert equal(weights(memory), weights(other))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_step_may_change_its_gradients_before_it_calls_the_step_of_its_base_class(in_place):
    class Halved(torch.optim.Adam):
        def step(self, closure=None):
            for parameter in (each for group in self.param_groups for each in group["params"]):
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.mul_(0.5) if in_place else parameter.grad * 0.5
            return super().step(closure)

    torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # from now on, PyTorch calls hooks in the step of Adam too
    memory, optimizer = build(kind=lambda parameters, lr: Halved(parameters, lr=lr, eps=0.5e-8))
    expected, plain = build()
    for model, each in ((memory, optimizer), (expected, plain)):
        train(model, each, range(7))
    assert optimizer.state_dict()["levels"]["clock"]["step"] == 7
    for one, other in zip(memory.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_lbfgs_is_refused_before_a_training():
    with pytest.raises(InvalidConfig, match="LBFGS computes gradients several times per step"):
        build(kind=torch.optim.LBFGS)


class TwoCalls(torch.optim.SGD):
    def step(self, closure):
        closure()
        return closure()


def test_an_optimizer_that_calls_its_closure_several_times_is_refused():
    memory, optimizer = build(kind=TwoCalls)
    with pytest.raises(InvalidConfig, match="more than once per step"):
        optimizer.step(lambda: loss_at(memory, 0).backward() or loss_at(memory, 0))


@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
def test_resumed_equals_uninterrupted(variant):
    whole, optimizer = build(variant)
    train(whole, optimizer, range(14))
    half, optimizer = build(variant)
    train(half, optimizer, range(8))
    saved = copy.deepcopy((half.state_dict(), optimizer.state_dict()))
    resumed, optimizer = build(variant)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(resumed, optimizer, range(8, 14))
    assert equal(weights(whole), weights(resumed))


def test_a_nested_level_starts_again_from_a_state_that_the_slower_level_learns():
    memory, optimizer = build("nested", (FAST, SLOW))
    initial = weights(memory.blocks[0])
    train(memory, optimizer, range(2))
    assert equal(initial, weights(memory.blocks[0]))
    assert any(each.any() for each in weights(memory.changes[0]))
    train(memory, optimizer, [2])
    assert not equal(initial, weights(memory.blocks[0]))
    assert not any(each.any() for each in weights(memory.changes[0]))
    assert not any(parameter in optimizer.state for parameter in memory.changes[0].parameters())


def test_at_the_start_a_nested_memory_is_the_sequential_one():
    torch.manual_seed(0)
    sequential = ContinuumMemory(4, [FAST, SLOW])
    torch.manual_seed(0)
    nested = ContinuumMemory(4, [FAST, SLOW], variant="nested")
    inputs = torch.randn(3, 4)
    torch.testing.assert_close(sequential(inputs), nested(inputs))


def test_levels_and_nowcasts_work_together():
    memory, optimizer = build()
    nowcast = Nowcast(
        optimizer,
        memory,
        get_optimizer_model("Line"),
        every=6,
        stride=3,
        guard=lambda: loss_at(memory, 99),
        max_overhead=None,
    )
    train(memory, nowcast, range(13))
    assert [event.step for event in nowcast.events] == [6, 12]
    assert nowcast.state_dict()["levels"]["clock"]["step"] == 13


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ContinuumMemory(4, []), "without levels"),
        (lambda: ContinuumMemory(0, [FAST]), "width is 0"),
        (lambda: ContinuumMemory(2.5, [FAST]), "width is 2.5"),
        (lambda: ContinuumMemory(8, [1, 4]), r"a level is 1; expected a LevelSpec, such as LevelSpec\('slow', 16\)"),
        (lambda: ContinuumMemory(8, FAST), r"levels is LevelSpec\(name='fast'.*; expected a list, such as"),
        (lambda: Levels({"slow": []}), "a level is 'slow'; expected a LevelSpec"),
        (lambda: Levels([FAST]), r"parameters is \[LevelSpec.*\]; expected those of each level"),
        (lambda: ContinuumMemory(4, [FAST], hidden=(3, 0)), r"hidden is \(3, 0\)"),
        (lambda: ContinuumMemory(4, [FAST], hidden=16), "hidden is 16; expected a positive integer and a list of them"),
        (lambda: ContinuumMemory(None, [FAST]), "width is None"),
        (lambda: ContinuumMemory(4, [FAST], variant="parallel"), "variant is 'parallel'"),
        (lambda: ContinuumMemory(4, [SLOW, LevelSpec("b", 4)], variant="nested"), r"are \[3, 4\]; expected multiples"),
        (lambda: ContinuumMemory(4, [FAST, FAST]), "two levels have the name 'fast'"),
        (lambda: Levels({FAST: (shared := [nn.Parameter(torch.zeros(2))]), SLOW: shared}), "in two levels"),
        (lambda: Levels({FAST: []}, {"other": []}), "no level 'other' among fast"),
        (
            lambda: ContinuumMemory(4, [FAST]).levels().attach(torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=1)),
            "SGD does not move 5 of the 5 parameters of the level 'fast'",
        ),
    ],
)
def test_invalid_levels_are_refused(call, message):
    with pytest.raises(InvalidConfig, match=message):
        call()


@pytest.mark.parametrize("variant", ["sequential", "nested", "headwise"])
@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_inputs_of_another_width_are_refused(variant, shape):
    with pytest.raises(LayoutMismatch, match="expected 4 as the last size"):
        ContinuumMemory(4, [FAST, SLOW], variant=variant)(torch.zeros(shape))


def test_a_state_without_levels_is_refused():
    _, optimizer = build(attach=False)
    _, with_levels = build()
    with pytest.raises(CheckpointError, match="without levels"):
        with_levels.load_state_dict(optimizer.state_dict())


def test_levels_are_attached_to_an_optimizer_once():
    memory, optimizer = build()
    with pytest.raises(InvalidConfig, match="attached to this Adam already"):
        memory.levels().attach(optimizer)


def fail(*_):
    raise KeyboardInterrupt


def in_a_hook_before(memory, optimizer):
    hook = optimizer.register_step_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    hook.remove()


def in_the_step(memory, optimizer):
    betas = optimizer.param_groups[0].pop("betas")
    with pytest.raises(KeyError, match="betas"):
        optimizer.step()
    optimizer.param_groups[0]["betas"] = betas


def in_the_closure(memory, optimizer):
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(fail)


@pytest.mark.parametrize("failing", [in_a_hook_before, in_the_step, in_the_closure])
@pytest.mark.parametrize("is_computed_again", [True, False])
@pytest.mark.parametrize("at", [1, 2])  # the slow level is due after step 2
def test_a_step_that_ends_with_an_error_is_not_a_step(failing, is_computed_again, at):
    smooth, other = build()
    train(smooth, other, range(6))
    memory, optimizer = build()
    train(memory, optimizer, range(at))
    optimizer.zero_grad()
    loss_at(memory, at).backward()
    failing(memory, optimizer)
    assert optimizer.state_dict()["levels"]["clock"]["step"] == at
    if is_computed_again:
        train(memory, optimizer, [at])
    else:
        optimizer.step()
    train(memory, optimizer, range(at + 1, 6))
    assert equal(weights(smooth), weights(memory))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_step_after_an_error_uses_the_gradients_that_were_computed_since(set_to_none):
    found = []
    for is_failing in (True, False):
        memory, optimizer = build()
        train(memory, optimizer, range(5))
        if is_failing:
            loss_at(memory, 9).backward()
            in_the_step(memory, optimizer)  # all levels are due
        optimizer.zero_grad(set_to_none)
        loss_at(memory, 5).backward()
        optimizer.step()
        found.append(weights(memory))
    assert equal(*found)


def test_norms_can_be_measured_from_any_step_on():
    torch.manual_seed(0)
    memory = ContinuumMemory(4, [FAST, SLOW], hidden=(6,))
    levels, optimizer = memory.levels(), torch.optim.Adam(memory.parameters(), lr=0.01)
    levels.attach(optimizer)
    train(memory, optimizer, range(20))
    norms = levels.observe()
    train(memory, optimizer, range(20, 22))
    steps, curve = norms.curves()["fast"]
    assert steps == [21, 22]
    assert norms.means()["fast"] == pytest.approx(sum(curve) / 2)
