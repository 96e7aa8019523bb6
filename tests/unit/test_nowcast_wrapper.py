"""`Nowcast` stands for its base optimizer: groups, state, methods, hooks, copies, checkpoints and changed groups."""

import copy
import io
import math
import pickle

import pytest
import schedulefree
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from metaopt.core.errors import CheckpointError, InvalidConfig, LayoutMismatch
from metaopt.weights.layout import Layout

from ..small_training import adam, guarded, loss_at, network, nowcast, same_state, train, weights

# No stale references


def test_a_scheduler_moves_the_learning_rate_after_the_state_of_the_base_optimizer_is_loaded():
    model = network()
    optimizer = guarded(model, "Hold")
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.base.load_state_dict(
        adam(model).state_dict() | {"param_groups": optimizer.base.state_dict()["param_groups"]}
    )
    train(model, optimizer, range(1))
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.005)
    assert optimizer.param_groups is optimizer.base.param_groups


@pytest.mark.parametrize("name", ["param_groups", "state", "defaults"])
def test_what_is_assigned_to_the_wrapper_or_to_its_base_is_that_of_both(name):
    model = network()
    optimizer = guarded(model)
    train(model, optimizer, range(2))
    for one, other in ((optimizer, optimizer.base), (optimizer.base, optimizer)):
        replaced = copy.copy(getattr(one, name))
        setattr(one, name, replaced)
        assert getattr(other, name) is replaced
    train(model, optimizer, range(2, 4))


def test_a_network_with_new_parameters_in_a_new_group_starts_a_new_history():
    model = network()
    model[0].requires_grad_(False)
    optimizer = guarded(model, base=adam(model[2]))
    train(model, optimizer, range(5))
    model[0].requires_grad_(True)
    optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.002})
    train(model, optimizer, range(5, 12))
    assert optimizer.layout.size == Layout.of(model).size
    assert [event.step for event in optimizer.events] == [4, 8, 12]
    assert optimizer.state_dict()["nowcast"]["times"] == [6, 8, 10, 12]
    again = guarded(
        model, base=torch.optim.Adam([{"params": model[2].parameters()}, {"params": model[0].parameters()}])
    )
    again.load_state_dict(optimizer.state_dict())


def test_a_group_that_does_not_fit_the_network_is_refused_before_the_step():
    model, other = network(), nn.Linear(2, 2)
    optimizer = guarded(model)
    train(model, optimizer, range(3))
    before = copy.deepcopy(model)
    optimizer.add_param_group({"params": list(other.parameters())})
    with pytest.raises(LayoutMismatch, match="moves 2 tensors that are not trainable weights of Sequential"):
        train(model, optimizer, range(3, 4))
    assert same_state(model, before)
    assert optimizer.steps == 3


# Transparent


def test_methods_that_the_wrapper_lacks_are_those_of_the_base_optimizer():
    model = network()
    optimizer = guarded(model, "Hold", schedulefree.AdamWScheduleFree(model.parameters(), lr=0.01))
    plain = network()
    alone = schedulefree.AdamWScheduleFree(plain.parameters(), lr=0.01)
    for moved, net in ((optimizer, model), (alone, plain)):
        moved.train()
        train(net, moved, range(6))
        moved.eval()
    assert same_state(model, plain)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        optimizer.nothing_of_the_kind()


def test_copies_of_the_weights_in_the_state_of_the_base_optimizer_move_with_them():
    ends = []
    for guard in (lambda: 1.0, lambda: math.nan):  # accepts, and refuses
        model = network()
        base = schedulefree.SGDScheduleFree(model.parameters(), lr=0.1)
        base.train()
        optimizer = nowcast(model, base=base, guard=guard)
        train(model, optimizer, range(4))
        trained = weights(model)
        base.eval()
        ends.append((trained, weights(model)))
    (moved, averaged), (alone, average_alone) = ends
    assert (moved - alone).norm() > 0.01
    assert torch.allclose(averaged - average_alone, moved - alone, atol=1e-6)


