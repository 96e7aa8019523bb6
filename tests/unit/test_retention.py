"""A policy says for each checkpoint whether it stays, and why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from metaopt.core.errors import InvalidConfig
from metaopt.operations.retention import Record, RetentionPolicy, limit_problem, plan

NOW = datetime(2026, 11, 29, tzinfo=UTC)
STRICT = RetentionPolicy(keep_latest=1, keep_days=0)


def record(number, loss=None, days=30.0, **values):
    metrics = {} if loss is None else {"val_loss": loss}
    created = NOW - timedelta(days=days)
    return Record(f"run/net_{number}", "run/net_", number, created, 10**9, metrics, **values)


def kept(records, policy=STRICT):
    return {each.path.rpartition("_")[2]: each.reason for each in plan(records, policy, NOW) if each.keep}


def test_the_best_and_the_latest_stay():
    found = kept([record(1, 0.3), record(2, 0.1), record(3, 0.2), record(4, 0.4)])
    assert found == {"2": "the best of its run by val_loss", "4": "the latest of its run"}


def test_a_reason_is_given_for_what_goes():
    (first, *_) = plan([record(1, 0.3), record(2, 0.1)], STRICT, NOW)
    assert first.reason == "neither among the best 1 by val_loss nor the latest 1 of its run, and 30 days old"
    (first, *_) = plan([record(1), record(2)], STRICT, NOW)
    assert first.reason == "not among the latest 1 of its run, and 30 days old"


def test_numbers_of_the_best_and_the_latest():
    records = [record(number, 1 / number) for number in range(1, 7)]
    assert set(kept(records, RetentionPolicy(keep_best=2, keep_latest=3, keep_days=0))) == {"4", "5", "6"}
    upside_down = [record(number, float(number)) for number in range(1, 7)]
    assert set(kept(upside_down, RetentionPolicy(keep_best=2, keep_latest=1, keep_days=0))) == {"1", "2", "6"}


@pytest.mark.parametrize(
    ("slopes", "expected"),
    [
        ({"return": -1.0}, {"1", "3"}),
        ({"val_objective": 1.0}, {"1", "3"}),
        ({"val_loss": 1.0, "val_objective": -1.0}, {"3"}),
    ],
)
def test_auto_compares_the_metric_of_the_phase(slopes, expected):
    values = {number: {name: slope * number for name, slope in slopes.items()} for number in (1, 2, 3)}
    records = [replace(record(number), metrics=metrics) for number, metrics in values.items()]
    assert set(kept(records)) == expected


def test_a_given_metric_and_its_direction():
    highest = RetentionPolicy(keep_latest=1, keep_days=0, metric="val_loss", best="highest")
    assert set(kept([record(1, 0.3), record(2, 0.1), record(3, 0.2)], highest)) == {"1", "3"}


def test_losses_that_are_not_finite_are_never_the_best():
    assert set(kept([record(1, 0.3), record(2, float("nan")), record(3, float("-inf")), record(4)])) == {"1", "4"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"is_pinned": True}, "pinned"),
        ({"registered": "models:/digits/3"}, "registered as models:/digits/3"),
        ({"in_use": "a training uses the folder of its run"}, "a training uses the folder of its run"),
        ({"problem": "no sidecar"}, "unknown to the ledger: no sidecar"),
        ({"days": 0.5}, "0.5 days old; younger than 7 days"),
        ({"days": -400}, "written in the future; younger than 7 days"),
    ],
)
def test_what_else_stays(values, reason):
    policy = RetentionPolicy(keep_latest=1)
    assert kept([record(1, 0.3, **values), record(2, 0.1)], policy)["1"] == reason


def test_names_and_patterns_stay():
    policy = RetentionPolicy(keep_latest=1, keep_days=0, keep_names=("run/net_[12]",))
    assert set(kept([record(1), record(2), record(3), record(4)], policy)) == {"1", "2", "4"}


def test_leftovers_go_unless_they_are_in_use():
    left, used = Record("a", is_leftover=True, is_pinned=True), Record("b", is_leftover=True, in_use="a training")
    assert [each.keep for each in plan([left, used], STRICT, NOW)] == [False, True]


def test_each_series_has_its_own_best_and_latest():
    records = [record(1, 0.1), Record("other", "other", 0, NOW - timedelta(days=90), 1, {"val_loss": 9.0})]
    assert all(each.keep for each in plan(records, STRICT, NOW))


def test_the_limit_takes_the_oldest_that_may_go():
    policy = RetentionPolicy(keep_latest=4, keep_days=0, max_gigabytes=3)
    records = [record(number, 1 / number, days=30 - number) for number in range(1, 6)]
    decisions = plan(records, policy, NOW)
    assert [each.path for each in decisions if not each.keep] == ["run/net_1", "run/net_2"]
    assert decisions[1].reason == "the oldest that may go: more than 3 GB would be kept"
    assert limit_problem(decisions, policy) == ""


def test_a_limit_that_cannot_be_reached_is_said():
    policy = RetentionPolicy(keep_latest=4, keep_days=0, max_gigabytes=1.5)
    decisions = plan([record(1, 0.1), record(2, 0.2, is_pinned=True), record(3, 0.3)], policy, NOW)
    assert all(each.keep for each in decisions)
    assert limit_problem(decisions, policy) == (
        "max_gigabytes is 1.5, but 3 GB stay: 3 checkpoints that must not be deleted. Raise the limit, unpin some, or "
        "move the folders of runs that you no longer need"
    )
    assert limit_problem(decisions, STRICT) == ""


@pytest.mark.parametrize("values", [{"keep_best": 0}, {"keep_latest": 0}, {"keep_days": -1}, {"best": "middle"}])
def test_a_policy_cannot_give_up_the_best_or_the_latest(values):
    with pytest.raises(InvalidConfig):
        RetentionPolicy.from_mapping(values)
