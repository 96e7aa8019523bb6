"""The contract of checks: each one finds nothing in clean files, and finds its own corruptions at its level."""

import random
from pathlib import Path

import pytest

from benchmarks.operations.clean_files import make_clean
from benchmarks.operations.corruptions import CORRUPTIONS, try_corruption, validate_clean
from metaopt.operations.validation import CHECKS, KINDS, LEVELS, checks_for, get_check, validate

GOLDEN = Path(__file__).parents[1] / "golden" / "v0_1_0"
BUILTIN = Path(__file__).parents[2] / "metaopt" / "builtin"

FIRST = {corruption.check: corruption for corruption in reversed(CORRUPTIONS.values()) if corruption.check}
"""The first corruption of each check; `python -m benchmarks.operations.corruptions` plants all of them."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "files"
    make_clean(folder, 0, names=["ema"], lines=12)
    return folder


@pytest.fixture(scope="module")
def report(clean):
    return validate_clean(clean)


@pytest.mark.parametrize("name", CHECKS.names())
def test_each_check_says_what_it_checks_when_and_of_what(name):
    check = get_check(name)
    assert check.level in LEVELS
    assert check.kinds
    assert set(check.kinds) <= set(KINDS)
    assert check.version >= 1
    assert type(check).__doc__.partition("\n")[0].endswith(".")


def test_what_is_known_of_a_check_before_its_import_is_true():
    found = {name for level in LEVELS for kind in KINDS for name in checks_for(level, kind)}
    assert found == set(CHECKS.names())
    for name in CHECKS.names():
        check = get_check(name)
        assert all(name in checks_for(check.level, kind) for kind in check.kinds)


@pytest.mark.parametrize("name", CHECKS.names())
def test_nothing_is_found_in_clean_files(name, report):
    outcomes = [outcome for outcome in report.outcomes if outcome.check == name]
    assert outcomes, "no clean file is of a kind that it checks"
    assert not [outcome.findings for outcome in outcomes if outcome.count]
    if name in CHECKS.table:
        assert any(outcome.result == "passed" for outcome in outcomes), "it judges none of the clean files"


@pytest.mark.parametrize("name", CHECKS.table)
def test_each_check_finds_a_corruption(name, clean):
    assert name in FIRST, f"plant a corruption for {name} in benchmarks/operations"
    trial = try_corruption(FIRST[name], clean, random.Random(0))
    assert trial.caught, f"{trial.corruption.name}: found by {trial.by}"
    assert trial.corruption.level == get_check(name).level


def test_files_of_older_versions_and_of_the_package_are_clean():
    report = validate(
        [GOLDEN / "trajectories", GOLDEN / "checkpoints", GOLDEN / "nowcast.safetensors", BUILTIN], "deep"
    )
    assert not [(outcome.subject.name, outcome.findings) for outcome in report.outcomes if outcome.count]
    assert {subject.kind for subject in report.subjects} == {"trajectory", "checkpoint", "model"}
