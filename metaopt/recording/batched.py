"""Several small targets trained as one batched network.

Each keeps its own weights, batches, learning rate and base optimizer; only the forward and the backward pass are
shared. So any base optimizer works, and checkpoints and snapshots are those of targets trained alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..core.errors import InvalidConfig
from ..targets import vmappable
from .state import Step


def batched_steps(steps: Sequence[Step]) -> list[float]:
    """Take one step of several targets that differ only in their numbers; their losses before it.

    Equal to steps taken alone up to rounding.

    Raises:
        InvalidConfig: the network or the base optimizer cannot be trained so.
    """
    if len({len(step.batch.labels) for step in steps}) > 1 or len(steps) == 1:
        return [step.take() for step in steps]
    runs = [step.run for step in steps]
    if isinstance(runs[0].optimizer, torch.optim.LBFGS):
        raise InvalidConfig(
            "LBFGS looks at the loss several times in a step; give vectorize=1, or another base optimizer"
        )
    for run in runs:
        run.model.train()
        run.optimizer.zero_grad()
    buffers = _stacked([dict(run.model.named_buffers()) for run in runs])
    losses = _losses(steps, buffers)
    losses.sum().backward()
    for run, *values in zip(runs, *(buffer.unbind() for buffer in buffers.values()), strict=True):
        for name, value in zip(buffers, values, strict=True):
            run.model.get_buffer(name).copy_(value)
        run.optimizer.step()
    return losses.tolist()


def _losses(steps: Sequence[Step], buffers: dict[str, Tensor]) -> Tensor:
    model, task, device = steps[0].run.model, steps[0].run.task, steps[0].run.device
    weights = _stacked([dict(step.run.model.named_parameters()) for step in steps])
    batches = [step.batch.to(device) for step in steps]
    inputs = torch.stack([batch.inputs for batch in batches])
    labels = torch.stack([batch.labels for batch in batches])

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return task.loss(functional_call(model, (weights, buffers), (inputs,)), labels)

    try:
        with vmappable():
            return vmap(loss)(weights, buffers, inputs, labels)
    except (RuntimeError, NotImplementedError) as error:
        raise InvalidConfig(
            f"{type(model).__name__} cannot be trained as one batched network ({str(error).splitlines()[0]}); networks "
            "that draw random numbers in training, as dropout does, cannot. Give vectorize=1, and more workers"
        ) from error


def _stacked(states: Sequence[dict[str, Tensor]] | Sequence[dict[str, nn.Parameter]]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}
