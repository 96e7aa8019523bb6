"""What a generative optimizer has to beat, beside what is read out of the hold twin: one line each."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ..optimizers.average import Average
from ..optimizers.base import GenerativeOptimizer
from ..optimizers.line import Line
from ..optimizers.slopes import Slopes, SlopesConfig
from .twins import Bench, Rule


def cosine(bench: Bench, model: nn.Module) -> torch.optim.Optimizer:
    """The base optimizer with a learning rate that falls to zero over the budget along a cosine (arXiv:1608.03983)."""
    optimizer = bench.base_optimizer(model)
    schedule = CosineAnnealingLR(optimizer, bench.config.steps)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def schedule_free(bench: Bench, model: nn.Module) -> torch.optim.Optimizer:
    """Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682) at the same learning rate, without weight decay."""
    from schedulefree import AdamWScheduleFree  # only where all baselines run

    optimizer: torch.optim.Optimizer = AdamWScheduleFree(bench.weights_of(model), lr=bench.lr)
    optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def nowcasts(averaging: float) -> dict[str, GenerativeOptimizer]:
    """Generative optimizers without anything learned.

    Args:
        averaging: decay of the running averages that the judged optimizer is shown, 0 for the weights themselves: the
            slopes are those of the same snapshots.
    """
    return {"line": Line(), "average": Average(), "slopes": Slopes(SlopesConfig(averaging=averaging))}


TRAININGS: Mapping[str, Rule] = {"cosine": cosine, "schedule-free": schedule_free}
"""Other ways to train, each with a training of its own."""
