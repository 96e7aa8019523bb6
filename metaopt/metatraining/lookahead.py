"""The look-ahead of online meta-training: gradients of the loss right after a nowcast, and some steps later."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.progress import Progress
from ..generative import GenerativeOptimizer
from ..nowcast.policy import NowcastPolicy, rank
from ..tasks import Batch
from .cohort import Cohort, OnlineSettings
from .mixture import MixtureComponent
from .objectives import log_loss
from .problem import InnerProblem
from .state import MetaTrainingState

_RANDOM_HORIZON_SHARE = 0.3  # of the rows
_LATER_SHARE = 0.8  # of the gradient some steps later; the rest is the gradient right after the nowcast


def look_ahead(
    state: MetaTrainingState,
    components: Sequence[MixtureComponent],
    settings: OnlineSettings,
    seeds: Sequence[int],
    bar: Progress,
) -> dict[str, float]:
    """Run one round: train one cohort of each component from the first step to the last.

    A cohort is a batch of inner trainings. The cohorts start at different times, so that consecutive updates come from
    different times of training.

    Args:
        seeds: random seeds of this round's cohorts, one for each component.
        bar: progress bar, updated after every update.
    Returns: the means of the training metrics, over all components and for each component.
    """
    cohorts = [
        Cohort(each, settings, seed, offset=index * settings.steps // len(components))
        for index, (each, seed) in enumerate(zip(components, seeds, strict=True))
    ]
    values: dict[str, list[float]] = defaultdict(list)
    while running := [cohort for cohort in cohorts if not cohort.finished]:
        cohort = min(running, key=lambda each: each.round_step)
        update = lookahead_update(state.model, cohort)
        state.update(update.objective)
        metrics = {name: float(value) for name, value in update.metrics.items()}
        bar.update(log_loss_change=metrics["log_loss_change"])
        for name, value in metrics.items():
            values[f"train_{name}"].append(value)
            values[f"train_{name}/{cohort.component.name}"].append(value)
    return {name: fmean(each) for name, each in values.items()}


class Update(NamedTuple):
    """One update: an objective to differentiate, and metrics of the nowcasts, all on the device.

    The value of the objective has no meaning; its gradient with respect to a forecast is the look-ahead gradient.
    """

    objective: Tensor
    metrics: dict[str, Tensor]


def lookahead_update(model: GenerativeOptimizer, cohort: Cohort) -> Update:
    """Nowcast every training of a cohort, continue the trainings, and compute the gradient of the forecasts.

    Nowcasts follow the policy as in use: of several horizons the best forecast is accepted if the guard's loss falls,
    and the weights follow it if the loss at their short EMA does not rise either. The gradient of a forecast w is

        g = 0.2 · ∇ℓ(w) + 0.8 · ∇ℓ(w′)   if the weights followed the forecast,
        g = ∇ℓ(w)                         if the forecast was only accepted,
        g = 0                             otherwise, or if the training diverged,

    with the log-loss ℓ and the EMA w′ of the weights some steps later. The gradient is first-order, as in first-order
    MAML (Finn et al. 2017, arXiv:1703.03400): ∇ℓ(w′) replaces the gradient through the steps in between. Losses are
    measured at averages: at the weights themselves, a forecast lowers the loss mostly by removing noise, which an
    average removes anyway and the next steps add again.
    """
    trainings, settings, problem = cohort.trainings, cohort.settings, cohort.component.problem
    history, times = trainings.history()
    guard_examples, examples = cohort.draw_examples(), cohort.draw_examples()
    predicted = forecast_at_best_horizon(model, history, times, settings.policy, problem, guard_examples, cohort.random)
    change = predicted.detach() - trainings.averaged
    accepted = trainings.accept(predicted.detach(), guard_examples)
    with torch.no_grad():
        loss_before = log_loss(problem, trainings.averaged, examples)
    loss_now, gradient_now = _loss_and_gradient(problem, predicted.detach(), examples)
    followed = trainings.follow(accepted, change, guard_examples)
    trainings.advance(settings.draw_gap(cohort.random))
    loss_later, gradient_later = _loss_and_gradient(problem, trainings.averaged, cohort.draw_examples())
    blended = gradient_now.lerp(gradient_later, _LATER_SHARE * followed.float().unsqueeze(1))
    used = accepted & ~trainings.diverged & blended.isfinite().all(1)
    gradient = torch.where(used.unsqueeze(1), blended, 0) / used.sum().clamp(min=1)
    metrics = {
        "log_loss_change": _mean_of(loss_now - loss_before, used),
        "kept": accepted.float().mean(),
        "followed": followed.float().mean(),
        "later_log_loss": _mean_of(loss_later, used),
    }
    return Update((predicted * gradient).sum(), metrics)


def forecast_at_best_horizon(
    model: GenerativeOptimizer,
    history: Float[Tensor, "rows history weights"],
    times: Float[Tensor, "rows history"],
    policy: NowcastPolicy,
    problem: InnerProblem,
    examples: Batch,
    random: torch.Generator,
) -> Float[Tensor, "rows weights"]:
    """Forecasts, differentiable: most rows at the horizon with the lowest loss, the others at a random horizon.

    Training on the horizon that a guard would choose lets the optimizer specialise by horizon; training on all of them
    would compromise between them. The random horizons keep forecasts useful when a single horizon is requested.
    """
    last, horizons = times[:, -1], times.new_tensor(policy.all_horizons)
    longest = policy.longest(last)
    with torch.no_grad():
        forecasts = model.predict_horizons(history, times, last + horizons.unsqueeze(1), problem.layout)
        losses = torch.stack([rank(problem.example_losses(weights, examples)) for weights in forecasts])
    best = horizons[losses.masked_fill(horizons.unsqueeze(1) > longest, math.inf).argmin(0)]
    shortest = horizons.min()
    use_random = torch.rand(best.shape, generator=random).to(best.device) < _RANDOM_HORIZON_SHARE
    random_horizon = shortest * (longest / shortest) ** torch.rand(best.shape, generator=random).to(best.device)
    return model.generate(history, times, last + torch.where(use_random, random_horizon, best), problem.layout)


def _mean_of(values: Float[Tensor, " rows"], used: Bool[Tensor, " rows"]) -> Float[Tensor, ""]:
    """The mean over some rows; 0 without any."""
    return torch.where(used, values, 0.0).sum() / used.sum().clamp(min=1)


def _loss_and_gradient(
    problem: InnerProblem, weights: Float[Tensor, "rows weights"], examples: Batch
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows weights"]]:
    """The log-loss of each network, and its gradient."""
    leaf = weights.detach().requires_grad_()
    losses = log_loss(problem, leaf, examples)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient
