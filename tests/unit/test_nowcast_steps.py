"""Steps of a training with nowcasts of which only every few are whole ones, as a time budget asks for."""

import pytest

from ..small_training import network_with_batchnorm, nowcast, same_state, train, trained_alone


def thinned(every=10):
    """A training that notes what nowcasts need after every tenth step."""
    model = network_with_batchnorm()
    optimizer = nowcast(model, every=20, stride=20, ema=0.9, max_overhead=1e6)
    optimizer._record.budget.averaged_every = every
    return model, optimizer


def test_steps_between_whole_ones_are_those_of_the_base_optimizer():
    model, optimizer = thinned()
    train(model, optimizer, range(19))
    assert optimizer.steps == 19
    assert same_state(model, trained_alone(19, network_with_batchnorm))
    assert optimizer.average.updates == 10
    assert len(optimizer._passes.recent) == 1


def test_the_inputs_are_seen_only_in_whole_steps():
    model, optimizer = thinned()
    seen = []
    for step in range(20):
        seen.append(len(model._forward_pre_hooks))
        train(model, optimizer, [step])
    assert seen == [1] * 10 + [0] * 9 + [1]
    train(model, optimizer, range(20, 40))
    assert [event.step for event in optimizer.events] == [40]


def test_intervals_of_few_steps_keep_the_hook():
    model, optimizer = thinned(2)
    train(model, optimizer, range(10))
    assert len(model._forward_pre_hooks) == 1
    assert len(optimizer._passes.recent) == 5


@pytest.mark.parametrize("done", [3, 9])
def test_a_step_that_fails_does_not_count(done):
    model, optimizer = thinned()
    train(model, optimizer, range(done))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert optimizer.steps == done
    train(model, optimizer, range(done, 20))
    assert optimizer.steps == optimizer.average.updates == 20
