"""Records several runs of phase 1 at the same time: their networks train as one batched network.

Each run has its own weights, batches, learning rate and base optimizer. Only the forward and backward passes are
batched. Every base optimizer except LBFGS is supported. Up to rounding, checkpoints and snapshots equal those of runs
that are recorded separately.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..adapters.fine_tuning import FineTuning
from ..core.control import StopRequested
from ..core.errors import InvalidConfig, MetaoptError
from ..core.progress import Progress
from ..core.tracker import Parent
from ..nested.carried_memory import write_memories
from ..optimizers import optimizer_step
from ..tasks import Batch, Task
from .config import TrainTargetConfig
from .functional import network_losses
from .run import Outcome, run_steps
from .state import Step

log = logging.getLogger(__name__)


def record_group(
    configs: Sequence[TrainTargetConfig], task: Task, parent: Parent, bar: Progress, tuning: FineTuning | None = None
) -> list[Outcome]:
    """Record several runs at the same time.

    If one run fails, the others continue. If a batched step fails, all runs in the batch fail.

    Args:
        configs: the configuration of each run.
        parent: creates the tracker of each run.
        bar: progress bar for the steps of all runs.
        tuning: what all runs start from and train; None reads it for each.
    Returns: the outcome of each run, in the order of `configs`.
    """
    runs = [run_steps(config, task, parent, bar, tuning) for config in configs]
    outcomes: dict[int, Outcome] = {}
    next_steps: dict[int, Step] = {}
    stops: list[StopRequested] = []

    def advance(index: int, resume: Callable[[Any], Step], value: Any) -> None:
        """Resume a run until its next step or its end."""
        try:
            next_steps[index] = resume(value)
            return
        except StopIteration as finished:
            outcomes[index] = finished.value
        except StopRequested as stop:  # the others finish this step, too
            stops.append(stop)
        except Exception as error:
            if not isinstance(error, MetaoptError):
                log.exception("the run with random seed %d failed", configs[index].seed)
            outcomes[index] = error
        next_steps.pop(index, None)

    try:
        for index, run in enumerate(runs):
            advance(index, run.send, None)
        while next_steps:
            earliest = min(step.state.step for step in next_steps.values())  # runs can resume at different steps
            batched = {index: step for index, step in next_steps.items() if step.state.step == earliest}
            try:
                losses = take_steps(list(batched.values()))
            except Exception as error:
                for index in batched:
                    advance(index, runs[index].throw, error)
                continue
            for index, loss in zip(batched, losses, strict=True):
                advance(index, runs[index].send, loss)
            if stops:
                raise stops[0]
    except BaseException as error:  # including KeyboardInterrupt: every run must close its tracker
        for index in next_steps:
            with suppress(BaseException):
                runs[index].throw(error)
        raise
    return [outcomes[index] for index in range(len(configs))]


def take_steps(steps: Sequence[Step]) -> list[float]:
    """Take one training step of several networks with the same architecture.

    Up to rounding, the result equals that of separate steps.

    Returns: the loss of each network before the step.
    Raises:
        InvalidConfig: the network or the base optimizer does not support batched training.
    """
    if len({len(step.batch.labels) for step in steps}) > 1 or len(steps) == 1:
        return [step.take() for step in steps]
    if isinstance(steps[0].state.optimizer, torch.optim.LBFGS):
        raise InvalidConfig(
            "LBFGS evaluates the loss several times per step, which batched training does not support. "
            "Set vectorize=1, or choose another base optimizer"
        )
    return batched_step(steps).tolist()


def batched_step(steps: Sequence[Step]) -> Float[Tensor, " networks"]:
    """Take one step of several networks on their device, without waiting for it; returns the losses before the step."""
    states = [step.state for step in steps]
    for state in states:
        state.model.train()
        state.optimizer.zero_grad()
    buffers = _stacked([dict(state.model.named_buffers()) for state in states])
    losses = _losses(steps, buffers)
    losses.sum().backward()
    measured = losses.detach()
    for (state, batch), loss, *values in zip(steps, measured, *map(torch.unbind, buffers.values()), strict=True):
        for name, value in zip(buffers, values, strict=True):
            state.model.get_buffer(name).copy_(value)
        optimizer_step(state.optimizer, partial(torch.clone, loss))
        write_memories(state.model, batch.inputs.to(state.device))
    return measured


def _losses(steps: Sequence[Step], buffers: dict[str, Tensor]) -> Tensor:
    """The differentiable loss of each network on its batch."""
    model, task, device = steps[0].state.model, steps[0].state.task, steps[0].state.device
    parameters = _stacked([dict(step.state.model.named_parameters()) for step in steps])
    batches = [step.batch.to(device) for step in steps]
    stacked = Batch(*(torch.stack(tensors) for tensors in zip(*batches, strict=True)))
    try:
        return network_losses(model, {**parameters, **buffers}, task.loss, stacked)
    except (RuntimeError, NotImplementedError) as error:
        raise InvalidConfig(
            f"{type(model).__name__} cannot be trained as one batched network ({str(error).splitlines()[0]}). "
            "Networks that draw random numbers during training, for example in dropout, are not supported. "
            "Set vectorize=1, and use more workers to train runs in parallel"
        ) from error


def _stacked(networks: Sequence[dict[str, Tensor]] | Sequence[dict[str, nn.Parameter]]) -> dict[str, Tensor]:
    """Stack the tensors of the same name; dimension 0 indexes the networks."""
    return {name: torch.stack([tensors[name] for tensors in networks]) for name in networks[0]}
