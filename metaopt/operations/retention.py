"""Retention: which checkpoints a policy keeps, and why. Pure: `metaopt.operations.pruning` reads and deletes files.

Some checkpoints are never deleted: the latest and the best of each series, those that are pinned or registered, those
of a run that is in use, and those that the ledger does not know. The rest is kept by number and age, and may go if the
files take more than `max_gigabytes`. Copies of checkpoints in the tracking store are kept by age.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase

from ..core.config import Config, option
from ..core.text import counted

GIGABYTE = 10**9
"""Unit of `max_gigabytes` [bytes]."""

_AUTO = "auto"
_BEST = (
    ("best_selection_return", "highest"),
    ("return", "highest"),
    ("val_objective", "lowest"),
    ("val_relative_error", "lowest"),
    ("val_loss", "lowest"),
)
"""What `auto` compares: the first of these metrics that a checkpoint of the series has."""


class RetentionPolicy(Config):
    """Which checkpoints are kept."""

    keep_best: int = option(default=1, help="Best checkpoints of each run that are kept [count].", at_least=1)
    keep_latest: int = option(default=2, help="Latest checkpoints of each run that are kept [count].", at_least=1)
    keep_days: float = option(default=7.0, help="Checkpoints younger than this are kept [days].", at_least=0.0)
    max_gigabytes: float | None = option(
        default=None, help="Limit for all checkpoints together; older ones go first [GB].", at_least=0.0
    )
    metric: str = option(
        default=_AUTO, help="Metric that says which is best; auto: that of the phase, such as val_loss."
    )
    best: str = option(
        default="lowest", help="Which value of `metric` is best; not used for auto.", choices=("lowest", "highest")
    )
    keep_names: tuple[str, ...] = option(
        default=(), help="Checkpoints that are never deleted: paths in the folder, or patterns such as digits/*."
    )


@dataclass(frozen=True)
class Record:
    """A checkpoint, or what a killed process left of one.

    Attributes:
        path: relative to the folder of the checkpoints.
        series: what its checkpoints succeed each other in: a folder and a kind of training.
        step: training time [optimizer steps].
        created: time of writing.
        size: with shards and sidecar [bytes].
        metrics: by name.
        is_pinned: whether a person pinned it.
        registered: the registered version that it became, such as `models:/digits/3`; empty for none.
        in_use: what uses or needs it, in words; empty for nothing.
        problem: why the ledger does not know it, in words; empty if it does.
        is_leftover: whether the checkpoint itself is gone: only its shards, sidecar or pin are there.
        copy_of: address in the tracking store of what was fetched; empty for what was written here.
    """

    path: str
    series: str = ""
    step: int = 0
    created: datetime = datetime.min
    size: int = 0
    metrics: Mapping[str, float] | None = None
    is_pinned: bool = False
    registered: str = ""
    in_use: str = ""
    problem: str = ""
    is_leftover: bool = False
    copy_of: str = ""


@dataclass(frozen=True)
class Decision:
    """What happens to one checkpoint.

    Attributes:
        path: relative to the folder of the checkpoints.
        keep: whether it is kept.
        reason: why, in plain words.
        size: what it takes [bytes].
        is_protected: whether it is kept whatever the limit of the size is.
    """

    path: str
    keep: bool
    reason: str
    size: int
    is_protected: bool = False


def plan(records: Sequence[Record], policy: RetentionPolicy, now: datetime) -> list[Decision]:
    """Decide about each checkpoint.

        from datetime import UTC, datetime, timedelta
        from metaopt.operations.retention import Record, RetentionPolicy, plan

        now = datetime.now(UTC)
        records = [
            Record(f"digits/epoch_{n}", "digits", n, now - timedelta(days=30 - n), metrics={"val_loss": 1 / (n + 1)})
            for n in range(4)
        ]
        for decision in plan(records, RetentionPolicy(keep_latest=1, keep_days=0), now):
            print(decision.path, decision.keep, decision.reason)

    Args:
        records: paths are unique.
        now: with a time zone, as `created`.
    Returns: a decision for each record, in their order.
    """
    series: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not (record.problem or record.is_leftover or record.copy_of):
            series[record.series].append(record)
    ranks = {path: rank for members in series.values() for path, rank in _ranked(members, policy).items()}
    decided = [_decision(record, ranks.get(record.path), policy, now) for record in records]
    return _within_limit(records, decided, policy)


def total_size(decisions: Sequence[Decision]) -> int:
    """Size of what is kept [bytes]."""
    return sum(each.size for each in decisions if each.keep)


def limit_problem(decisions: Sequence[Decision], policy: RetentionPolicy) -> str:
    """Why the limit of the size is not reached, in a sentence; empty if it is, or if there is none."""
    kept = total_size(decisions)
    if policy.max_gigabytes is None or kept <= policy.max_gigabytes * GIGABYTE:
        return ""
    protected = counted(sum(each.keep for each in decisions), "checkpoint")
    return (
        f"max_gigabytes is {policy.max_gigabytes:g}, but {kept / GIGABYTE:.3g} GB stay: {protected} that must not be "
        "deleted. Raise the limit, unpin some, or move the folders of runs that you no longer need"
    )


@dataclass(frozen=True)
class _Rank:
    """Place of a checkpoint in its series, from 0.

    Attributes:
        latest: by training time.
        best: by the metric; None for one without it.
        metric: the name; empty if no checkpoint of the series has one.
    """

    latest: int
    best: int | None
    metric: str


def _ranked(members: Sequence[Record], policy: RetentionPolicy) -> dict[str, _Rank]:
    latest = sorted(members, key=lambda each: (each.step, each.created, each.path), reverse=True)
    metric, which = _metric_of(members, policy)
    sign = -1.0 if which == "highest" else 1.0
    measured = [each for each in latest if _value(each, metric) is not None]
    best = sorted(measured, key=lambda each: sign * (_value(each, metric) or 0.0))  # of equal ones, the latest
    places = {each.path: place for place, each in enumerate(best)}
    return {each.path: _Rank(place, places.get(each.path), metric) for place, each in enumerate(latest)}


def _metric_of(members: Sequence[Record], policy: RetentionPolicy) -> tuple[str, str]:
    if policy.metric != _AUTO:
        return policy.metric, policy.best
    known = (pair for pair in _BEST if any(_value(each, pair[0]) is not None for each in members))
    return next(known, ("", ""))


def _value(record: Record, metric: str) -> float | None:
    value = (record.metrics or {}).get(metric)
    return None if value is None or not math.isfinite(value) else value


def _decision(record: Record, rank: _Rank | None, policy: RetentionPolicy, now: datetime) -> Decision:
    if reason := _protection(record, rank, policy):
        return Decision(record.path, True, reason, record.size, is_protected=True)
    if record.copy_of:
        return _decision_about_copy(record, policy, now)
    if rank is None:
        return Decision(record.path, False, "the rest of a checkpoint that was deleted or not completed", record.size)
    by_metric = f" by {rank.metric}" if rank.metric else ""
    if rank.best is not None and rank.best < policy.keep_best:
        return Decision(record.path, True, f"number {rank.best + 1} of its run{by_metric}", record.size)
    if rank.latest < policy.keep_latest:
        return Decision(record.path, True, f"among the latest {policy.keep_latest} of its run", record.size)
    days = (now - record.created).total_seconds() / 86_400
    if days < policy.keep_days:
        return Decision(record.path, True, f"{_age(days)}; younger than {policy.keep_days:g} days", record.size)
    among = f"the best {policy.keep_best}{by_metric} nor " if rank.metric else ""
    neither = "neither among " if rank.metric else "not among "
    return Decision(
        record.path, False, f"{neither}{among}the latest {policy.keep_latest} of its run, and {_age(days)}", record.size
    )


def _decision_about_copy(record: Record, policy: RetentionPolicy, now: datetime) -> Decision:
    """A copy has no place in a run: only its age counts, from its last use."""
    days = (now - record.created).total_seconds() / 86_400
    if days < policy.keep_days:
        return Decision(record.path, True, f"{_age(days)}; younger than {policy.keep_days:g} days", record.size)
    return Decision(record.path, False, f"a copy of {record.copy_of}, not used for {days:.3g} days", record.size)


def _protection(record: Record, rank: _Rank | None, policy: RetentionPolicy) -> str:
    """Why a checkpoint must not be deleted; empty if it may."""
    named = next((each for each in policy.keep_names if fnmatchcase(record.path, each)), None)
    reasons: tuple[tuple[bool, Callable[[], str]], ...] = (
        (bool(record.in_use), lambda: record.in_use),
        (bool(record.problem), lambda: f"unknown to the ledger: {record.problem}"),
        (record.is_pinned and not record.is_leftover, lambda: "pinned"),
        (bool(record.registered), lambda: f"registered as {record.registered}"),
        (named is not None, lambda: f"keep_names has {named}"),
        (rank is not None and rank.latest == 0, lambda: "the latest of its run"),
        (rank is not None and rank.best == 0, lambda: f"the best of its run by {rank.metric if rank else ''}"),
    )
    return next((reason() for holds, reason in reasons if holds), "")


def _within_limit(records: Sequence[Record], decisions: Sequence[Decision], policy: RetentionPolicy) -> list[Decision]:
    """Delete the oldest checkpoints that may go, until the rest is within the limit of the size."""
    found = list(decisions)
    if policy.max_gigabytes is None:
        return found
    limit, kept = policy.max_gigabytes * GIGABYTE, total_size(found)
    may_go = [place for place, each in enumerate(found) if each.keep and not each.is_protected]
    for place in sorted(may_go, key=lambda place: (records[place].created, records[place].path)):
        if kept <= limit:
            break
        kept -= found[place].size
        reason = f"the oldest that may go: more than {policy.max_gigabytes:g} GB would be kept"
        found[place] = replace(found[place], keep=False, reason=reason)
    return found


def _age(days: float) -> str:
    """An age in words; one in the future, after a clock was set back, counts as new."""
    return f"{days:.3g} days old" if days >= 0 else "written in the future"
