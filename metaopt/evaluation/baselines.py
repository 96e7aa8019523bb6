"""What a generative optimizer has to beat, beside what is read out of the hold twin: one line each."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ..generative.base import GenerativeOptimizer
from ..generative.extrapolation import Average, Line, Slopes, SlopesConfig
from ..optimizers import build_optimizer
from .paired_runs import Rule, RunSetup


def cosine(setup: RunSetup, model: nn.Module) -> torch.optim.Optimizer:
    """The base optimizer with a learning rate that falls to zero over the budget along a cosine (arXiv:1608.03983)."""
    optimizer = setup.base_optimizer(model)
    schedule = CosineAnnealingLR(optimizer, setup.config.steps)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def schedule_free(setup: RunSetup, model: nn.Module) -> torch.optim.Optimizer:
    """Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682) at the same learning rate, without weight decay."""
    return build_optimizer("AdamWScheduleFree", setup.weights_of(model), setup.lr, {})


def nowcasts(averaging: float) -> dict[str, GenerativeOptimizer]:
    """Generative optimizers without anything learned.

    Args:
        averaging: decay of the running averages that the judged optimizer is shown, 0 for the weights themselves: the
            slopes are those of the same snapshots.
    """
    return {"line": Line(), "average": Average(), "slopes": Slopes(SlopesConfig(averaging=averaging))}


TRAININGS: Mapping[str, Rule] = {"cosine": cosine, "schedule-free": schedule_free}
"""Other ways to train, each with a training of its own."""
