"""An episode: one training of a network, which stops at each decision until an action is chosen."""

import math
from collections.abc import Iterator, Sequence
from itertools import count

from ..core.errors import Diverged
from ..core.rng import isolated
from ..growth.actions import mask, perform
from ..growth.observation import observe
from ..growth.stages import Stage
from ..recording.loss_changes import LossChanges
from ..recording.training import train_step
from ..tasks import Batch
from .problem import Problem

_LARGEST = 10.0  # of the first loss: what a training that diverged counts as


class Episode:
    """One training in this process. It decides when `metaopt.growth.driver.Driver` does, and trains as it does.

        from metaopt.reinforcement.config import EpisodeConfig
        from metaopt.reinforcement.episode import Episode
        from metaopt.reinforcement.problem import Problem

        episode = Episode(Problem(EpisodeConfig(steps=60)), random_seed=0)
        while not episode.is_over:
            episode.act(0)  # WAIT
        episode.losses  # at the start, after 20, 40 and 60 steps

    Args:
        problem: what is trained.
        random_seed: determines initial weights, batches and measurements. Nothing else of the process does.
    Attributes:
        losses: measured losses, at the start and after each interval; finite, also if the training diverges.
        diverged: whether a loss was not finite.
    """

    def __init__(self, problem: Problem, random_seed: int) -> None:
        self._problem, self._random_seed = problem, random_seed
        self.growth = problem.start(random_seed).growth
        self._batches = self._stream()
        self._changes, self._sigma, self._train_loss = LossChanges(), 0.0, 0.0
        self._known_events, self.diverged = 0, False
        self.losses: list[float] = []
        self._measure()
        self._proceed()

    @property
    def is_over(self) -> bool:
        """Whether the training has ended: all steps are done, or it has diverged."""
        return self.diverged or self.growth.step >= self._problem.config.steps

    @property
    def grown(self) -> float:
        """Weights that have grown over those of the host."""
        return self.growth.seed_weights / self.growth.host_weights

    @property
    def allowed(self) -> list[bool]:
        """Which actions the life cycle allows now."""
        return mask(self.growth, self._problem.actions)

    def observation(self) -> list[float]:
        """What a controller sees now; σ is that of the training losses so far, as in phase 1."""
        return observe(self.growth, self._problem.config.steps, self._train_loss, self._sigma)

    def act(self, action: int) -> None:
        """Perform an action, and train up to the next decision, or to the end.

        Raises:
            InvalidConfig: the life cycle does not allow the action now.
        """
        perform(self.growth, self._problem.actions[action])
        self._proceed()

    def entered(self) -> Sequence[Stage]:
        """The stages that growth seeds entered since the last call."""
        known, self._known_events = self._known_events, len(self.growth.events)
        return [event.after for event in self.growth.events[known:]]

    def _proceed(self) -> None:
        try:
            # Dropout draws from random seed and step: episodes that take turns do not disturb each other.
            with isolated(self._random_seed * 1_000_003 + self.growth.step):
                self._train()
        except Diverged:
            self.diverged = True
            self.losses.append(_LARGEST * self.losses[0])
        else:
            self._measure()

    def _train(self) -> None:
        growth, device, losses = self.growth, self._problem.device, list[float]()
        for _ in range(growth.config.interval):
            batch = next(self._batches)
            losses.append(train_step(growth.model, growth.optimizer, growth.task, batch, device, growth.after_backward))
            growth.after_step(growth.step + 1, losses[-1])
            self._sigma = self._changes.standard_deviation or 0.0
            if math.isfinite(losses[-1]):
                self._changes.add(losses[-1])
        self._train_loss = sum(losses) / len(losses)

    def _measure(self) -> None:
        loss = self.growth.measure()
        most = _LARGEST * (self.losses[0] if self.losses else loss)
        self.diverged |= not math.isfinite(loss)
        self.losses.append(most if self.diverged else min(loss, most))

    def _stream(self) -> Iterator[Batch]:
        for epoch in count():
            yield from self._problem.task.batches(self._problem.config.batch_size, self._random_seed, epoch)
