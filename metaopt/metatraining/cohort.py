"""Inner trainings of online meta-training: their settings, cohorts for the rounds, and snapshots for the warm-up."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.progress import NO_PROGRESS, Progress
from ..core.rng import generator
from ..nowcast.policy import NowcastPolicy
from ..tasks import Batch
from .mixture import MixtureComponent, start_trainings

WARM_UP_COHORTS = 2  # per component of the mixture
_WARM_UP_BATCH = 16  # histories per update of the warm-up
_GAPS = (0.5, 1.0, 1.0, 2.0)  # times `every`


class OnlineSettings(NamedTuple):
    """Settings of the inner trainings.

    Attributes:
        steps: length of an inner training [steps].
        policy: decides about their nowcasts; `every` is the mean number of steps between two nowcasts.
        history: length of the optimizer's history [count].
        averaging: decay of the EMA that the snapshots hold; 0 for the weights themselves.
        examples: number of examples on which a loss is measured [count].
    """

    steps: int
    policy: NowcastPolicy
    history: int
    averaging: float
    examples: int

    def draw_gap(self, random: torch.Generator) -> int:
        """Steps to the next nowcast: from half of `every` to twice as many, in whole strides [steps]."""
        factor = _GAPS[int(torch.randint(len(_GAPS), (), generator=random))]
        return self.policy.whole_strides(factor * self.policy.every)


class Cohort:
    """Inner trainings of one component of the mixture that advance together, from their first step.

    Args:
        offset: steps of the round before the cohort starts [steps].
    """

    def __init__(self, component: MixtureComponent, settings: OnlineSettings, seed: int, offset: int = 0) -> None:
        self.component = component
        self.settings = settings
        self.random = generator(seed)
        self.trainings = start_trainings(component, settings.policy, settings.history, settings.averaging, seed)
        self.trainings.advance(settings.draw_gap(self.random))
        self._offset = offset

    @property
    def round_step(self) -> int:
        """Steps since the round started [steps]."""
        return self._offset + self.trainings.step

    @property
    def finished(self) -> bool:
        """Whether the trainings have reached their length."""
        return self.trainings.step >= self.settings.steps

    def draw_examples(self) -> Batch:
        """Random examples of the split that is held out from inner training."""
        return self.component.problem.sample("meta", self.settings.examples, self.random)


class WarmUpTrainings:
    """The snapshots of complete inner trainings of one component, without nowcasts, in memory."""

    def __init__(
        self,
        component: MixtureComponent,
        settings: OnlineSettings,
        random: torch.Generator,
        bar: Progress = NO_PROGRESS,
    ) -> None:
        self.component, self._settings, self._bar = component, settings, bar
        self._snapshots = torch.cat([self._run(random) for _ in range(WARM_UP_COHORTS)])

    def draw(
        self, random: torch.Generator
    ) -> tuple[Float[Tensor, "rows history weights"], Float[Tensor, "rows history"]]:
        """Histories that end at random snapshots of random trainings, and their times."""
        runs, snapshots, _ = self._snapshots.shape
        rows = torch.randint(runs, (_WARM_UP_BATCH,), generator=random)
        ends = torch.randint(1, snapshots, (_WARM_UP_BATCH, 1), generator=random)
        device = self._snapshots.device
        indices = (ends + torch.arange(1 - self._settings.history, 1)).clamp(min=0).to(device)
        return self._snapshots[rows.unsqueeze(1).to(device), indices], (indices * self._settings.policy.stride).float()

    def _run(self, random: torch.Generator) -> Float[Tensor, "runs snapshots weights"]:
        """The snapshots of a cohort, without the trainings that diverged."""
        settings, stride = self._settings, self._settings.policy.stride
        seed = seed_from(int(torch.randint(2**31, (), generator=random)))
        trainings = start_trainings(self.component, settings.policy, 1, settings.averaging, seed)
        snapshots = [trainings.averaged]
        while trainings.step < settings.steps:
            trainings.advance(stride)
            self._bar.update(stride)
            snapshots.append(trainings.averaged)
        return torch.stack(snapshots, 1)[~trainings.diverged]


def seed_from(*numbers: int) -> int:
    """A random seed that depends on all the numbers."""
    return generator(*numbers).initial_seed()
