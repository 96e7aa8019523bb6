"""The mean of several trained optimizers, weight by weight: `python -m benchmarks.mean <file> <optimizer>...`.

Checkpoints of one meta-training differ more by noise than by progress; their mean has less noise than each of them
(docs/LOG.md).
"""

import sys
from pathlib import Path

import torch

from metaopt import GenerativeOptimizer, load_optimizer
from metaopt.generative.files import save_optimizer


def mean(sources: list[str]) -> GenerativeOptimizer:
    """The optimizer whose weights are the means of those of several optimizers with equal configurations."""
    optimizers = [load_optimizer(source) for source in sources]
    states = [optimizer.state_dict() for optimizer in optimizers]
    averaged = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    }
    optimizers[0].load_state_dict(averaged)
    return optimizers[0]


if __name__ == "__main__":
    target, *sources = sys.argv[1:]
    save_optimizer(mean(sources), Path(target))
