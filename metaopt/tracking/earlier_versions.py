"""Versions that an earlier attempt of a job has registered: a job that begins again after a kill registers once."""

from collections.abc import Callable, Iterator

import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from torch import nn

from ..core.control import control
from .store_errors import MISSING
from .tags import PARENT_TAG

_CHILDREN = 1000  # of a run of an earlier attempt that are looked at [count]


def earlier_version(client: MlflowClient, name: str, is_same: Callable[[str], bool]) -> int | None:
    """The newest version of a name that an earlier attempt of this process's job has registered, or has begun to.

    Args:
        is_same: whether the model at a URI has the weights that are to be registered. On a GPU, an attempt that trains
            again may have others.
    Returns: its number; None if there is none, or this process runs no job.
    Raises:
        MlflowException: the store failed.
    """
    versions = {
        int(found.version)
        for earlier in control.earlier_runs
        for run_id in _with_children(client, earlier)
        for found in client.search_model_versions(f"run_id = '{run_id}'")
        if found.name == name
    }
    return next((each for each in sorted(versions, reverse=True) if is_same(f"models:/{name}/{each}")), None)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same weights and buffers, bit for bit, on whatever devices."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)


def _with_children(client: MlflowClient, run_id: str) -> Iterator[str]:
    """A run and its children, in which the main job registers; nothing for a run that the store does not have."""
    try:
        experiment = client.get_run(run_id).info.experiment_id
    except MlflowException as error:
        if error.error_code == MISSING:
            return
        raise
    yield run_id
    query = f"tags.`{PARENT_TAG}` = '{run_id}'"
    yield from (child.info.run_id for child in client.search_runs([experiment], query, max_results=_CHILDREN))
