"""Twins of networks that grew: the same random seed and batches without growth, and with the final size from the start.

They show what growth is worth: against the host alone, and against a network that is as large all the time.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ..core.tracker import Tracker
from ..growth.growth_seed import last_growth_seeds
from ..growth.history import GrowthHistory
from ..trajectories import Trajectory
from .config import TrainTargetConfig
from .growth_report import growth_figure
from .record import train_targets

STATIC, EQUAL_SIZE = "static", "equal-size"
TWIN_OF, TWIN = "metaopt.twin_of", "metaopt.twin"
"""Tags of the run of a twin: the run of the network that grew, and the kind of the twin."""

log = logging.getLogger(__name__)


def train_twins(config: TrainTargetConfig, folders: Sequence[Path], tracker: Tracker) -> dict[str, float]:
    """Train the twins of recorded networks that grew, and compare the losses.

    Args:
        config: that of the networks that grew.
        folders: their trajectories, in the order of their random seeds.
        tracker: the run of the recording, in which the twins of a kind are a child run. It gets a figure with the twins
            of the first random seed.
    Returns: `loss_over_static` and `loss_over_equal_size`, the mean ratios of the last validation losses. The second is
        missing if no network has a growth seed at its end; networks without one are not part of it.
    """
    has_grown = [bool(last_growth_seeds(folder)) for folder in folders]
    histories, ratios = {"grown": GrowthHistory.read(folders[0])}, dict[str, float]()
    for kind in (STATIC, EQUAL_SIZE):
        if kind == EQUAL_SIZE and not any(has_grown):
            log.info("no network has a growth seed at its end, so none has a twin of equal size")
            continue
        twin = _twin_config(config, kind)
        with tracker.child(f"{kind} twins of {config.run_name}") as child:
            child.tags({TWIN: kind, TWIN_OF: tracker.run_id})
            twins = train_targets(twin, child)
        histories[kind] = GrowthHistory.read(twins[0])
        pairs = [pair for pair, grown in zip(zip(folders, twins, strict=True), has_grown, strict=True)
                 if grown or kind == STATIC]  # fmt: skip
        ratios[f"loss_over_{kind.replace('-', '_')}"] = fmean(_last_loss(one) / _last_loss(two) for one, two in pairs)
    title = f"Growth of {config.title}, random seed {config.seed}, and its twins"
    tracker.figure(growth_figure(title, histories, histories["grown"].measurements[-1].step), "growth_and_twins")
    return ratios


def _twin_config(config: TrainTargetConfig, kind: str) -> TrainTargetConfig:
    """The twin waits at each decision, so that its loss is measured at the same steps."""
    grown_as = config.trajectory_dir / config.run_name if kind == EQUAL_SIZE else None
    return replace(config, run_name=f"{config.run_name}-{kind}", controller="wait", grown_as=grown_as, twins=False)


def _last_loss(folder: Path) -> float:
    return Trajectory.open(folder).losses(-1)["val_loss"]
