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
from .growth_figure import growth_figure
from .growth_report import growth_report
from .record import train_targets

GROWN, STATIC, EQUAL_SIZE = "grown", "static", "equal-size"
TWIN_OF, TWIN = "metaopt.twin_of", "metaopt.twin"
"""Tags of the run of a twin: the run of the network that grew, and the kind of the twin."""

log = logging.getLogger(__name__)


def train_twins(config: TrainTargetConfig, folders: Sequence[Path], tracker: Tracker) -> dict[str, float]:
    """Train the twins of recorded networks that grew, and compare the losses.

    Args:
        config: that of the networks that grew.
        folders: their trajectories, in the order of their random seeds.
        tracker: the run of the recording, in which the twins of a kind are a child run. It gets a figure and the report
            of the first random seed, with the losses of all twins.
    Returns: `loss_over_static` and `loss_over_equal_size`, the mean ratios of the last validation losses. The second is
        missing if no network has a growth seed at its end; networks without one are not part of it.
    """
    seeds = [each.seed for each in config.single_runs()]
    has_grown = {seed: bool(last_growth_seeds(folder)) for seed, folder in zip(seeds, folders, strict=True)}
    losses = {seed: {GROWN: _last_loss(folder)} for seed, folder in zip(seeds, folders, strict=True)}
    histories = {GROWN: GrowthHistory.read(folders[0])}
    for kind in (STATIC, EQUAL_SIZE):
        if kind == EQUAL_SIZE and not any(has_grown.values()):
            log.info("no network has a growth seed at its end, so none has a twin of equal size")
            continue
        twin = _twin_config(config, kind)
        with tracker.child(f"{kind} twins of {config.run_name}") as child:
            child.tags({TWIN: kind, TWIN_OF: tracker.run_id})
            twins = train_targets(twin, child)
        histories[kind] = GrowthHistory.read(twins[0])
        for seed, folder in zip(seeds, twins, strict=True):
            if kind == STATIC or has_grown[seed]:
                losses[seed][kind] = _last_loss(folder)
    title, grown = f"{config.title}, random seed {config.seed}", histories[GROWN]
    figure = growth_figure(f"Growth of {title}, and its twins", histories, grown.measurements[-1].step)
    tracker.figure(figure, "growth_and_twins")
    tracker.text(growth_report(title, str(config.controller), grown, losses), "report.md")
    _, *kinds = histories
    ratios = {kind: [each[GROWN] / each[kind] for each in losses.values() if kind in each] for kind in kinds}
    return {f"loss_over_{kind.replace('-', '_')}": fmean(values) for kind, values in ratios.items()}


def _twin_config(config: TrainTargetConfig, kind: str) -> TrainTargetConfig:
    """The twin waits at each decision, so that its loss is measured at the same steps."""
    grown_as = config.trajectory_dir / config.run_name if kind == EQUAL_SIZE else None
    return replace(config, run_name=f"{config.run_name}-{kind}", controller="wait", grown_as=grown_as, twins=False)


def _last_loss(folder: Path) -> float:
    return Trajectory.open(folder).losses(-1)["val_loss"]
