"""What the processes beside the dashboard read: `Helper` calls these functions there."""

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ...core.errors import FileFormatError, MetaoptError, TrackingError
from ..ledger import scan
from ..lineage import Node
from .views import (
    CurveView,
    DecisionView,
    LineageOf,
    LineageView,
    LossesView,
    NodeView,
    RetentionView,
)

_DECISIONS = 500  # of a plan [count]
_LINEAGES = 5  # the latest checkpoints [count]
_NODES = 60  # of a lineage [count]
_RUN = re.compile(r"run ([0-9a-f]{32})")


def read_losses(run_id: str, store: str, ui: str | None) -> LossesView:
    """Read the losses of a run.

    Args:
        store: address of the tracking store.
        ui: address of the MLflow UI, for links.
    Raises:
        TrackingError: the store has no such run, or does not respond.
    """
    from ...tracking.curves import loss_curves  # MLflow takes seconds to import

    found = loss_curves(run_id, store)
    return LossesView(
        curves=[CurveView(**curve._asdict()) for curve in found.curves],
        pages={run_id: ui + found.page} if ui else {},
        problem="" if found.curves else "no losses yet",
        read=time.time(),
    )


def read_retention(checkpoint_dir: Path, trajectory_dir: Path) -> RetentionView:
    """Plan which checkpoints the default policy keeps, without deleting any.

    Raises:
        StorageError: another process writes the index of the ledger.
        TrackingError: the store does not say which checkpoints are registered.
    """
    from ..pruning import PruneConfig, prune

    planned = prune(PruneConfig(checkpoint_dir=checkpoint_dir, trajectory_dir=trajectory_dir))
    decisions = sorted(planned.decisions, key=lambda each: (each.keep, each.path))
    kept, deleted = ([each for each in decisions if each.keep is keep] for keep in (True, False))
    return RetentionView(
        decisions=[DecisionView(**vars(each)) for each in decisions[:_DECISIONS]],
        kept=len(kept),
        kept_size=sum(each.size for each in kept),
        deleted=len(deleted),
        deleted_size=sum(each.size for each in deleted),
        problem=planned.limit_problem,
        read=time.time(),
    )


def read_lineages(checkpoint_dir: Path, trajectory_dir: Path, store: str | None, ui: str | None) -> LineageView:
    """Read what the latest checkpoints were made from.

    Args:
        store: address of the tracking store; None for none.
        ui: address of the MLflow UI, for links.
    """
    records = sorted(scan(checkpoint_dir).records, key=lambda each: each.created, reverse=True)[:_LINEAGES]
    page = _pages(store, ui)
    found = [
        _lineage(checkpoint_dir / each.path, each.run_id, trajectory_dir, checkpoint_dir, page) for each in records
    ]
    return LineageView(checkpoints=found, problem="" if found else "no checkpoint has a ledger entry", read=time.time())


def _lineage(
    path: Path, run_id: str | None, trajectory_dir: Path, checkpoint_dir: Path, page: Callable[[str], str | None]
) -> LineageOf:
    from ..lineage_files import read_lineage  # it imports torch, which takes seconds

    try:
        nodes = [*read_lineage(str(path), checkpoint_dir, trajectory_dir)]
    except (MetaoptError, OSError) as error:
        nodes = [Node("checkpoint", path.name, place=str(path), missing=str(error))]
    views = [_node(each, _RUN.search(each.place), page) for each in nodes[:_NODES]]
    if run_id is not None:
        views[0] = views[0].model_copy(update={"page": page(run_id)})
    return LineageOf(path=path.relative_to(checkpoint_dir).as_posix(), nodes=views)


def _node(node: Node, run: re.Match[str] | None, page: Callable[[str], str | None]) -> NodeView:
    return NodeView(
        kind=node.kind,
        name=node.name,
        digest=node.digest,
        place=node.place,
        page=page(run[1] if run else _run_of(node)) if run or node.kind == "trajectory" else None,
        problem=node.problem,
    )


def _run_of(node: Node) -> str:
    """The run that recorded a trajectory of this machine; empty if it does not say."""
    from ...trajectories.recording_file import read_run_id

    try:
        return read_run_id(Path(node.place)) or ""
    except (FileFormatError, OSError):
        return ""


def _pages(store: str | None, ui: str | None) -> Callable[[str], str | None]:
    """A function that returns the address of a run's page; None where it is not known."""

    @cache
    def page(run_id: str) -> str | None:
        from ...tracking.curves import page_of_run  # MLflow takes seconds to import

        if not (store and ui and run_id):
            return None
        try:
            return ui + page_of_run(run_id, store)
        except TrackingError:
            return None

    return page
