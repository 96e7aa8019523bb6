"""Phase 2 on live trainings: the optimizer learns where it is used, for what comes of its predictions later."""

import math
from collections import defaultdict
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.progress import NO_PROGRESS, Progress, progress
from ..core.rng import generator
from ..core.tracker import Tracker
from ..generative import GenerativeOptimizer
from ..nowcast.policy import NowcastPolicy, rank
from ..tasks import Batch
from .config import TrainOptimizerConfig
from .mixture import MixtureComponent, read_mixture, start
from .objectives import log_loss
from .paired_speedup import paired_speedup
from .problem import InnerProblem
from .state import MetaTrainingState

_PLAIN_COHORTS = 2  # of each ingredient, for the warm-up
_DRAWN = 16  # histories in an update of the warm-up
_GAPS = (0.5, 1.0, 1.0, 2.0)  # times `every`
_ANY = 0.3  # share of rows that follow any horizon in between, so that one alone is of use, too
_LATER = 0.8  # share of the later gradient; the rest is that of the loss right after the prediction


class OnlineSource:
    """Rounds of inner trainings of a mixture, each from its first step, nowcast by the optimizer that is being trained.

    Args:
        config: the mixture, and how its trainings go.
        history: how many snapshots the optimizer looks at [count].
        averaging: decay of the running average of which they are; 0 for the weights themselves.
    Raises:
        InvalidConfig, UnknownName, TaskDataError: the mixture names something that cannot be.
    """

    held_out: list[str]

    def __init__(self, config: TrainOptimizerConfig, history: int, averaging: float) -> None:
        assert config.mixture is not None
        self.components = read_mixture(config.mixture, config.data_dir)
        self.warm_up = config.warm_up
        self.races_every = config.checkpoint_every
        self.plan = OnlineSettings(config.inner_steps, config.policy, history, averaging, config.task_batch)
        self.seed = config.seed
        self.learned, self.held_out = [each.name for each in self.components], []
        self.subjects = list(
            dict.fromkeys(f"{each.config.target_model} on {each.config.task}" for each in self.components)
        )
        self.layouts = list(dict.fromkeys(each.problem.layout for each in self.components))
        self.stride = float(config.stride)
        self._plain: list[WarmUpTrainings] = []
        self._random = generator(self.seed, -2)
        self._data = {each.name: each.problem.task.digest() for each in self.components}
        mixture = {each.name: [each.config.to_mapping(), self._data[each.name]] for each in self.components}
        self.settings: dict[str, Any] = {**config.settings(), "mixture": mixture}

    def describe(self, tracker: Tracker) -> None:
        """Tell the data of the mixture."""
        uses: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for each in self.components:
            source = str(each.config.data_dir or "part of the installed packages")
            uses[each.config.task, source, self._data[each.name]].append(each.name)
        for (task, source, digest), names in uses.items():  # a run has each data set once
            tracker.dataset(task, source, digest, ", ".join(names))

    def updates(self, epoch: int) -> int:
        """About how many nowcasts a round has [count]; the first one also has the warm-up's updates."""
        warm_up = 0 if epoch else self.warm_up
        return warm_up + len(self.components) * max(self.plan.steps // self.plan.policy.every - 1, 1)

    def prepare(self, run: MetaTrainingState) -> None:
        """Run the trainings that the warm-up learns from, before the first round."""
        if run.epoch or not self.warm_up:
            return
        steps = len(self.components) * _PLAIN_COHORTS * self.plan.steps
        with progress(steps, "plain trainings for the warm-up") as bar:
            self._plain = [WarmUpTrainings(each, self.plan, self._random, bar) for each in self.components]

    def train(self, run: MetaTrainingState, bar: Progress) -> dict[str, float]:
        """A round: trainings of every ingredient, from their first step to their last.

        They begin one after another, so that updates that follow each other come from all stages of training. The first
        round comes after the warm-up.
        """
        if run.epoch == 0:
            self._warm_up(run, bar)
        count = len(self.components)
        seeds = [_seed(self.seed, run.epoch, number) for number in range(count)]
        cohorts = [
            Cohort(each, self.plan, seed, begins=number * self.plan.steps // count)
            for number, (each, seed) in enumerate(zip(self.components, seeds, strict=True))
        ]
        gathered: dict[str, list[float]] = defaultdict(list)
        while running := [cohort for cohort in cohorts if not cohort.over]:
            cohort = min(running, key=lambda each: each.clock)
            update = lookahead_update(run.model, cohort)
            run.update(update.objective)
            bar.update(loss=update.figures["log_loss_change"])
            for name, value in update.figures.items():
                gathered[f"train_{name}"].append(value)
                gathered[f"train_{name}/{cohort.component.name}"].append(value)
        return {name: fmean(values) for name, values in gathered.items()}

    def _warm_up(self, run: MetaTrainingState, bar: Progress) -> None:
        """Learn what lowers the loss at once, in trainings without nowcasts: many updates from each of them."""
        random = self._random
        for number in range(self.warm_up):
            trainings = self._plain[number % len(self._plain)]
            problem = trainings.component.problem
            history, times = trainings.draw(random)
            examples = problem.task.sample("meta", self.plan.examples, random)
            predicted = forecast_at_best_horizon(run.model, history, times, self.plan.policy, problem, examples, random)
            loss = log_loss(problem, predicted, examples).mean()
            run.update(loss)
            bar.update(loss=loss.item())
        self._plain = []  # they need not stay in memory

    def judge(self, run: MetaTrainingState) -> dict[str, float]:
        """Where a checkpoint is due, race one of the ingredients by turns, with random seeds that no round has."""
        turn, rest = divmod(run.epoch + 1, self.races_every)
        if rest:
            return {}
        each = self.components[(turn - 1) % len(self.components)]
        plan, seed = self.plan, _seed(self.seed, -1, 0)
        result = paired_speedup(run.predictor, each, plan.steps, plan.policy, seed)
        return {f"val_{name}/{each.name}": value for name, value in result.items()}


def _seed(*numbers: int) -> int:
    return generator(*numbers).initial_seed()


class OnlineSettings(NamedTuple):
    """How the inner trainings of online meta-training go.

    Attributes:
        steps: length of an inner training [steps].
        policy: of its nowcasts; `every` is the mean gap between two, and how far ahead the effect of one is measured.
        history: how many snapshots the optimizer is given [count].
        averaging: decay of the running average that the snapshots are of.
        examples: how many examples losses are measured on [count].
    """

    steps: int
    policy: NowcastPolicy
    history: int
    averaging: float
    examples: int

    def gap(self, random: torch.Generator) -> int:
        """Steps to the next nowcast: half of `every` to twice as many, as a multiple of the stride."""
        factor = _GAPS[int(torch.randint(len(_GAPS), (), generator=random))]
        return self.policy.whole_strides(factor * self.policy.every)


class WarmUpTrainings:
    """Inner trainings of one ingredient without nowcasts, from their first step to their last, kept in memory."""

    def __init__(
        self, component: MixtureComponent, plan: OnlineSettings, random: torch.Generator, bar: Progress = NO_PROGRESS
    ) -> None:
        self.component, self._plan, self._bar = component, plan, bar
        kept = [self._run(random) for _ in range(_PLAIN_COHORTS)]
        self._snapshots = torch.cat(kept)

    def draw(
        self, random: torch.Generator
    ) -> tuple[Float[Tensor, "rows history weights"], Float[Tensor, "rows history"]]:
        """Histories that end anywhere in any of the trainings, and their times."""
        runs, snapshots, _ = self._snapshots.shape
        rows = torch.randint(runs, (_DRAWN,), generator=random)
        ends = torch.randint(1, snapshots, (_DRAWN, 1), generator=random)
        places = (ends + torch.arange(1 - self._plan.history, 1)).clamp(min=0)
        return self._snapshots[rows.unsqueeze(1), places], (places * self._plan.policy.stride).float()

    def _run(self, random: torch.Generator) -> Float[Tensor, "runs snapshots weights"]:
        """The snapshots of a cohort; trainings that diverge are left out."""
        plan = self._plan
        trainings = start(
            self.component, plan.policy, 1, plan.averaging, _seed(int(torch.randint(2**31, (), generator=random)))
        )
        snapshots = [trainings.averaged]
        while trainings.step < plan.steps:
            trainings.advance(plan.policy.stride)
            self._bar.update(plan.policy.stride)
            snapshots.append(trainings.averaged)
        return torch.stack(snapshots, 1)[~trainings.diverged]


class Cohort:
    """Inner trainings of one ingredient, from their first step, and the source of the examples that judge them.

    Args:
        begins: when in its round they begin [steps].
    """

    def __init__(self, component: MixtureComponent, plan: OnlineSettings, seed: int, begins: int = 0) -> None:
        self.component = component
        self.plan = plan
        self.random = generator(seed)
        self.trainings = start(component, plan.policy, plan.history, plan.averaging, seed)
        self.trainings.advance(plan.gap(self.random))
        self._begins = begins

    @property
    def clock(self) -> int:
        """How far they are in their round [steps]."""
        return self._begins + self.trainings.step

    @property
    def over(self) -> bool:
        """Whether the trainings have their length."""
        return self.trainings.step >= self.plan.steps

    def examples(self) -> Batch:
        """Examples held out from inner training, others each time."""
        return self.component.problem.task.sample("meta", self.plan.examples, self.random)


class Update(NamedTuple):
    """What one nowcast of a cohort gave: an objective whose gradient is the one to follow, and figures."""

    objective: Tensor
    figures: dict[str, float]


def lookahead_update(model: GenerativeOptimizer, cohort: Cohort) -> Update:
    """Nowcast every training of a cohort, train on from there, and judge the prediction by where that leads.

    As in use, several horizons are proposed, a guard keeps the best prediction where the loss does not rise, and the
    weights follow it where the loss does not rise at their short average either.

    First-order: the gradient of the log-loss where the trainings stand some steps later is used as the gradient of the
    prediction, beside that of the loss right after it. Nothing is differentiated through the steps between. Losses are
    those of the running averages: at the weights themselves most of the gain would be less noise, which an average has
    for nothing and the next steps undo. What the weights do not follow learns from the loss right after it alone.
    """
    trainings, plan, problem = cohort.trainings, cohort.plan, cohort.component.problem
    history, times = trainings.past()
    guard_examples, examples = cohort.examples(), cohort.examples()
    predicted = forecast_at_best_horizon(model, history, times, plan.policy, problem, guard_examples, cohort.random)
    change = predicted.detach() - trainings.averaged
    accepted = trainings.accept(predicted.detach(), guard_examples)
    with torch.no_grad():
        before = log_loss(problem, trainings.averaged, examples)
    right_after, now = _judged(problem, predicted.detach(), examples)
    followed = trainings.follow(accepted, change, guard_examples)
    trainings.advance(plan.gap(cohort.random))
    later_loss, later = _judged(problem, trainings.averaged, cohort.examples())
    blended = now.lerp(later, _LATER * followed.float().unsqueeze(1))
    learned = accepted & ~trainings.diverged & blended.isfinite().all(1)
    gradient = torch.where(learned.unsqueeze(1), blended, 0) / max(int(learned.sum()), 1)
    gained = (right_after - before)[learned]
    figures = {
        "log_loss_change": float(gained.mean()) if len(gained) else 0.0,
        "kept": float(accepted.float().mean()),
        "followed": float(followed.float().mean()),
        "later_log_loss": float(later_loss[learned].mean()) if len(gained) else 0.0,
    }
    return Update((predicted * gradient).sum(), figures)


def forecast_at_best_horizon(
    model: GenerativeOptimizer,
    history: Float[Tensor, "rows history weights"],
    times: Float[Tensor, "rows history"],
    policy: NowcastPolicy,
    problem: InnerProblem,
    examples: Batch,
    random: torch.Generator,
) -> Float[Tensor, "rows weights"]:
    """Forecasts at the horizon that a guard would choose, for most rows; differentiable.

    Training on the forecast that would be used lets each horizon specialise; training on all of them would make each
    the same compromise. Some rows take a random horizon in between, so that a single horizon is of use, too.
    """
    last, ahead = times[:, -1], torch.tensor(policy.all_horizons, dtype=times.dtype)
    longest = policy.longest(last)
    with torch.no_grad():
        forecasts = [model.generate(history, times, last + horizon, problem.layout) for horizon in ahead]
        losses = torch.stack([rank(problem.example_losses(weights, examples)) for weights in forecasts])
    losses[ahead.unsqueeze(1) > longest] = math.inf
    best = ahead[losses.argmin(0)]
    anything = torch.rand(best.shape, generator=random) < _ANY
    between = ahead.min() * (longest / ahead.min()) ** torch.rand(best.shape, generator=random)
    return model.generate(history, times, last + torch.where(anything, between, best), problem.layout)


def _judged(problem: InnerProblem, weights: Tensor, examples: Batch) -> tuple[Float[Tensor, " rows"], Tensor]:
    """The log-loss of each network, and its gradient."""
    leaf = weights.detach().requires_grad_()
    losses = log_loss(problem, leaf, examples)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), gradient
