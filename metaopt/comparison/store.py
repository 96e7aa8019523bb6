"""The folder of finished trainings, with which an interrupted comparison goes on, and another one begins.

A training is one sealed JSON file, in a folder whose name has a digest of everything that determines it: the source of
the script and of the modules beside it, the versions of metaopt and PyTorch, and for a training with nowcasts the
forecaster and the arguments. So comparisons that differ in these share their trainings without nowcasts.
"""

import hashlib
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..core.errors import FileFormatError, StorageError
from ..core.text import counted
from ..generative.files import load_optimizer, optimizer_facts
from ..trajectories.sealed_json import read_sealed, write_sealed
from ..weights.files import digest_of
from ..weights.header import canonical
from .config import CompareConfig
from .results import Arm, TrialResult
from .training import Training

log = logging.getLogger(__name__)

_VERSION = 3  # raise it when an equal configuration would give another training
_DIGITS = 12  # of the digest in the name of a folder


class TrialStore:
    """Finished trainings of one function, with the arguments of one comparison.

    Args:
        training: the function.
        config: the comparison.
    Attributes:
        comparison: a digest of what determines the trainings of both arms.
    Raises:
        MetaoptError: the forecaster of the configuration cannot be loaded.
    """

    def __init__(self, training: Training, config: CompareConfig) -> None:
        self._facts = trial_facts(training, config)
        self.comparison = _digest({str(arm): facts for arm, facts in self._facts.items()})
        self._replaced = config.random_seeds if config.overwrite else range(0)
        self._folders: dict[Arm, Path] = {}
        if config.cache_dir is None:
            return
        if training.digest is None:
            log.warning(
                "%s has no source file, so its trainings cannot be recognised and are not stored; a comparison that is "
                "interrupted begins again. Write the function to a script",
                training.name,
            )
            return
        for arm, facts in self._facts.items():
            self._folders[arm] = config.cache_dir / f"{training.folder_name}-{arm}-{_digest(facts)}"
        if not self._folders[Arm.PLAIN].exists():
            _tell_of_others(config.cache_dir, training.folder_name)

    def read(self, arm: Arm, seed: int) -> TrialResult | None:
        """A finished training; None if it is not stored, or cannot be used."""
        path = self.path(arm, seed)
        if path is None or not path.exists():
            return None
        try:
            stored = read_sealed(path)
            result = TrialResult.from_mapping(stored.get("result") or {})
            if stored.get("facts") != self._facts[arm] or (result.arm, result.seed) != (arm, seed):
                raise FileFormatError("it is another training")
        except FileFormatError as error:
            log.warning("%s cannot be used: %s. The training runs again", path, error)
            return None
        return result

    def clear(self) -> None:
        """Remove the trainings that are to run again; for `start_run`, which calls it before a queue notes the run.

        Raises:
            StorageError: a file cannot be removed.
        """
        paths = [path for arm in Arm for seed in self._replaced if (path := self.path(arm, seed)) is not None]
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"could not remove trainings that --overwrite replaces: {error}; remove them by hand"
            ) from error

    def write(self, result: TrialResult) -> None:
        """Store a finished training, whole or not at all.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path = self.path(result.arm, result.seed)
        if path is not None:
            write_sealed(path, {"facts": self._facts[result.arm], "result": result.to_mapping()})

    def path(self, arm: Arm, seed: int) -> Path | None:
        """The file of a training; None if trainings are not stored."""
        return self._folders[arm] / f"{arm}_seed_{seed}.json" if self._folders else None


def trial_facts(training: Training, config: CompareConfig) -> dict[Arm, dict[str, Any]]:
    """What determines the trainings of each arm beside their random seeds, as JSON values.

    Raises:
        MetaoptError: the forecaster of the configuration cannot be loaded.
    """
    forecaster = None
    if config.forecaster is not None:
        loaded = load_optimizer(config.forecaster)
        forecaster = digest_of(loaded.state_dict(), optimizer_facts(loaded))
    both = {
        "source": training.digest,
        "function": training.name.rpartition(":")[2],
        "metaopt": version("metaopt"),
        "torch": torch.__version__,
        "version": _VERSION,
    }
    return {
        Arm.PLAIN: {**both, "ema": list(config.ema)},
        Arm.NOWCAST: {**both, "forecaster": forecaster, "nowcast": dict(config.nowcast)},
    }


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(facts).encode()).hexdigest()[:_DIGITS]


def _tell_of_others(folder: Path, name: str) -> None:
    """Say that trainings of another script are stored, and not used."""
    if others := [path for path in folder.glob(f"{name}-{Arm.PLAIN}-*") if path.is_dir()]:
        log.info(
            "%s has trainings of %s from %s of the script, of --ema, of metaopt or of PyTorch; they are kept, and not "
            "used here",
            folder,
            name,
            counted(len(others), "other version"),
        )
