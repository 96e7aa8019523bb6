"""Paired evaluation: trains all contenders of a case, or reads them from the cache, and measures single predictions."""

import logging
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from ..adapters.fine_tuning import FineTuning
from ..core.config import Range
from ..core.devices import CPU, device_name, find_device
from ..core.errors import Diverged
from ..core.progress import NO_PROGRESS, Progress, announced, progress, sub_progress
from ..generative.base import GenerativeOptimizer
from ..generative.files import optimizer_facts
from ..nowcast.optimizer import Nowcast
from ..tasks import Task
from ..weights.files import digest_of
from . import budget_runs
from .baselines import (
    AVERAGED,
    BUDGET_BASELINES,
    DERIVED_BASELINES,
    LEARNED_BASES,
    TRAINED_BASELINES,
    nowcast_baselines,
)
from .budget_runs import budget_curve
from .cache import PairedRun, RunCache
from .code_digest import code_digest
from .config import EvaluateConfig
from .novelty import SeenWeights
from .observers import AverageObserver, HoldObserver, ReadOutObserver
from .paired_runs import OptimizerFactory, RunSetup, train_contender
from .predictions import CONTROLS, SinglePredictions
from .read_outs import GrowingAverage
from .results import AVERAGE, CHAMPION, HOLD, NO_GUARD, NOWCAST_EMA, Comparison, Curve, Novelty, Prediction, label

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

_NOWCASTS = 4  # raise it when `Nowcast` or its guard behaves differently by default

log = logging.getLogger(__name__)


