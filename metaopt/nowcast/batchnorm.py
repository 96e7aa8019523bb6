"""What BatchNorm remembers of a network's activations, brought up to date with weights that were replaced."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Estimate the running statistics of all BatchNorm layers anew, as the mean over some batches of training inputs.

    Args:
        model: left as it is where it has no such layer.
        batches: inputs, or tuples that start with them.
    """
    with torch.random.fork_rng(devices=[]):  # dropout must not shift the randomness of the training around it
        update_bn(batches, model)
