"""Several runs of phase 1 side by side: small networks train as one batched network.

Each run keeps its own weights, batches, learning rate and base optimizer; only forward and backward passes are shared.
So any base optimizer works, and checkpoints and snapshots equal those of networks trained alone.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidConfig, MetaoptError
from ..core.progress import Progress
from ..core.tracker import Parent
from ..tasks import Batch, Task
from .config import TrainTargetConfig
from .functional import network_losses
from .run import Outcome, run_steps
from .state import Step

log = logging.getLogger(__name__)


def record_group(configs: Sequence[TrainTargetConfig], task: Task, parent: Parent, bar: Progress) -> list[Outcome]:
    """Record several runs side by side. A run that fails does not stop the others.

    Args:
        configs: one per run.
        parent: opens the tracker of each run.
        bar: counts the steps of all runs.
    Returns: the outcome of each run, in the order of the configurations.
    """
    runs = [run_steps(config, task, parent, bar) for config in configs]
    outcomes: dict[int, Outcome] = {}
    next_steps: dict[int, Step] = {}

    def advance(index: int, resume: Callable[[Any], Step], value: Any) -> None:
        try:
            next_steps[index] = resume(value)
            return
        except StopIteration as finished:
            outcomes[index] = finished.value
        except Exception as error:
            if not isinstance(error, MetaoptError):
                log.exception("random seed %d failed", configs[index].seed)
            outcomes[index] = error
        next_steps.pop(index, None)

    try:
        for index, run in enumerate(runs):
            advance(index, run.send, None)
        while next_steps:
            earliest = min(step.state.step for step in next_steps.values())  # resumed runs may be at different steps
            chosen = {index: step for index, step in next_steps.items() if step.state.step == earliest}
            try:
                losses = take_steps(list(chosen.values()))
            except Exception as error:
                for index in chosen:
                    advance(index, runs[index].throw, error)
                continue
            for index, loss in zip(chosen, losses, strict=True):
                advance(index, runs[index].send, loss)
    except BaseException as error:  # such as Ctrl-C: each run closes its tracker
        for index in next_steps:
            with suppress(BaseException):
                runs[index].throw(error)
        raise
    return [outcomes[index] for index in range(len(configs))]


def take_steps(steps: Sequence[Step]) -> list[float]:
    """Take one step of several networks that differ only in their numbers; returns their losses before it.

    Equal to steps taken one by one, up to rounding.

    Raises:
        InvalidConfig: the network or the base optimizer does not support batched training.
    """
    if len({len(step.batch.labels) for step in steps}) > 1 or len(steps) == 1:
        return [step.take() for step in steps]
    states = [step.state for step in steps]
    if isinstance(states[0].optimizer, torch.optim.LBFGS):
        raise InvalidConfig(
            "LBFGS evaluates the loss several times per step; give vectorize=1, or another base optimizer"
        )
    for state in states:
        state.model.train()
        state.optimizer.zero_grad()
    buffers = _stacked([dict(state.model.named_buffers()) for state in states])
    losses = _losses(steps, buffers)
    losses.sum().backward()
    for state, *values in zip(states, *(buffer.unbind() for buffer in buffers.values()), strict=True):
        for name, value in zip(buffers, values, strict=True):
            state.model.get_buffer(name).copy_(value)
        state.optimizer.step()
    return losses.tolist()


def _losses(steps: Sequence[Step], buffers: dict[str, Tensor]) -> Tensor:
    model, task, device = steps[0].state.model, steps[0].state.task, steps[0].state.device
    parameters = _stacked([dict(step.state.model.named_parameters()) for step in steps])
    batches = [step.batch.to(device) for step in steps]
    stacked = Batch(*(torch.stack(each) for each in zip(*batches, strict=True)))
    try:
        return network_losses(model, {**parameters, **buffers}, task.loss, stacked)
    except (RuntimeError, NotImplementedError) as error:
        raise InvalidConfig(
            f"{type(model).__name__} cannot be trained as one batched network ({str(error).splitlines()[0]}); networks "
            "that draw random numbers in training, as dropout does, cannot. Give vectorize=1, and more workers"
        ) from error


def _stacked(tensors: Sequence[dict[str, Tensor]] | Sequence[dict[str, nn.Parameter]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in tensors]) for name in tensors[0]}
