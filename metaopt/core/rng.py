"""Random numbers: seeds, generators and states, for the whole project.

Whatever is random draws from a `generator` of its own numbers, or from the global generators after `seed_all`. The
states of the global ones stand in checkpoints, so that a resumed training draws the same numbers.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def generator(*numbers: int) -> torch.Generator:
    """A random generator of the CPU, seeded by a hash of all the given numbers."""
    text = ",".join(map(str, numbers))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))


@contextmanager
def isolated(seed: int | None = None) -> Iterator[None]:
    """Give torch's generator on the CPU its state back when the block ends: what is drawn inside has no effect outside.

    Args:
        seed: seeds the generator for the block; unseeded by default.
    """
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def seed_torch(seed: int) -> None:
    """Seed torch's global generators alone."""
    torch.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed every generator that a target, task or optimizer may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The states of these generators, as a checkpoint can hold them."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the states that `random_states` gave."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
