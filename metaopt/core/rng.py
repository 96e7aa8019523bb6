"""Random numbers: seeds, generators and their states.

Code draws either from its own `generator`, or from the global generators after `seed_all`. Checkpoints store the states
of the global generators, so that a resumed training draws the same numbers.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def generator(*numbers: int) -> torch.Generator:
    """A generator on the CPU, seeded by a hash of the given numbers."""
    text = ",".join(map(str, numbers))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))


@contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Restore the global generators after the block: numbers drawn inside have no effect outside.

    These are the generators of Python, NumPy and torch, on the CPU and on CUDA devices if CUDA is in use.

    Args:
        seed: seed of the generators inside the block; by default they continue from their states.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(_used_cuda_devices()):
        try:
            if seed is not None:
                _seed_in_use(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _seed_in_use(seed: int) -> None:
    """Seed the global generators, but not those of devices that are not in use: that would change their later start."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def seed_torch(seed: int) -> None:
    """Seed torch's global generators, but not those of Python and NumPy."""
    torch.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The states of the global generators in a form that checkpoints can store."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _used_cuda_devices()],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore the states that `random_states` returned, also on a machine with fewer devices."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    for device, state in zip(_used_cuda_devices(), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)


def _used_cuda_devices() -> range:
    """The CUDA devices, or none if this process does not use CUDA: their states are then those of their seed.

    Reading the states would start CUDA, which takes seconds and memory of each device.
    """
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
