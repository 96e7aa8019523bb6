"""The folder of finished trainings, with which an interrupted comparison goes on.

A training is one sealed JSON file, in a folder whose name has a digest of everything that determines it: the source of
the script and of the modules beside it, the forecaster, the arguments, and the versions of metaopt and PyTorch.
"""

import hashlib
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..core.errors import FileFormatError
from ..core.text import counted
from ..generative.files import load_optimizer, optimizer_facts
from ..trajectories.sealed_json import read_sealed, write_sealed
from ..weights.files import digest_of
from ..weights.header import canonical
from .config import CompareConfig
from .results import Arm, TrialResult
from .training import Training

log = logging.getLogger(__name__)

_VERSION = 2  # raise it when an equal configuration would give another training
_DIGITS = 12  # of the digest in the name of a folder


class TrialStore:
    """Finished trainings of one function, with the arguments of one comparison.

    Args:
        training: the function.
        config: the comparison.
    Attributes:
        folder: where they are; None if they are not stored.
    """

    def __init__(self, training: Training, config: CompareConfig) -> None:
        self._facts = trial_facts(training, config)
        self._overwrite = config.overwrite
        self.folder: Path | None = None
        if config.cache_dir is None:
            return
        if training.digest is None:
            log.warning(
                "%s has no source file, so its trainings cannot be recognised and are not stored; a comparison that is "
                "interrupted begins again. Write the function to a script",
                training.name,
            )
            return
        digest = hashlib.sha256(canonical(self._facts).encode()).hexdigest()[:_DIGITS]
        self.folder = config.cache_dir / f"{training.folder_name}-{digest}"
        if not self.folder.exists():
            _tell_of_others(config.cache_dir, training.folder_name)

    def read(self, arm: Arm, seed: int) -> TrialResult | None:
        """A finished training; None if it is not stored, cannot be used, or is to be run again."""
        path = self._path(arm, seed)
        if path is None or self._overwrite or not path.exists():
            return None
        try:
            stored = read_sealed(path)
            result = TrialResult.from_mapping(stored.get("result") or {})
            if stored.get("facts") != self._facts or (result.arm, result.seed) != (arm, seed):
                raise FileFormatError("it is another training")
        except FileFormatError as error:
            log.warning("%s cannot be used: %s. The training runs again", path, error)
            return None
        return result

    def write(self, result: TrialResult) -> None:
        """Store a finished training, whole or not at all.

        Raises:
            StorageError: the disk is full or not writable.
        """
        path = self._path(result.arm, result.seed)
        if path is not None:
            write_sealed(path, {"facts": self._facts, "result": result.to_mapping()})

    def _path(self, arm: Arm, seed: int) -> Path | None:
        return None if self.folder is None else self.folder / f"{arm}_seed_{seed}.json"


def trial_facts(training: Training, config: CompareConfig) -> dict[str, Any]:
    """What determines a training beside its random seed and its arm, as JSON values.

    Raises:
        MetaoptError: the forecaster of the configuration cannot be loaded.
    """
    forecaster = None
    if config.forecaster is not None:
        loaded = load_optimizer(config.forecaster)
        forecaster = digest_of(loaded.state_dict(), optimizer_facts(loaded))
    return {
        "source": training.digest,
        "function": training.name.rpartition(":")[2],
        "forecaster": forecaster,
        "nowcast": dict(config.nowcast),
        "ema": list(config.ema),
        "metaopt": version("metaopt"),
        "torch": torch.__version__,
        "version": _VERSION,
    }


def _tell_of_others(folder: Path, name: str) -> None:
    """Say that trainings of another script or of other arguments are stored, and not used."""
    if others := [path for path in folder.glob(f"{name}-*") if path.is_dir()]:
        log.info(
            "%s has trainings of %s from %s of the script or of the arguments; they are kept, and not used here",
            folder,
            name,
            counted(len(others), "other version"),
        )