def test_fused_base_optimizer_and_grad_scaler_equal_the_base_optimizer_alone():
    results = []
    for wrapped in (True, False):
        model, scaler = network(), torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = adam(model, fused=True)
        if wrapped:
            optimizer = guarded(model, "Hold", optimizer)
        for step in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_at(model, step)).backward()
            if step == 2:
                model[0].weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
        results.append((model, scaler.get_scale()))
        if wrapped:
            assert optimizer.steps == 5
    assert same_state(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_each_hook_is_called_once_and_can_replace_what_it_is_given():
    model, calls = network(), []
    optimizer = guarded(model)
    note = lambda name: lambda *_: calls.append(name)  # noqa: E731
    handles = [
        register_optimizer_step_pre_hook(note("global pre")),
        register_optimizer_step_post_hook(note("global post")),
        optimizer.register_step_pre_hook(note("pre")),
        optimizer.register_step_post_hook(note("post")),
        optimizer.base.register_step_pre_hook(note("base pre")),
    ]
    train(model, optimizer, range(1))
    for handle in handles:
        handle.remove()
    assert calls == ["pre", "global pre", "base pre", "global post", "post"]
    calls.clear()
    optimizer.register_state_dict_pre_hook(note("before saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: calls.append("after saving") or {**state, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: calls.append("before loading") or dict(state))
    optimizer.register_load_state_dict_post_hook(note("after loading"))
    state = optimizer.state_dict()
    assert state["mine"] == 1
    optimizer.load_state_dict(state)
    assert calls == ["before saving", "after saving", "before loading", "after loading"]
    train(model, optimizer, range(1, 2))
    assert len(calls) == 4


def test_an_optimizer_that_contains_another_is_refused():
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, inner):
            super().__init__(inner.param_groups, {})
            self.inner = inner

    model = network()
    with pytest.raises(InvalidConfig, match=r"Lookahead contains another optimizer \(inner, Adam\)"):
        guarded(model, base=Lookahead(adam(model)))
    with pytest.raises(InvalidConfig, match=r"Nowcast contains another optimizer \(base, Adam\)"):
        guarded(model, base=guarded(model))


def test_repr_shows_the_schedule_and_the_base_optimizer():
    shown = repr(guarded(network()))
    assert "every=4, stride=2, horizons=[4], forecaster=Line, with a guard, after 0 steps" in shown
    assert "base: Adam (" in shown


# Copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps, lambda it: torch.save(it, io.BytesIO())])
def test_copies_and_pickles_are_refused_with_what_to_do_instead(copied):
    optimizer = guarded(network())
    with pytest.raises(InvalidConfig, match=r"cannot be copied or pickled.*Save state_dict\(\)"):
        copied(optimizer)


def resumed(first, state_of, load):
    second = copy.deepcopy(first[0])
    optimizer = guarded(second, ema=0.9)
    load(second, optimizer, state_of(*first))
    train(second, optimizer, range(5, 12))
    return second, optimizer


def in_memory(model, optimizer):
    return copy.deepcopy(get_optimizer_state_dict(model, optimizer))


def through_files(folder):
    def save(model, optimizer):
        dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=folder)

    def load(model, optimizer, _):
        state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
        dcp.load(state, checkpoint_id=folder)
        set_optimizer_state_dict(model, optimizer, state["optimizer"])

    return save, load


@pytest.mark.filterwarnings("ignore")  # torch.distributed.checkpoint warns that there is one process
@pytest.mark.parametrize("files", [False, True])
def test_distributed_checkpoints_keep_the_history(files, tmp_path):
    model = network()
    optimizer = guarded(model, ema=0.9)
    train(model, optimizer, range(5))
    save, load = through_files(tmp_path) if files else (in_memory, set_optimizer_state_dict)
    second, after = resumed((model, optimizer), save, load)
    train(model, optimizer, range(5, 12))
    assert same_state(second, model)
    assert after.events == optimizer.events
    assert all(map(torch.equal, after.average.tensors, optimizer.average.tensors))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_steps_that_distributed_checkpoints_take_are_not_counted(momentum):
    model = network()
    optimizer = guarded(model, base=torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum), every=2)
    get_optimizer_state_dict(model, optimizer)
    train(model, optimizer, range(3))
    for _ in range(3):
        optimizer.zero_grad()
        get_optimizer_state_dict(model, optimizer)
    assert optimizer.steps == 3
    assert len(optimizer.events) == 1
    optimizer.param_groups[0]["lr"] = 0.0  # the start of a warm-up
    train(model, optimizer, range(3, 5))
    assert optimizer.steps == 5


def test_the_state_of_a_base_optimizer_is_loaded_into_the_base_optimizer_as_the_error_says():
    model, plain = network(), network()
    alone = adam(plain)
    train(plain, alone, range(3))
    optimizer = guarded(model)
    with pytest.raises(CheckpointError, match=r"call optimizer\.base\.load_state_dict\(state\)"):
        optimizer.load_state_dict(alone.state_dict())
    optimizer.base.load_state_dict(alone.state_dict())
    assert float(optimizer.state[model[0].weight]["step"]) == 3
    state = optimizer.state_dict()
    optimizer.base.load_state_dict(state)  # what is said of a damaged state
    assert "nowcast" not in optimizer.base.state
    optimizer.load_state_dict(optimizer.state_dict())
    assert "nowcast" not in optimizer.base.param_groups[0]
