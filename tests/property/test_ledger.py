"""The index equals one that is built again from the sidecars; retention never deletes what is protected."""

import math
import shutil
from datetime import UTC, datetime, timedelta

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.operations.retention import broken_promises
from metaopt.operations.ledger import INDEX_FILE, Ledger
from metaopt.operations.retention import GIGABYTE, Record, RetentionPolicy, limit_problem, plan, total_size
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.trajectories.ledger_entry import (
    LedgerEntry,
    TrainingFacts,
    pin_path,
    read_entry,
    remove_checkpoint,
    sidecar_path,
)
from metaopt.trajectories.origin import KINDS, Generator, Origin, Parent
from metaopt.trajectories.sealed_json import read_sealed, write_sealed

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NAMES = ("a/net_1", "a/net_2", "b/c/checkpoint")
ACTIONS = ("write", "write without facts", "remove", "remove sidecar", "pin", "unpin", "sync", "forget")

texts = st.text(max_size=8)
parents = st.builds(Parent, st.sampled_from(KINDS), texts, texts, st.none() | texts)
origins = st.builds(
    Origin,
    st.builds(Generator, texts, texts, texts),
    st.lists(parents, max_size=3).map(tuple),
)
facts = st.builds(
    TrainingFacts,
    training=texts,
    run_name=texts,
    run_id=st.none() | texts,
    step=st.integers(0, 2**53 - 1),
    metrics=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    origin=origins,
)


def _seldom(usual, seldom):
    return st.sampled_from([usual] * 7 + [seldom])


records = st.lists(
    st.builds(
        Record,
        path=st.integers(0, 30).map("net_{}".format),
        series=st.sampled_from("ab"),
        step=st.integers(0, 5),
        created=st.floats(-2, 40).map(lambda days: NOW - timedelta(days=days)),
        size=st.integers(GIGABYTE, 3 * GIGABYTE),
        metrics=st.sampled_from([{"val_loss": loss} for loss in (0.1, 0.2, 0.3, 0.4, math.nan)] + [{}, None]),
        is_pinned=_seldom(False, True),
        registered=_seldom("", "models:/m/1"),
        in_use=_seldom("", "a training"),
        problem=_seldom("", "no sidecar"),
        is_leftover=_seldom(False, True),
    ),
    min_size=2,
    max_size=12,
    unique_by=lambda record: record.path,
)
policies = st.builds(
    RetentionPolicy,
    keep_best=st.integers(1, 3),
    keep_latest=st.integers(1, 3),
    keep_days=st.floats(0, 30),
    max_gigabytes=st.sampled_from([None, 0.0, 2.0, 8.0]),
    metric=st.sampled_from(["auto", "val_loss", "accuracy"]),
    best=st.sampled_from(["lowest", "highest"]),
    keep_names=st.sampled_from([(), ("net_1*",)]),
)


@given(facts)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sidecar_returns_what_was_written(tmp_path, written):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, {}, {}, written)
    assert read_entry(path).facts == written


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES)), max_size=12))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_built_again_from_the_sidecars_equals_the_index(tmp_path, history):
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    ledger, origin = Ledger(folder), Origin(Generator("train-optimizer", "0", "0"), ())
    for number, (action, name) in enumerate(history):
        path = folder / f"{name}.safetensors"
        known = TrainingFacts("optimizer", name, None, number, {"loss": number / 2}, origin)
        if action.startswith("write"):
            save_checkpoint(path, {"w": torch.ones(number)}, {}, None if "without" in action else known)
        elif action == "sync":
            ledger.sync()
        elif path.exists():
            match action:
                case "remove":
                    ledger.forget([path.relative_to(folder).as_posix()])
                    remove_checkpoint(path)
                case "remove sidecar":
                    sidecar_path(path).unlink(missing_ok=True)
                case "pin":
                    pin_path(path).touch()
                case "unpin":
                    pin_path(path).unlink(missing_ok=True)
                case "forget":
                    ledger.forget([path.relative_to(folder).as_posix()])
    found = ledger.sync().records
    kept = ledger.records()
    (folder / INDEX_FILE).unlink(missing_ok=True)
    ledger.sync()
    assert ledger.records() == kept == found
    assert all((folder / each.path).exists() for each in kept)


@given(records, policies)
@settings(max_examples=150, deadline=None)
def test_what_is_protected_is_never_deleted(history, policy):
    decisions = plan(history, policy, NOW)
    assert broken_promises(history, policy, NOW, {each.path for each in decisions if not each.keep}) == []
    assert [each.path for each in decisions] == [each.path for each in history]
    assert all(each.reason for each in decisions)
    limit = policy.max_gigabytes
    assert limit is None or bool(limit_problem(decisions, policy)) == (total_size(decisions) > limit * GIGABYTE)


@given(records, policies)
@settings(max_examples=50, deadline=None)
def test_a_plan_that_was_carried_out_has_nothing_more_to_do(history, policy):
    kept = {each.path for each in plan(history, policy, NOW) if each.keep}
    assert all(each.keep for each in plan([each for each in history if each.path in kept], policy, NOW))


@given(st.binary(max_size=40))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_of_a_sidecar_is_noticed(tmp_path, noise):
    from metaopt.core.errors import FileFormatError

    path = tmp_path / "net.safetensors"
    save_checkpoint(path, {}, {}, TrainingFacts("t", "n", None, 1, {}, Origin(Generator("c", "v", "d"), ())))
    content = sidecar_path(path).read_bytes()
    changed = content[: len(content) // 2] + noise + content[len(content) // 2 + len(noise) :]
    sidecar_path(path).write_bytes(changed)
    try:
        read_entry(path)
    except FileFormatError:
        return
    assert changed == content


def test_an_entry_is_rebuilt_from_its_values(tmp_path):
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, {}, {}, TrainingFacts("t", "n", None, 1, {}, Origin(Generator("c", "v", "d"), ())))
    entry: LedgerEntry = read_entry(path)
    write_sealed(sidecar_path(path), entry.to_mapping())
    assert read_entry(path) == entry
    assert read_sealed(sidecar_path(path)) == entry.to_mapping()
