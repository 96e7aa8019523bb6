"""Evolution of the few numbers of an optimizer for which only whole trainings say what is good."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.progress import Progress
from ..core.rng import generator
from ..generative import GenerativeOptimizer
from .cohort import OnlineSettings
from .inner_loop import MAX_LOSS
from .mixture import MixtureComponent
from .objectives import LOSS_OFFSET
from .state import MetaTrainingState
from .whole_trainings import train_with_nowcasts

PAIRS = 4
"""Pairs of candidates of a generation [count]."""

_FIRST_STEP, _STEP_DECAY = 0.7, 0.85  # standard deviation of the candidates


def evolve(
    state: MetaTrainingState,
    components: Sequence[MixtureComponent],
    settings: OnlineSettings,
    seeds: Sequence[int],
    bar: Progress,
) -> dict[str, float]:
    """Run one round, a generation: move the numbers `evolved` of the optimizer towards those of the best candidates.

    The candidates are drawn around the present numbers, in pairs on opposite sides, and closer with each generation.
    All of them use their own nowcasts in the same trainings, from the first step to the last. A candidate's score is
    the mean log-loss of the second half of the trainings; the best half of the candidates is averaged with weights that
    fall with their rank. Gradients cannot replace this: the loss right after a nowcast, or some steps later, does not
    say what of it training undoes.

    References: Hansen 2016, arXiv:1604.00772 (selection and recombination of CMA-ES). Departs: the distribution is
        isotropic, and its standard deviation depends on the number of the generation alone, so that evolution has no
        state beside the numbers.

    Args:
        seeds: random seeds of this generation's trainings, one for each component; the first one draws the candidates.
        bar: progress bar, updated after every candidate.
    Returns: the mean score of the candidates, the best score and the share of accepted nowcasts.
    """
    optimizer = state.predictor
    centre = evolved_numbers(optimizer).clone()
    drawn = torch.randn(PAIRS, len(centre), generator=generator(seeds[0])).to(centre)
    step = _FIRST_STEP * _STEP_DECAY**state.epoch
    candidates = centre + step * torch.cat([drawn, -drawn])
    scores, kept = [], []
    for candidate in candidates:
        state.set_evolved(candidate)
        results = [_score(optimizer, *each, settings) for each in zip(components, seeds, strict=True)]
        scores.append(fmean(score for score, _ in results))
        kept.append(fmean(share for _, share in results))
        bar.update(log_loss=scores[-1])
    same = min(scores) == max(scores)  # such as without any accepted nowcast
    state.set_evolved(centre if same else recombined(candidates, scores))
    state.step += 1
    return {"train_log_loss": fmean(scores), "train_best": min(scores), "train_kept": fmean(kept)}


def evolved_numbers(optimizer: GenerativeOptimizer) -> Float[Tensor, " numbers"]:
    """The numbers of an optimizer that evolution changes.

    Raises:
        InvalidConfig: it has none.
    """
    if optimizer.evolved is None:
        raise InvalidConfig(
            f"{type(optimizer).__name__} has no numbers that evolution changes; expected a PerceiverOptimizer that was "
            "made with the option gains=true, or method=look-ahead. To resume, give start_from or the options again"
        )
    return optimizer.evolved


def recombined(candidates: Float[Tensor, "candidates numbers"], scores: Sequence[float]) -> Float[Tensor, " numbers"]:
    """The weighted mean of the better half of the candidates; the weights fall with the logarithm of the rank."""
    count = len(candidates) // 2
    ranks = torch.arange(1, count + 1)
    weights = math.log(len(candidates) / 2 + 0.5) - ranks.log()
    best = torch.tensor(scores).argsort()[:count]
    return (weights / weights.sum()).to(candidates) @ candidates[best.to(candidates.device)]


def _score(
    optimizer: GenerativeOptimizer, component: MixtureComponent, seed: int, settings: OnlineSettings
) -> tuple[float, float]:
    """The mean log-loss of the second half of trainings, and the share of accepted nowcasts.

    A training that diverged has the loss at which one counts as diverged.
    """
    found = train_with_nowcasts(optimizer, component, settings.steps, settings.policy, seed, "meta")
    baseline = component.problem.task.baseline_loss
    losses = found.losses[len(found.losses) // 2 :].masked_fill(found.diverged, torch.inf)
    bounded = losses.nan_to_num(torch.inf).clamp(max=MAX_LOSS * baseline)
    return float((bounded + LOSS_OFFSET * baseline).log().mean()), found.kept
