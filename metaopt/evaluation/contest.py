"""Trains the twins of a case, or finds them in the cache, and lets the judged optimizer predict from their states."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..configuration import Range
from ..errors import Diverged
from ..optimizers.base import GenerativeOptimizer
from ..optimizers.files import optimizer_facts
from ..tasks import Task
from ..training.progress import SILENCE, Progress, progress, share_of
from ..weights.files import digest_of
from .baselines import TRAININGS, nowcasts
from .cache import Twin, TwinCache
from .config import EvaluateConfig
from .controls import CONTROLS, Trials
from .novelty import Familiar
from .readouts import READ_OUT_OF_NOWCASTS, READ_OUTS
from .results import HOLD, Curve, Novelty, Prediction
from .twins import AverageWitness, Bench, Rule, Witness, train_twin

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


class Contest:
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
        self._cache = TwinCache(config.cache_dir, facts)
        self._familiar = Familiar(Bench(config, task, config.seed), config.seen) if config.seen is not None else None
        self._bar = SILENCE

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show how far the contest is while the block runs."""
        config = self.config
        further = 1 + (max(config.seeds, 2) if self._familiar else 0)  # hold twins; mostly, the cache has them
        pieces = len(config.rates) * self._pieces_at_a_rate() + further * config.steps
        with progress(pieces, f"judging {self._judged}: {config.target_model} on {config.task}", "piece") as self._bar:
            yield
        self._bar = SILENCE

    def curves_and_predictions(self, rate: Range) -> tuple[list[Curve], list[Prediction]]:
        """Everything at one learning rate.

        Raises:
            Diverged: the hold twin's loss is not finite, so that there is nothing to compare with.
        """
        whole = self._bar
        with share_of(whole, self._pieces_at_a_rate()) as self._bar:
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
            bench = Bench(self.config, self.task, seed, rate)
            hold = self.hold(bench)
            curves += [*hold.curves, *self._rivals(bench)]
            trials = Trials(bench, hold.snapshots, self._bar)
            predictions += [made for name, each in self._predicting.items() for made in trials.judge(name, each)]
            if others is not None:
                predictions += trials.judge_controls(self._predicting[self._judged], others)
            shown = _final_losses(curves, seed, (HOLD, self._judged))
            log.info("random seed %d, lr %s: final validation loss %s", seed, rate, shown)
        return curves, predictions

    def novelty(self, rate: str) -> Novelty | None:
        """How far from anything in `seen` the judged optimizer's predictions are; None where nothing is given."""
        if self._familiar is None:
            return None
        seeds = range(self.config.seed, self.config.seed + max(self.config.seeds, 2))
        benches = [Bench(self.config, self.task, seed, Range.parse(rate)) for seed in seeds]
        runs = [self.hold(bench).snapshots for bench in benches]
        return self._familiar.novelty(self._predicting[self._judged], runs)

    def other(self, rate: Range) -> Twin:
        """A hold twin beyond the random seeds that are judged, so that no control sees a run that is a contender."""
        return self.hold(Bench(self.config, self.task, self.config.seed + self.config.seeds, rate))

    def hold(self, bench: Bench) -> Twin:
        """The base optimizer alone, with what is read out of it, and such snapshots as the judged one is shown.

        Raises:
            Diverged: its loss is not finite.
        """
        averaging = self._predicting[self._judged].averaging

        def train(bar: Progress) -> Twin:
            witness = Witness(bench, READ_OUTS, averaging=averaging)
            curve = train_twin(bench, HOLD, watch=witness, bar=bar)
            return Twin((curve, *witness.curves(curve)), witness.snapshots)

        facts = {"contender": HOLD, "read out": list(READ_OUTS), "averaging": averaging}
        hold = self._twin({**_place(bench), **facts}, train)
        if not all(map(math.isfinite, hold.curves[0].losses)):
            raise Diverged(
                f"{bench.config.base_optimizer} alone diverges with random seed {bench.seed} at lr {bench.lr:.3g}, so "
                "there is nothing to compare with; take a lower lr"
            )
        return hold

    def _rivals(self, bench: Bench) -> list[Curve]:
        curves: list[Curve] = []
        if self.config.baselines == "all":
            for name, rule in TRAININGS.items():
                curves += self._training(bench, name, rule)
        for name, optimizer in self._predicting.items():
            curves += self._nowcasting(bench, name, optimizer)
        return curves

    def _training(self, bench: Bench, name: str, rule: Rule) -> tuple[Curve, ...]:
        facts = {**_place(bench), "contender": name}
        return self._twin(facts, lambda bar: Twin((train_twin(bench, name, rule, bar=bar),), {})).curves

    def _nowcasting(self, bench: Bench, name: str, optimizer: GenerativeOptimizer) -> list[Curve]:
        """A nowcasting twin: the average where its optimizer is one of averages, with the weights beside it.

        Of an optimizer of weights it is the other way round. The cache knows a twin by its optimizer's own weights,
        whatever it is called: today's candidate is tomorrow's champion.
        """

        def train(bar: Progress) -> Twin:
            witness = AverageWitness(bench)
            curve = train_twin(bench, name, optimizer, witness, bar)
            return Twin((witness.curve(curve), curve), {})

        digest = digest_of(optimizer.state_dict(), optimizer_facts(optimizer))
        facts = {
            "optimizer": digest,
            "nowcasts": _NOWCASTS,
            "every": self.config.every,
            "guard_batch": self.config.guard_batch,
            "horizons": list(self.config.proposed),
            "straight": self.config.straight,
        }
        average, own = self._twin({**_place(bench), **facts}, train).curves
        if optimizer.averaging:
            shown, suffix = replace(average, events=own.events), f"without {READ_OUT_OF_NOWCASTS}"
            other = replace(own, events=())
        else:
            shown, other, suffix = own, average, f"+ {READ_OUT_OF_NOWCASTS}"
        others = [replace(other, contender=f"{name} {suffix}")] if name == self._judged else []
        return [*others, replace(shown, contender=name)]

    def _twin(self, facts: Mapping[str, Any], train: Callable[[Progress], Twin]) -> Twin:
        """A twin from the cache, or trained now."""
        with share_of(self._bar, self.config.steps) as bar:
            return self._cache.twin(facts, lambda: train(bar))


def _place(bench: Bench) -> dict[str, Any]:
    return {"random seed": bench.seed, "lr": bench.lr, "rate": str(bench.rate)}


def _final_losses(curves: list[Curve], seed: int, names: tuple[str, ...]) -> str:
    shown = [curve for curve in curves if curve.seed == seed and curve.contender in names]
    return ", ".join(f"{curve.contender} {curve.losses[-1]:.4f}" for curve in shown)
