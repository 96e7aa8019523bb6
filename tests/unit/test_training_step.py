"""A training step."""

import torch
from torch import nn

from metaopt import load_task
from metaopt.recording.training import take_step


def test_a_function_after_the_backward_pass_sees_the_gradients_before_the_step():
    task, model = load_task("digits"), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = model[1].weight.detach().clone()
    batch = next(iter(task.batches(16, seed=0, epoch=0)))
    seen = []

    def after_backward(given):
        assert given is batch
        assert model[1].weight.equal(before)
        seen.append(float(model[1].weight.grad.abs().sum()))
        model[1].weight.grad.zero_()

    take_step(model, torch.optim.SGD(model.parameters(), lr=0.1), task, batch, after_backward)

    assert len(seen) == 1
    assert seen[0] > 0
    assert model[1].weight.equal(before)  # the step used what the function left