class PairedEvaluation:
    """Runs the contenders of a case, and lets those that predict do so from the states of the hold runs.

        optimizer = get_optimizer_model("Line")
        evaluation = PairedEvaluation(config, load_task(config.task), {contender_name(optimizer): optimizer})
        with evaluation.progress_bar():
            comparison = evaluation.compare()

    Args:
        learned: the optimizers to evaluate beside the baselines, by contender name; the last one is the candidate. They
            are moved to the device of the configuration.
        rates: learning rates of each contender, as in `Curve`, to run these contenders at these learning rates only,
            without single predictions; for example at those that were best on other random seeds.
    Raises:
        TrajectoryError: no trajectory in `seen` has the layout of the network.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        task: Task,
        learned: Mapping[str, GenerativeOptimizer],
        rates: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.config, self.task, self._rates = config, task, rates
        self._candidate = list(learned)[-1]
        self._averaging = learned[self._candidate].averaging
        baselines = {} if config.baselines == "none" else nowcast_baselines(self._averaging)
        self._predictors = {**baselines, **learned}
        self._all = config.baselines == "all"
        self._trained = {**TRAINED_BASELINES, **LEARNED_BASES} if self._all else {}
        settings = config.to_mapping()
        device = find_device(config.device)
        for optimizer in learned.values():
            optimizer.to(device)
        facts = {**{name: settings[name] for name in _SHARED}, "data": task.digest(), "measured": config.measured_steps}
        if device != CPU:
            facts["device"] = device_name(device)
        self._cache = RunCache(config.cache_dir, facts)
        self._tuning: FineTuning | None = None
        self._seen_weights = SeenWeights(self._setup(config.seed), config.seen) if config.seen is not None else None
        self._bar = NO_PROGRESS

    def compare(self) -> Comparison:
        """Run every contender at every learning rate.

        Learning rates at which the base optimizer alone diverges are left out.

        Raises:
            Diverged: the base optimizer alone diverges at every learning rate.
        """
        curves: list[Curve] = []
        predictions: list[Prediction] = []
        failed: Diverged | None = None
        for rate in self.config.rates:
            if not self._runs_at(rate, *(self._rates or ())):
                continue
            try:
                with self._share_of_bar(self._pieces_per_rate()):
                    more_curves, more_predictions = self._at_rate(rate)
            except Diverged as error:
                log.warning("lr %s is left out: %s", rate, error)
                failed = error
                continue
            curves += more_curves
            predictions += more_predictions
        if failed is not None and not curves:
            raise failed
        novelty = self._novelty(curves[0].rate)
        return Comparison(self.config.to_mapping(), self._candidate, tuple(curves), tuple(predictions), novelty)

    def hold_run(self, setup: RunSetup) -> PairedRun:
        """The run of the base optimizer alone, the baselines derived from it, and its snapshots.

        The snapshots contain the running average that the candidate predicts, or the weights.

        Raises:
            Diverged: its loss is not finite.
        """

        def train(bar: Progress) -> PairedRun:
            observer = HoldObserver(setup, DERIVED_BASELINES, averaging=self._averaging)
            curve = train_contender(setup, HOLD, observer=observer, bar=bar)
            return PairedRun((curve, *observer.curves(curve)), observer.snapshots)

        facts = {"contender": HOLD, "read out": list(DERIVED_BASELINES), "averaging": self._averaging}
        hold = self._cached({**_setup_facts(setup), **facts}, train)
        if not all(map(math.isfinite, hold.curves[0].losses)):
            raise Diverged(
                f"{setup.config.base_optimizer} alone diverges with random seed {setup.seed} at lr {setup.lr:.3g}, so "
                "there is nothing to compare with; take a lower lr"
            )
        return hold

    @contextmanager
    def progress_bar(self) -> Iterator[None]:
        """Show the progress of the evaluation while the block runs."""
        config = self.config
        hold_runs = 1 + (max(config.seeds, 2) if self._seen_weights else 0)  # after `compare`; mostly from the cache
        pieces = len(config.rates) * self._pieces_per_rate() + hold_runs * config.steps
        title = f"evaluating {self._candidate}: {config.target_model} on {config.task}"
        advice = "fewer --seeds or --steps, --baselines none, or --controls false"
        with progress(pieces, title, "piece") as bar:
            self._bar = announced(bar, pieces, config.steps, advice)  # measured on the first training
            yield
        self._bar = NO_PROGRESS

    def _pieces_per_rate(self) -> int:
        """Steps of all runs and single predictions at one learning rate [count]."""
        config = self.config
        runs: float = 1 + len(self._predictors) + len(self._trained)
        if self._all:
            runs += 1 + sum(baseline.steps for baseline in BUDGET_BASELINES.values())  # the candidate without a guard
        predictions = len(self._predictors) + (len(CONTROLS) if config.controls else 0)
        control_run = config.steps if config.controls else 0
        pieces = round(runs * config.steps) + predictions * (config.steps // config.every)
        return control_run + config.seeds * pieces

    @contextmanager
    def _share_of_bar(self, pieces: int) -> Iterator[None]:
        whole = self._bar
        with sub_progress(whole, pieces) as self._bar:
            try:
                yield
            finally:
                self._bar = whole

    def _at_rate(self, rate: Range) -> tuple[list[Curve], list[Prediction]]:
        curves: list[Curve] = []
        predictions: list[Prediction] = []
        controls = self.config.controls and self._rates is None
        others = self._control_run(rate).snapshots if controls else None
        for seed in range(self.config.seed, self.config.seed + self.config.seeds):
            setup = self._setup(seed, rate)
            if self._runs_at(rate, HOLD, *DERIVED_BASELINES):
                hold = self.hold_run(setup)
                curves += hold.curves
            curves += self._other_curves(setup)
            if self._rates is None:
                single = SinglePredictions(setup, hold.snapshots, self._bar)
                for name, optimizer in self._predictors.items():
                    predictions += single.predict(name, optimizer)
                if others is not None:
                    predictions += single.predict_controls(self._predictors[self._candidate], others)
            final = ", ".join(
                f"{label(curve.contender, self.config.base_optimizer)} {curve.losses[-1]:.4f}"
                for curve in curves
                if curve.seed == seed and curve.rate == str(rate) and curve.contender in (HOLD, self._candidate)
            )
            log.info("random seed %d, lr %s: final validation loss %s", seed, rate, final)
        return [curve for curve in curves if self._runs_at(rate, curve.contender)], predictions

    def _setup(self, seed: int, rate: Range | None = None) -> RunSetup:
        """The setup of a random seed; initial weights are read for the first one alone."""
        setup = RunSetup(self.config, self.task, seed, rate, self._tuning)
        self._tuning = setup.tuning
        return setup

    def _runs_at(self, rate: Range, *contenders: str) -> bool:
        """Whether one of the contenders runs at a learning rate."""
        rates = self._rates
        return rates is None or any(str(rate) in rates.get(name, ()) for name in contenders)

    def _control_run(self, rate: Range) -> PairedRun:
        """A hold run of one further random seed: the history of the control "another run's history"."""
        return self.hold_run(self._setup(self.config.seed + self.config.seeds, rate))

    def _novelty(self, rate: str) -> Novelty | None:
        if self._seen_weights is None:
            return None
        seeds = range(self.config.seed, self.config.seed + max(self.config.seeds, 2))
        setups = [self._setup(seed, Range.parse(rate)) for seed in seeds]
        runs = [self.hold_run(setup).snapshots for setup in setups]
        return self._seen_weights.novelty(self._predictors[self._candidate], runs)

    def _other_curves(self, setup: RunSetup) -> list[Curve]:
        """The curves of all contenders that are not derived from the hold run."""
        curves: list[Curve] = []
        for name, method in self._trained.items():
            if self._runs_at(setup.rate, name, f"{name} {AVERAGE}"):
                curves += self._trained_curves(setup, name, method)
        if self._all:
            names = [name for name in BUDGET_BASELINES if self._runs_at(setup.rate, name)]
            curves += [self._budget_curve(setup, name) for name in names]
        for name, optimizer in self._predictors.items():
            unguarded, other = f"{name} {NO_GUARD}", self._other_name(name)
            if self._all and name == self._candidate and self._runs_at(setup.rate, unguarded):
                curve = self._nowcasting_curves(setup, name, optimizer, guarded=False)[-1]
                curves.append(replace(curve, contender=unguarded))
            if self._runs_at(setup.rate, name, other):
                curves += self._nowcasting_curves(setup, name, optimizer)
        return curves

    def _trained_curves(self, setup: RunSetup, name: str, method: OptimizerFactory) -> tuple[Curve, ...]:
        """The curve of another training rule, and that of its growing average."""

        def train(bar: Progress) -> PairedRun:
            if name not in AVERAGED:
                return PairedRun((train_contender(setup, name, method, bar=bar),), {})
            observer = ReadOutObserver(setup, {f"{name} {AVERAGE}": GrowingAverage})
            curve = train_contender(setup, name, method, observer, bar)
            return PairedRun((curve, *observer.curves(curve)), {})

        facts = {**_setup_facts(setup), "contender": name, **setup.rule(method)}
        return self._cached(facts, train).curves

    def _budget_curve(self, setup: RunSetup, name: str) -> Curve:
        training, steps = BUDGET_BASELINES[name]

        def train(bar: Progress) -> PairedRun:
            return PairedRun((budget_curve(setup, name, training, bar),), {})

        facts = {
            **_setup_facts(setup),
            "contender": name,
            "budgets": list(self.config.budgets),
            "rule code": code_digest(budget_runs, sys.modules[training.__module__]),
        }
        return self._cached(facts, train, steps).curves[0]

    def _nowcasting_curves(
        self, setup: RunSetup, name: str, optimizer: GenerativeOptimizer, *, guarded: bool = True
    ) -> list[Curve]:
        """The curve of a nowcasting run; for the candidate, also that of its average, or of its weights.

        The contender is the average if its optimizer predicts averages, else the weights. The cache identifies the run
        by the weights of its optimizer, not by the contender name, since a candidate becomes the champion.
        """

        def nowcasting(setup: RunSetup, model: nn.Module) -> Nowcast:
            return setup.nowcast_optimizer(model, optimizer, guarded=guarded)

        def train(bar: Progress) -> PairedRun:
            observer = AverageObserver(setup)
            curve = train_contender(setup, name, nowcasting, observer, bar)
            return PairedRun((observer.curve(curve), curve), {})

        facts = {
            "optimizer": digest_of(optimizer.state_dict(), optimizer_facts(optimizer)),
            "optimizer code": code_digest(*map(type, optimizer.modules())),
            "nowcasts": _NOWCASTS,
            "policy": asdict(self.config.policy),
            "guard_batch": self.config.guard_batch if guarded else None,
        }
        average, weights = self._cached({**_setup_facts(setup), **facts}, train).curves
        if optimizer.averaging:
            contender, other = replace(average, events=weights.events), replace(weights, events=())
        else:
            contender, other = weights, average
        others = [replace(other, contender=self._other_name(name))] if name == self._candidate else []
        return [*others, replace(contender, contender=name)]

    def _other_name(self, name: str) -> str:
        """The contender name of the average of a nowcasting run, or of its weights if it is the average itself."""
        return f"{name} without {NOWCAST_EMA}" if self._predictors[name].averaging else f"{name} + {NOWCAST_EMA}"

    def _cached(
        self, facts: Mapping[str, Any], train: Callable[[Progress], PairedRun], budgets: float = 1.0
    ) -> PairedRun:
        """A run from the cache, or trained; `budgets`: its steps, relative to the budget."""
        with sub_progress(self._bar, round(budgets * self.config.steps)) as bar:
            return self._cache.get_or_train(facts, lambda: train(bar))


def contender_name(optimizer: GenerativeOptimizer) -> str:
    """The contender name of an optimizer to evaluate: the name of its class, with a prefix if a baseline has that name.

        contender_name(get_optimizer_model("PerceiverOptimizer"))  # "perceiver"
        contender_name(get_optimizer_model("Line"))  # "judged line"

    Args:
        optimizer: the candidate.
    """
    name = type(optimizer).__name__.removesuffix("Optimizer").lower() or "optimizer"
    baselines = (
        DERIVED_BASELINES,
        TRAINED_BASELINES,
        LEARNED_BASES,
        BUDGET_BASELINES,
        nowcast_baselines(optimizer.averaging),
    )
    taken = {HOLD, CHAMPION, *(name for names in baselines for name in names)}
    return f"judged {name}" if name in map(str.lower, taken) else name


def _setup_facts(setup: RunSetup) -> dict[str, Any]:
    tuning = {name: value for name, value in setup.tuning.facts.items() if value is not None}
    return {"random seed": setup.seed, "lr": setup.lr, "rate": str(setup.rate), "code": setup.code, **tuning}
