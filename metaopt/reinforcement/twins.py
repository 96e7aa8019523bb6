"""Static twins: the same trainings without growth, to which episodes are compared. Each is trained once."""

import logging
import math
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..core.devices import device_name
from ..core.errors import Diverged, FileFormatError, StorageError
from ..weights.files import digest_of, read_tensors, write_tensors
from .episode import Episode
from .problem import Problem

_KIND = "twin"
_WAIT = 0

log = logging.getLogger(__name__)


class Twins:
    """The losses of static twins by random seed: same initial weights and batches, and only WAIT.

    They are kept in memory, and as tensor files if a folder is given. The name of a file is a digest of all that
    determines the losses. A damaged file is made again. The folder can be deleted at any time.

    Args:
        problem: what is trained.
        folder: where the losses are kept, also for other processes.
    """

    def __init__(self, problem: Problem, folder: Path | None = None) -> None:
        self._problem, self._folder = problem, folder
        self._losses: dict[int, tuple[float, ...]] = {}
        self._sigma: float | None = None

    @property
    def sigma(self) -> float:
        """Typical change of the loss from one decision to the next: the median of its absolute changes in a twin.

        A standard deviation would be that of the first changes, which are many times larger than later ones. It is one
        number for all episodes, that of the first random seed of training, so that all rewards have the same unit.
        """
        if self._sigma is None:
            losses = self.losses(self._problem.config.training_seeds[0])
            self._sigma = median(abs(after - before) for before, after in pairwise(losses)) or 1.0
        return self._sigma

    def losses(self, random_seed: int) -> tuple[float, ...]:
        """The losses of a twin at the start and after each interval.

        Raises:
            Diverged: a loss is not finite, although nothing grows.
        """
        if random_seed not in self._losses:
            self._losses[random_seed] = self._stored(random_seed)
        return self._losses[random_seed]

    def _stored(self, random_seed: int) -> tuple[float, ...]:
        if self._folder is None:
            return self._trained(random_seed)
        device = {"device": device_name(self._problem.device)}  # losses differ in rounding between devices
        facts = {**self._problem.facts, "random_seed": random_seed, **_versions(), **device}
        path = self._folder / f"{digest_of({}, facts)[:32]}.safetensors"
        if path.exists():
            try:
                return self._read(path)
            except FileFormatError as error:
                log.warning("%s; the run without growth is trained again", error)
        losses = self._trained(random_seed)
        try:
            write_tensors(path, {"losses": torch.tensor(losses, dtype=torch.float64)}, _KIND, facts)
        except StorageError as error:
            log.warning("a run without growth is not kept: %s", error)
        return losses

    def _read(self, path: Path) -> tuple[float, ...]:
        losses = read_tensors(path, _KIND)[0].get("losses", torch.empty(0)).tolist()
        if len(losses) != self._problem.config.decisions + 2 or not all(map(math.isfinite, losses)):
            raise FileFormatError(f"{path} has no losses of a run of {self._problem.config.steps} steps")
        return tuple(losses)

    def _trained(self, random_seed: int) -> tuple[float, ...]:
        episode = Episode(self._problem, random_seed)
        while not episode.is_over:
            episode.act(_WAIT)
        if episode.diverged:
            config = self._problem.config
            raise Diverged(f"{config.title} diverges without growth at lr {config.lr:g}; try a lower lr")
        return tuple(episode.losses)


def _versions() -> dict[str, Any]:
    return {"metaopt": version("metaopt"), "torch": torch.__version__, "threads": torch.get_num_threads()}
