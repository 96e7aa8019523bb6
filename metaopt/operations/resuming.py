"""What changes in the parameters of a job when an earlier attempt of it has begun.

Phase 1 resumes its run folder. Phases 2 and 3 resume from the last complete checkpoint of their folder. The main job
keeps the trajectories that it has recorded. Other workflows begin again; an evaluation or a comparison finds its
finished trainings in its cache.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import Config
from ..core.errors import FileFormatError
from ..trajectories.run_folder import DOWNLOADS

if TYPE_CHECKING:
    from ..comparison.config import CompareConfig
    from ..metatraining.config import TrainOptimizerConfig
    from ..recording.config import TrainTargetConfig
    from ..reinforcement.config import TrainControllerConfig
    from ..workflows.main_job import MainConfig

log = logging.getLogger(__name__)


def resumed(workflow: str, config: Config) -> Config:
    """The parameters with which a job goes on. Call it in the working folder of the job.

    Args:
        workflow: name of its command.
        config: its own parameters, with which an earlier attempt has begun to write.
    """
    return _RULES[workflow](config) if workflow in _RULES else config


def _target(config: "TrainTargetConfig") -> Config:
    """Phase 1 keeps all snapshots; runs that have none start."""
    return replace(config, resume=True, overwrite=False) if _has_begun(config) else config


def _has_begun(config: "TrainTargetConfig") -> bool:
    return any((config.trajectory_dir / config.run_name).glob("seed_*/*"))


def _optimizer(config: "TrainOptimizerConfig") -> Config:
    """Phase 2 trains the epochs or rounds that its last checkpoint lacks; without a checkpoint it begins again."""
    wanted = config.rounds or config.epochs
    planned = wanted + (0 if config.resume_from is None else _epochs_of(_own_start(config)))
    for path, epoch in _checkpoints(config.checkpoint_folder, f"{config.optimizer_model}_epoch_*"):
        left = planned - epoch
        if left < 0 or (left == 0 and config.rounds):  # a training online cannot end without a round
            continue
        log.info("resumes from %s; %d of %d left", path, left, wanted)
        going_on = replace(config, resume_from=str(path), overwrite=False)
        return replace(going_on, rounds=left) if config.rounds else replace(going_on, epochs=left)
    return replace(config, overwrite=True)


def _controller(config: "TrainControllerConfig") -> Config:
    """Phase 3 counts all episodes, those before the checkpoint included."""
    for path, _ in _checkpoints(config.checkpoint_folder, "controller_rollout_*"):
        log.info("resumes from %s", path)
        return replace(config, resume_from=str(path), overwrite=False)
    return replace(config, overwrite=True)


def _main(config: "MainConfig") -> Config:
    """The main job goes on with phase 1, and does all that follows again."""
    return replace(config, resume=True) if _has_begun(config.target()) else config


def _comparison(config: "CompareConfig") -> Config:
    """A comparison keeps its finished trainings; those that it replaces are removed when it has begun."""
    return replace(config, overwrite=False)


_RULES: Mapping[str, Callable[[Any], Config]] = {
    "main": _main,
    "train-target": _target,
    "train-optimizer": _optimizer,
    "train-controller": _controller,
    "compare": _comparison,
}


def _checkpoints(folder: Path, name: str) -> Iterator[tuple[Path, int]]:
    """The complete checkpoints of a folder with their finished epochs, newest first."""
    paths = [path for path in folder.glob(f"{name}.safetensors") if re.search(r"_\d+(_stopped)?$", path.stem)]
    for path in sorted(paths, key=_order, reverse=True):
        try:
            yield path, _epochs_of(path)
        except FileFormatError as error:
            log.warning("an earlier checkpoint is used: %s", error)


def _order(path: Path) -> tuple[int, bool]:
    """The number in the name of a checkpoint; one that stopped within an epoch is older than that at its end."""
    number, stopped = re.findall(r"_(\d+)(_stopped)?$", path.stem)[0]
    return int(number), not stopped


def _epochs_of(path: Path) -> int:
    """Finished epochs of a checkpoint; 0 if it counts something else."""
    from ..trajectories.checkpoint import load_checkpoint  # imports torch

    epoch = load_checkpoint(path)[0].get("epoch", 0)
    return epoch if isinstance(epoch, int) else 0


def _own_start(config: "TrainOptimizerConfig") -> Path:
    from ..tracking import resolve_checkpoint  # imports MLflow

    return resolve_checkpoint(str(config.resume_from), config.checkpoint_dir / DOWNLOADS).path
