"""Retention on random histories: how many protected checkpoints are deleted. It must be none.

    python -m benchmarks.operations.retention

Each history has runs with checkpoints of random steps, ages, sizes and metrics, some of them pinned, registered or in
use, under a random policy. What is protected is worked out here again, from the words of the documentation. Some of the
histories are real files in a temporary folder, from which `metaopt prune` deletes, and half of them are interrupted
after a random number of removed files, and continued.
"""

import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import click

from metaopt.operations.ledger import Ledger
from metaopt.operations.pruning import Elsewhere, PruneConfig, prune
from metaopt.operations.retention import GIGABYTE, Record, RetentionPolicy, plan

_METRICS = {"auto": ("val_loss", -1), "val_loss": ("val_loss", -1), "accuracy": ("accuracy", 1)}
"""The metric that decides, and 1 if high values are good, by the value of the option."""


def broken_promises(
    records: Sequence[Record], policy: RetentionPolicy, now: datetime, deleted: Collection[str]
) -> list[str]:
    """The protected checkpoints among those that were deleted, with what protects them."""
    broken = []
    series: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.path in deleted and (record.in_use or record.problem):
            broken.append(f"{record.path} is in use or unknown")
        if record.path in deleted and not record.is_leftover and (record.is_pinned or record.registered):
            broken.append(f"{record.path} is pinned or registered")
        if not record.problem and not record.is_leftover:
            series[record.series].append(record)
    for members in series.values():
        kept = [each for each in members if each.path not in deleted]
        if max(each.step for each in members) > max((each.step for each in kept), default=-1):
            broken.append(f"the latest of {members[0].series}")
        if _best(members, policy) != _best(kept, policy):
            broken.append(f"the best of {members[0].series}")
    return broken


def _best(members: Sequence[Record], policy: RetentionPolicy) -> float | None:
    name, sign = _METRICS[policy.metric]
    if policy.metric != "auto":
        sign = 1 if policy.best == "highest" else -1
    values = [(each.metrics or {}).get(name, math.nan) for each in members]
    return max((sign * value for value in values if math.isfinite(value)), default=None)


def random_policy(source: random.Random) -> RetentionPolicy:
    """A policy that often wants to delete nearly everything."""
    return RetentionPolicy(
        keep_best=source.randint(1, 3),
        keep_latest=source.randint(1, 3),
        keep_days=source.choice([0, 0, 1, 7, 30]),
        max_gigabytes=source.choice([None, 0, 0.1, 5, 50]),
        metric=source.choice(["auto", "val_loss", "accuracy"]),
        best=source.choice(["lowest", "highest"]),
    )


def random_history(source: random.Random, now: datetime) -> list[Record]:
    """Checkpoints of up to four runs; clocks may have been set back."""
    records = []
    for run in range(source.randint(1, 4)):
        for number in range(source.randint(1, 12)):
            loss, accuracy = source.choice([math.nan, math.inf, 0.5, source.random()]), source.random()
            records.append(
                Record(
                    path=f"run_{run}/net_{number}.safetensors",
                    series=f"run_{run}/net_",
                    step=source.choice([number, source.randint(0, 12)]),
                    created=now - timedelta(days=source.uniform(-5, 60)),
                    size=source.randint(1, 4 * GIGABYTE),
                    metrics=source.choice([{}, {"val_loss": loss}, {"val_loss": loss, "accuracy": accuracy}]),
                    is_pinned=source.random() < 0.1,
                    registered="models:/m/1" if source.random() < 0.1 else "",
                    in_use="a training" if source.random() < 0.1 else "",
                    problem="no sidecar" if source.random() < 0.05 else "",
                    is_leftover=source.random() < 0.05,
                )
            )
    return records


def check_files(source: random.Random, folder: Path) -> list[str]:
    """Write a history as real checkpoints, prune it, perhaps in two attempts; returns the broken promises."""
    now = datetime.now(UTC)
    policy = random_policy(source)
    members, registered = [], {}
    for record in random_history(source, now):
        if record.in_use or record.problem or record.is_leftover:
            continue
        content = _write(folder / record.path, record)
        if record.registered:
            registered[content] = record.registered
        members.append(record)
    values = {**policy.to_mapping(), "keep_days": 0, "apply": True}
    config = PruneConfig.from_mapping({**values, "checkpoint_dir": folder, "trajectory_dir": folder / "none"})
    with patch.object(Elsewhere, "read", lambda: Elsewhere(registered, {}, frozenset())):
        if source.random() < 0.5:
            with _interrupted(source.randint(0, 6)):
                prune(config)
            lost = [each.path for each in Ledger(folder).records() if not (folder / each.path).exists()]
            if lost:
                return [f"the index names the missing file {lost[0]}"]
        prune(config)
    gone = {record.path for record in members if not (folder / record.path).exists()}
    left = [] if not Ledger(folder).sync().leftovers else ["a second run left files of deleted checkpoints"]
    return broken_promises(members, policy, now, gone) + left


def _write(path: Path, record: Record) -> str:
    from metaopt.trajectories.checkpoint import save_checkpoint
    from metaopt.trajectories.ledger_entry import TrainingFacts, entry_of, pin_path
    from metaopt.trajectories.origin import Generator, Origin

    origin = Origin(Generator("train-optimizer", "0", "0"), ())
    facts = TrainingFacts("optimizer", record.series, None, record.step, record.metrics or {}, origin)
    save_checkpoint(path, {"path": record.path}, {}, facts)
    if record.is_pinned:
        pin_path(path).touch()
    return entry_of(path).file.content_sha256


class _Killed(BaseException):
    """Takes the place of a signal that ends the process."""


@contextmanager
def _interrupted(after: int) -> Iterator[None]:
    """End the block at the next file to remove, after so many."""
    removed: list[Path] = []
    unlink = Path.unlink

    def limited(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and ".safetensors" in path.name and not path.name.startswith("."):
            if len(removed) == after:
                raise _Killed
            removed.append(path)
        unlink(path, missing_ok=missing_ok)

    with patch.object(Path, "unlink", limited), suppress(_Killed):
        yield


@click.command()
@click.option("--histories", default=10_000, show_default=True, help="Random histories [count].")
@click.option("--on-files", default=300, show_default=True, help="How many of them are real files [count].")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def main(histories: int, on_files: int, seed: int) -> None:
    """Print how many protected checkpoints are deleted in random histories."""
    source, now, broken = random.Random(seed), datetime.now(UTC), list[str]()
    checkpoints = deleted = 0
    start = time.perf_counter()
    for _ in range(histories - on_files):
        records, policy = random_history(source, now), random_policy(source)
        gone = {each.path for each in plan(records, policy, now) if not each.keep}
        broken += broken_promises(records, policy, now, gone)
        checkpoints += len(records)
        deleted += len(gone)
    planned = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(on_files):
        with tempfile.TemporaryDirectory() as folder:
            broken += check_files(source, Path(folder))
    click.echo(f"histories: {histories:,}, of which {on_files:,} with real files")
    click.echo(f"planned: {checkpoints:,} checkpoints, {deleted:,} deleted, in {planned:.1f} s")
    click.echo(f"real files: {time.perf_counter() - start:.1f} s, half of the runs interrupted")
    click.echo(f"protected checkpoints deleted: {len(broken)}")
    for each in broken[:10]:
        click.echo(f"  {each}")
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
