"""Baselines: what an optimizer is compared with, beside the base optimizer alone.

Four kinds: read-outs of the hold run, such as averages of its weights; other training rules, some of them around the
base optimizer; those with an end of their own for each budget, such as schedules of the learning rate; and nowcasts
without learned parameters. The base optimizer whose numbers are learned is trained as they are, and is not a baseline.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from torch import nn, optim

from ..generative.base import GenerativeOptimizer
from ..generative.extrapolation import Average, Line, Slopes, SlopesConfig
from ..optimizers import optimizer_for, without_momentum
from .budget_runs import BudgetTraining
from .paired_runs import OptimizerFactory, RunSetup
from .read_outs import EMA, DerivedWeights, GrowingAverage, LatestWeightAverage, NonlinearAcceleration
from .schedules import DECAY, cosine, linear_decay
from .trainable_averaging import LEARNED, trainable_averaging


def _around_base(name: str, setup: RunSetup, model: nn.Module, *, own_momentum: bool = True) -> optim.Optimizer:
    """An optimizer that adds momentum or averaging to the base optimizer, with its default options.

    Args:
        own_momentum: whether the base optimizer keeps its momentum, whose place an average can take.
    """
    base, base_options = setup.config.base_optimizer, setup.config.base_optimizer_options
    if not own_momentum:
        base_options = without_momentum(base, base_options)
    return optimizer_for(model, name, setup.lr, {"base": base, "base_options": base_options})


def _schedule_free(setup: RunSetup, model: nn.Module) -> optim.Optimizer:
    """Schedule-Free AdamW (arXiv:2405.15682) at the same learning rate, without weight decay."""
    return optimizer_for(model, "AdamWScheduleFree", setup.lr, {})


def _muon(setup: RunSetup, model: nn.Module) -> optim.Optimizer:
    """Muon for matrices and Adam for other weights, both at a learning rate of Adam (arXiv:2502.16982)."""
    return optimizer_for(model, "MuonMemory", setup.lr, {"adjust_lr_fn": "match_rms_adamw", "others": "adam"})


def _soap(momentum: float, setup: RunSetup, model: nn.Module) -> optim.Optimizer:
    """SOAP (arXiv:2409.11321) without weight decay."""
    return optimizer_for(model, "SOAP", setup.lr, {"weight_decay": 0.0, "betas": (momentum, 0.95)})


def _learned_soap(setup: RunSetup, model: nn.Module) -> optim.Optimizer:
    """SOAP with learned numbers."""
    return optimizer_for(model, "LearnedSOAP", setup.lr, {})


def nowcast_baselines(averaging: float) -> dict[str, GenerativeOptimizer]:
    """Generative optimizers without learned parameters.

    Args:
        averaging: decay of the running average that the candidate receives as snapshots, 0 for the weights; the slopes
            are fitted to the same snapshots.
    """
    return {"line": Line(), "average": Average(), "slopes": Slopes(SlopesConfig(averaging=averaging))}


DERIVED_BASELINES: Mapping[str, Callable[[], DerivedWeights]] = {
    "EMA 0.98": lambda: EMA(0.98),
    "EMA 0.99": lambda: EMA(0.99),
    "growing average": GrowingAverage,
    "LAWA": LatestWeightAverage,
    "RNA": NonlinearAcceleration,
}
"""Baselines that are derived from the hold run, without a training of their own."""

TRAINED_BASELINES: Mapping[str, OptimizerFactory] = {
    "schedule-free": _schedule_free,
    "outer Nesterov": partial(_around_base, "OuterNesterov"),
    "EMA-Nesterov": partial(_around_base, "EMANesterov"),
    "primal averaging": partial(_around_base, "PrimalAveraging", own_momentum=False),
    "Muon": _muon,
    "SOAP": partial(_soap, 0.95),
    "SOAP 0.5": partial(_soap, 0.5),
}
"""Baselines with another training rule, each trained separately; *SOAP 0.5* has a momentum of 0.5."""


class BudgetBaseline(NamedTuple):
    """A baseline with an end of its own for each part of the budget.

    Attributes:
        training: trains it.
        steps: steps of all its trainings, relative to the budget.
    """

    training: BudgetTraining
    steps: float


BUDGET_BASELINES: Mapping[str, BudgetBaseline] = {
    "cosine": BudgetBaseline(cosine, 2.5),
    "linear decay": BudgetBaseline(linear_decay, 1 + 1.5 * DECAY),
    "trainable averaging": BudgetBaseline(trainable_averaging, 1 + 1.5 * LEARNED),
}
"""Baselines that are measured at the ends of the parts of the budget only."""

LEARNED_BASES: Mapping[str, OptimizerFactory] = {"LearnedSOAP": _learned_soap}
"""Base optimizers whose numbers are learned: trained as the baselines are, and compared with them."""

AVERAGED = ("outer Nesterov", "EMA-Nesterov", "Muon", "SOAP", "SOAP 0.5", *LEARNED_BASES)
"""Training rules that are also read out through a growing average; the others are averages themselves."""
