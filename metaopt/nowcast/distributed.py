"""Training in several processes: the first one decides, and all end with the same weights.

Uses the default process group of `torch.distributed`; with one process everything here does nothing.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def is_first() -> bool:
    """Whether this process is the one that decides."""
    return not _several() or dist.get_rank() == 0


def agreed(verdict: bool, device: torch.device) -> bool:
    """The verdict of the first process, in all processes."""
    return bool(first_values(torch.tensor([float(verdict)]), device))


def first_values(values: Tensor, device: torch.device) -> Tensor:
    """The values of the first process, in all processes; their number may differ before.

    Args:
        device: that of the network, on which the processes can exchange tensors.
    """
    if not _several():
        return values
    count = torch.tensor(len(values), device=device)
    dist.broadcast(count, 0)
    shared = values.to(device) if is_first() else torch.empty(int(count), dtype=values.dtype, device=device)
    dist.broadcast(shared, 0)
    return shared.cpu()


@torch.no_grad()
def share(tensors: Iterable[Tensor]) -> None:
    """Copy the first process's tensors over those of the others."""
    if not _several():
        return
    for tensor in tensors:
        sent = tensor.detach().contiguous()
        dist.broadcast(sent, 0)
        if sent.data_ptr() != tensor.data_ptr():
            tensor.copy_(sent)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
