"""Distributed training: rank 0 decides, and all processes get the same weights.

Uses the default process group of `torch.distributed`. Without one, these functions return their arguments.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def is_rank_0() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not _is_distributed() or dist.get_rank() == 0


def verdict_of_rank_0(verdict: bool, device: torch.device) -> bool:
    """The verdict of rank 0, in all processes."""
    return bool(broadcast_from_rank_0(torch.tensor([float(verdict)]), device))


def broadcast_from_rank_0(values: Tensor, device: torch.device) -> Tensor:
    """The values of rank 0, on the CPU. Their number may differ between ranks.

    Args:
        device: device of the network, on which the process group can communicate.
    """
    if not _is_distributed():
        return values
    count = torch.tensor(len(values), device=device)
    dist.broadcast(count, 0)
    shared = values.to(device) if is_rank_0() else torch.empty(int(count), dtype=values.dtype, device=device)
    dist.broadcast(shared, 0)
    return shared.cpu()


@torch.no_grad()
def broadcast_in_place(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of rank 0."""
    if not _is_distributed():
        return
    for tensor in tensors:
        sent = tensor.detach().contiguous()
        dist.broadcast(sent, 0)
        if sent.data_ptr() != tensor.data_ptr():
            tensor.copy_(sent)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
