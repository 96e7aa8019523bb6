"""Deletes the checkpoints that a policy does not keep, after it has shown what it would delete.

A checkpoint leaves the index before its files are deleted: whenever a process is killed, the index names no missing
file, and the next run finds what is left.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from ..core.config import option
from ..core.errors import CheckpointError, RunNameError
from ..core.registry import suggest
from ..core.text import shown
from ..trajectories.ledger_entry import pin_path, remove_checkpoint
from ..trajectories.run_folder import DOWNLOADS, LOCK, locked
from ..weights.atomic import write_text
from .downloads import downloads, not_stored, remove_download
from .ledger import Found, Ledger, scan
from .retention import Decision, Record, RetentionPolicy, limit_problem, plan

_DIGITS = "0123456789"


class PruneConfig(RetentionPolicy):
    """Settings of `metaopt prune`: the policy, the folders, and what to do."""

    apply: bool = option(default=False, help="Delete; by default the plan is only printed.")
    pin: tuple[str, ...] = option(default=(), help="Checkpoints to pin first: they are never deleted.")
    unpin: tuple[str, ...] = option(default=(), help="Checkpoints to unpin first.")
    checkpoint_dir: Path = option(default=Path("checkpoints"), help="Folder of all checkpoints.")
    trajectory_dir: Path = option(
        default=Path("trajectories"), help="Folder of all trajectories; a run of phase 1 that is in use locks its own."
    )


@dataclass(frozen=True)
class Pruned:
    """A plan, and what was done.

    Attributes:
        decisions: about each checkpoint, by path; then about those that were fetched from the tracking store.
        limit_problem: why the limit of the size is not reached, in a sentence; empty if it is.
        deleted: paths of what was deleted; empty unless `apply` was given.
        freed: their size [bytes].
    """

    decisions: list[Decision]
    limit_problem: str
    deleted: tuple[str, ...] = ()
    freed: int = 0


@dataclass(frozen=True)
class Elsewhere:
    """What a tracking store says about checkpoints.

    Attributes:
        registered: the registered version, by the `content_sha256` of its checkpoint.
        registered_runs: the same by the ID of a run, of versions that do not name their checkpoint.
        unsent: files that wait until the store accepts them.
    """

    registered: Mapping[str, str]
    registered_runs: Mapping[str, str]
    unsent: frozenset[Path]

    @classmethod
    def read(cls) -> Self:
        """Ask the current tracking store.

        Raises:
            TrackingError: it does not respond, so that nothing may be deleted.
        """
        from ..tracking import registered_checkpoints, unsent_files  # MLflow takes seconds to import

        return cls(*registered_checkpoints(), frozenset(unsent_files()))


def prune(config: PruneConfig) -> Pruned:
    """Plan which checkpoints are deleted, and delete them if `apply` is given.

        from metaopt.operations.pruning import PruneConfig, prune

        for decision in prune(PruneConfig(keep_latest=1, keep_days=0)).decisions:
            print(decision.path, decision.keep, decision.reason)

    Raises:
        CheckpointError: there is no checkpoint to pin or to unpin.
        StorageError: a file cannot be deleted, or another process writes the index.
        TrackingError: something would be deleted, and the store does not say which checkpoints are registered.
    """
    _change_pins(config)
    ledger = Ledger(config.checkpoint_dir)
    found = ledger.sync()
    copies, now = [*downloads(config.checkpoint_dir)], datetime.now(UTC)
    fetched = [each.record(now, ()) for each in copies]
    decisions = plan([*_records(found, config, None), *fetched], config, now)
    if not all(each.keep for each in decisions):
        elsewhere, missing = Elsewhere.read(), not_stored(copies)
        fetched = [each.record(now, missing) for each in copies]
        decisions = plan([*_records(found, config, elsewhere), *fetched], config, now)
    deleted = delete(ledger, decisions, config.trajectory_dir) if config.apply else []
    freed = sum(each.size for each in deleted)
    return Pruned(decisions, limit_problem(decisions, config), tuple(each.path for each in deleted), freed)


def delete(ledger: Ledger, decisions: Sequence[Decision], trajectory_dir: Path) -> list[Decision]:
    """Delete what is not kept; what a training has begun to use meanwhile, or somebody has pinned, stays.

    Returns: the decisions that were carried out.
    Raises:
        StorageError: a file cannot be deleted, or another process writes the index.
    """
    by_folder: dict[Path, list[Decision]] = defaultdict(list)
    for decision in decisions:
        if not decision.keep and not _is_download(decision.path):
            by_folder[Path(decision.path).parent].append(decision)
    deleted: list[Decision] = []
    for folder, chosen in by_folder.items():
        own = ledger.folder / folder
        with _all_locked(_lock_folders(folder, ledger.folder, trajectory_dir), always=own) as is_locked:
            if is_locked:
                going = [each for each in chosen if not _is_pinned(ledger.folder / each.path)]
                ledger.forget([each.path for each in going])
                for each in going:
                    remove_checkpoint(ledger.folder / each.path)
                deleted += going
    copies = [each for each in decisions if not each.keep and _is_download(each.path)]
    return deleted + [each for each in copies if remove_download(ledger.folder, each.path)]


def _is_download(path: str) -> bool:
    return Path(path).parts[0] == DOWNLOADS


def _is_pinned(path: Path) -> bool:
    return path.exists() and pin_path(path).exists()


def _records(found: Found, config: PruneConfig, elsewhere: Elsewhere | None) -> list[Record]:
    """What the policy needs to know of each checkpoint, by path."""
    in_use: dict[Path, bool] = {}

    def user(path: str) -> str:
        folder = Path(path).parent
        if folder not in in_use:
            with _all_locked(_lock_folders(folder, config.checkpoint_dir, config.trajectory_dir)) as is_locked:
                in_use[folder] = not is_locked
        if in_use[folder]:
            return "a training uses the folder of its run"
        if elsewhere is not None and (config.checkpoint_dir / path).absolute() in elsewhere.unsent:
            return "it waits to be sent to the tracking store: run `metaopt upload`"
        return ""

    records = [
        Record(
            path=each.path,
            series=_series(each.path),
            step=each.step,
            created=datetime.fromisoformat(each.created),
            size=each.size,
            metrics=each.metrics,
            is_pinned=each.is_pinned,
            registered=_registered(each.content_sha256, each.run_id, elsewhere),
            in_use=user(each.path),
        )
        for each in found.records
    ]
    records += [
        Record(path, size=(config.checkpoint_dir / path).stat().st_size, problem=problem, in_use=user(path))
        for path, problem in found.problems.items()
    ]
    records += [Record(each.path, size=each.size, is_leftover=True, in_use=user(each.path)) for each in found.leftovers]
    return sorted(records, key=lambda each: each.path)


def _series(path: str) -> str:
    """A path without the number of its epoch or rollout."""
    return path.removesuffix(".safetensors").removesuffix("_stopped").rstrip(_DIGITS)


def _registered(content: str, run_id: str | None, elsewhere: Elsewhere | None) -> str:
    if elsewhere is None:
        return ""
    return elsewhere.registered.get(content) or elsewhere.registered_runs.get(run_id or "", "")


def _lock_folders(folder: Path, *roots: Path) -> list[Path]:
    """Folders that a training with checkpoints in `folder` may lock: the run folder in either tree.

    Args:
        folder: relative to the roots.
    """
    relative = [each for each in (folder, *folder.parents) if each != Path()]
    return [place for root in roots for each in relative if (place := root / each).is_dir()]


@contextmanager
def _all_locked(folders: Sequence[Path], always: Path | None = None) -> Iterator[bool]:
    """Hold the locks of all folders during the block; yields whether that worked.

    Args:
        folders: those without a lock file, which no training has used, are left out.
        always: one of them that is locked also without such a file.
    """
    with ExitStack() as stack:
        try:
            for folder in folders:
                if folder == always or (folder / LOCK).exists():
                    stack.enter_context(locked(folder))
        except RunNameError:
            yield False
            return
        yield True


def _change_pins(config: PruneConfig) -> None:
    if not (config.pin or config.unpin):
        return
    found = scan(config.checkpoint_dir)
    known = {each.path for each in found.records} | set(found.problems)
    pins = [_known(name, known, config.checkpoint_dir) for name in config.pin]
    unpins = [_known(name, known, config.checkpoint_dir) for name in config.unpin]
    for path in pins:
        write_text(pin_path(path), "")
    for path in unpins:
        pin_path(path).unlink(missing_ok=True)


def _known(name: str, known: set[str], folder: Path) -> Path:
    """The checkpoint of a name: relative to the folder of the checkpoints, or to the working directory."""
    for candidate in (name, os.path.relpath(name, folder)):
        if Path(candidate).as_posix() in known:
            return folder / candidate
    raise CheckpointError(f"no checkpoint {shown(name)} in {folder}: {suggest(name, sorted(known))}")
