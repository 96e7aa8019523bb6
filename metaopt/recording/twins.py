"""Twins of networks that grew: the same random seed and batches without growth, and with the final size from the start.

They show what growth is worth: against the host alone, and against a network that is as large all the time.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ..core.tracker import Tracker
from ..growth.history import GrowthHistory
from ..trajectories import Trajectory
from ..trajectories.recording_file import read_run_id
from .config import TrainTargetConfig
from .growth_report import growth_figure
from .record import train_targets

STATIC, EQUAL_SIZE = "static", "equal-size"
TWIN_OF, TWIN = "metaopt.twin_of", "metaopt.twin"
"""Tags of the run of a twin: the run of the network that grew, and the kind of the twin."""

log = logging.getLogger(__name__)


def train_twins(config: TrainTargetConfig, folders: Sequence[Path], tracker: Tracker) -> dict[str, float]:
    """Train the twins of recorded networks that grew, each in a child run, and compare the losses.

    Args:
        config: that of the networks that grew.
        folders: their trajectories, in the order of their random seeds.
        tracker: the run of the recording. It gets a figure with the twins of the first random seed.
    Returns: `loss_over_static` and `loss_over_equal_size`, the mean ratios of the last validation losses. The second is
        missing if no network has a growth seed at its end.
    """
    ratios: dict[str, list[float]] = {STATIC: [], EQUAL_SIZE: []}
    for single, folder in zip(config.single_runs(), folders, strict=True):
        histories = {"grown": GrowthHistory.read(folder)}
        for kind in (STATIC, EQUAL_SIZE):
            if kind == EQUAL_SIZE and not any(each.get("is_blended") for each in _last_seeds(folder)):
                log.info("%s has no growth seed at its end, so it has no twin of equal size", folder)
                continue
            twin = _twin_config(single, kind, folder)
            with tracker.child(f"{twin.run_name} seed {twin.seed}") as child:
                child.tags({TWIN: kind, TWIN_OF: read_run_id(folder) or "unknown"})
                (twin_folder,) = train_targets(twin, child)
            histories[kind] = GrowthHistory.read(twin_folder)
            ratios[kind].append(_last_loss(folder) / _last_loss(twin_folder))
        if folder == folders[0]:
            end = histories["grown"].measurements[-1].step
            title = f"Growth of {config.title}, random seed {single.seed}, and its twins"
            tracker.figure(growth_figure(title, histories, end), "growth_and_twins")
    return {f"loss_over_{kind.replace('-', '_')}": fmean(found) for kind, found in ratios.items() if found}


def _twin_config(config: TrainTargetConfig, kind: str, folder: Path) -> TrainTargetConfig:
    """The twin waits at each decision, so that its loss is measured at the same steps."""
    grown_as = folder if kind == EQUAL_SIZE else None
    return replace(config, run_name=f"{config.run_name}-{kind}", controller="wait", grown_as=grown_as, twins=False)


def _last_seeds(folder: Path) -> list[dict[str, object]]:
    return Trajectory.open(folder).segments[-1].growth


def _last_loss(folder: Path) -> float:
    return Trajectory.open(folder).losses(-1)["val_loss"]
