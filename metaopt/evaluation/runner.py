"""Trains the twins of a case, or finds them in the cache, and lets the judged optimizer predict from their states."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from ..core.config import Range
from ..core.errors import Diverged
from ..core.progress import NO_PROGRESS, Progress, progress, sub_progress
from ..generative.base import GenerativeOptimizer
from ..generative.files import optimizer_facts
from ..tasks import Task
from ..weights.files import digest_of
from .baselines import TRAININGS, nowcasts
from .cache import PairedRun, RunCache
from .config import EvaluateConfig
from .controls import CONTROLS, SinglePredictions
from .novelty import SeenWeights
from .paired_runs import AverageObserver, HoldObserver, Rule, RunSetup, train_contender
from .read_outs import READ_OUT_OF_NOWCASTS, READ_OUTS
from .results import CHAMPION, HOLD, Comparison, Curve, Novelty, Prediction

_SHARED = (
    "task",
    "task_options",
    "target_model",
    "target_options",
    "base_optimizer",
    "base_optimizer_options",
    "batch_size",
    "steps",
    "stride",
)

_NOWCASTS = 4  # raise it when `Nowcast` or its guard does something else by default

log = logging.getLogger(__name__)


class PairedEvaluation:
    """All contenders of a case, and where their twins are kept.

    Args:
        learned: the optimizers that have learned something, by their names among the contenders; the last is judged.
    Raises:
        TrajectoryError: nothing in `seen` has the layout of the network.
    """

    def __init__(self, config: EvaluateConfig, task: Task, learned: Mapping[str, GenerativeOptimizer]) -> None:
        self.config, self.task = config, task
        self._judged = list(learned)[-1]
        unlearned = {} if config.baselines == "none" else nowcasts(learned[self._judged].averaging)
        self._predicting = {**unlearned, **learned}
        settings = config.to_mapping()
        facts = {**{name: settings[name] for name in _SHARED}, "data": task.digest(), "measured": config.measured}
        self._cache = RunCache(config.cache_dir, facts)
        self._seen_weights = (
            SeenWeights(RunSetup(config, task, config.seed), config.seen) if config.seen is not None else None
        )
        self._bar = NO_PROGRESS

    def compare(self) -> Comparison:
        """Run every contender at every learning rate.

        Learning rates at which the base optimizer alone diverges are left out.

        Raises:
            Diverged: it diverges at all of them, so there is nothing to compare with.
        """
        curves: list[Curve] = []
        predictions: list[Prediction] = []
        failed: Diverged | None = None
        for rate in self.config.rates:
            try:
                more_curves, more_predictions = self.curves_and_predictions(rate)
            except Diverged as error:
                log.warning("lr %s is left out: %s", rate, error)
                failed = error
                continue
            curves += more_curves
            predictions += more_predictions
        if failed is not None and not curves:
            raise failed
        novelty = self.novelty(curves[0].rate)
        return Comparison(self.config.to_mapping(), self._judged, tuple(curves), tuple(predictions), novelty)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show how far the contest is while the block runs."""
        config = self.config
        further = 1 + (max(config.seeds, 2) if self._seen_weights else 0)  # hold twins; mostly, the cache has them
        pieces = len(config.rates) * self._pieces_at_a_rate() + further * config.steps
        with progress(pieces, f"judging {self._judged}: {config.target_model} on {config.task}", "piece") as self._bar:
            yield
        self._bar = NO_PROGRESS

    def curves_and_predictions(self, rate: Range) -> tuple[list[Curve], list[Prediction]]:
        """Everything at one learning rate.

        Raises:
            Diverged: the hold twin's loss is not finite, so that there is nothing to compare with.
        """
        whole = self._bar
        with sub_progress(whole, self._pieces_at_a_rate()) as self._bar:
            try:
                return self._all_seeds(rate)
            finally:
                self._bar = whole

    def _pieces_at_a_rate(self) -> int:
        """Steps of all twins and single predictions at one learning rate [count]."""
        config = self.config
        twins = 1 + len(self._predicting) + (len(TRAININGS) if config.baselines == "all" else 0)
        judged = len(self._predicting) + (len(CONTROLS) if config.controls else 0)
        other = config.steps if config.controls else 0
        return other + config.seeds * (twins * config.steps + judged * (config.steps // config.every))

    def _all_seeds(self, rate: Range) -> tuple[list[Curve], list[Prediction]]:
        curves: list[Curve] = []
        predictions: list[Prediction] = []
        others = self.other(rate).snapshots if self.config.controls else None
        for seed in range(self.config.seed, self.config.seed + self.config.seeds):
            setup = RunSetup(self.config, self.task, seed, rate)
            hold = self.hold(setup)
            curves += [*hold.curves, *self._rivals(setup)]
            single = SinglePredictions(setup, hold.snapshots, self._bar)
            predictions += [made for name, each in self._predicting.items() for made in single.judge(name, each)]
            if others is not None:
                predictions += single.judge_controls(self._predicting[self._judged], others)
            shown = _final_losses(curves, seed, (HOLD, self._judged))
            log.info("random seed %d, lr %s: final validation loss %s", seed, rate, shown)
        return curves, predictions

    def novelty(self, rate: str) -> Novelty | None:
        """How far from anything in `seen` the judged optimizer's predictions are; None where nothing is given."""
        if self._seen_weights is None:
            return None
        seeds = range(self.config.seed, self.config.seed + max(self.config.seeds, 2))
        setups = [RunSetup(self.config, self.task, seed, Range.parse(rate)) for seed in seeds]
        runs = [self.hold(setup).snapshots for setup in setups]
        return self._seen_weights.novelty(self._predicting[self._judged], runs)

    def other(self, rate: Range) -> PairedRun:
        """A hold twin beyond the random seeds that are judged, so that no control sees a run that is a contender."""
        return self.hold(RunSetup(self.config, self.task, self.config.seed + self.config.seeds, rate))

    def hold(self, setup: RunSetup) -> PairedRun:
        """The base optimizer alone, with what is read out of it, and such snapshots as the judged one is shown.

        Raises:
            Diverged: its loss is not finite.
        """
        averaging = self._predicting[self._judged].averaging

        def train(bar: Progress) -> PairedRun:
            observer = HoldObserver(setup, READ_OUTS, averaging=averaging)
            curve = train_contender(setup, HOLD, watch=observer, bar=bar)
            return PairedRun((curve, *observer.curves(curve)), observer.snapshots)

        facts = {"contender": HOLD, "read out": list(READ_OUTS), "averaging": averaging}
        hold = self._twin({**_place(setup), **facts}, train)
        if not all(map(math.isfinite, hold.curves[0].losses)):
            raise Diverged(
                f"{setup.config.base_optimizer} alone diverges with random seed {setup.seed} at lr {setup.lr:.3g}, so "
                "there is nothing to compare with; take a lower lr"
            )
        return hold

    def _rivals(self, setup: RunSetup) -> list[Curve]:
        curves: list[Curve] = []
        if self.config.baselines == "all":
            for name, rule in TRAININGS.items():
                curves += self._training(setup, name, rule)
        for name, optimizer in self._predicting.items():
            curves += self._nowcasting(setup, name, optimizer)
        return curves

    def _training(self, setup: RunSetup, name: str, rule: Rule) -> tuple[Curve, ...]:
        facts = {**_place(setup), "contender": name}
        return self._twin(facts, lambda bar: PairedRun((train_contender(setup, name, rule, bar=bar),), {})).curves

    def _nowcasting(self, setup: RunSetup, name: str, optimizer: GenerativeOptimizer) -> list[Curve]:
        """A nowcasting twin: the average where its optimizer is one of averages, with the weights beside it.

        Of an optimizer of weights it is the other way round. The cache knows a twin by its optimizer's own weights,
        whatever it is called: today's candidate is tomorrow's champion.
        """

        def train(bar: Progress) -> PairedRun:
            observer = AverageObserver(setup)
            curve = train_contender(setup, name, optimizer, observer, bar)
            return PairedRun((observer.curve(curve), curve), {})

        digest = digest_of(optimizer.state_dict(), optimizer_facts(optimizer))
        facts = {
            "optimizer": digest,
            "nowcasts": _NOWCASTS,
            "policy": asdict(self.config.policy),
            "guard_batch": self.config.guard_batch,
        }
        average, own = self._twin({**_place(setup), **facts}, train).curves
        if optimizer.averaging:
            shown, suffix = replace(average, events=own.events), f"without {READ_OUT_OF_NOWCASTS}"
            other = replace(own, events=())
        else:
            shown, other, suffix = own, average, f"+ {READ_OUT_OF_NOWCASTS}"
        others = [replace(other, contender=f"{name} {suffix}")] if name == self._judged else []
        return [*others, replace(shown, contender=name)]

    def _twin(self, facts: Mapping[str, Any], train: Callable[[Progress], PairedRun]) -> PairedRun:
        """A twin from the cache, or trained now."""
        with sub_progress(self._bar, self.config.steps) as bar:
            return self._cache.twin(facts, lambda: train(bar))


def _place(setup: RunSetup) -> dict[str, Any]:
    return {"random seed": setup.seed, "lr": setup.lr, "rate": str(setup.rate)}


def _final_losses(curves: list[Curve], seed: int, names: tuple[str, ...]) -> str:
    shown = [curve for curve in curves if curve.seed == seed and curve.contender in names]
    return ", ".join(f"{curve.contender} {curve.losses[-1]:.4f}" for curve in shown)


def contender_name(optimizer: GenerativeOptimizer) -> str:
    """What the evaluated optimizer is called among the contenders: `perceiver` for a PerceiverOptimizer."""
    name = type(optimizer).__name__.removesuffix("Optimizer").lower() or "optimizer"
    taken = {HOLD, CHAMPION, *READ_OUTS, *TRAININGS, *nowcasts(optimizer.averaging)}
    return f"judged {name}" if name in map(str.lower, taken) else name
