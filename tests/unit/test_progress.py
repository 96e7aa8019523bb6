"""Progress is a log line, a bar on a terminal, and nothing if only warnings are logged."""

import logging
import sys

import pytest

from metaopt.core import progress as module
from metaopt.core.control import control
from metaopt.core.progress import NO_PROGRESS, announced, progress, sub_progress


@pytest.fixture
def log_file(monkeypatch, caplog):
    """The log without a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with caplog.at_level("INFO", logger="metaopt"):
        yield lambda: [record.getMessage() for record in caplog.records]


def test_a_log_gets_few_lines(log_file):
    with progress(100, "MLP") as bar:
        bar.skip(10)
        for _ in range(90):
            bar.update(loss=0.5)
    assert log_file() == ["MLP: 100 of 100 steps, loss 0.5, 00:00 left"]


def test_skipped_steps_do_not_count_for_the_remaining_time(log_file, monkeypatch):
    seconds = iter((0.0, 3600.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    with progress(100, "MLP", "run") as bar:
        bar.skip(90)
        bar.update(5)
    assert log_file() == ["MLP: 95 of 100 runs, 1:00:00 left"]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(4, "MLP") as bar:
        bar.skip(2)
        bar.update(2, loss=0.25)
    shown = capsys.readouterr().err
    assert "MLP: 100%" in shown
    assert "loss=0.25" in shown


def test_a_log_level_of_warnings_turns_the_bar_off(capsys, caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.WARNING, logger="metaopt"), progress(4, "MLP") as bar:
        bar.update(4)
    assert not capsys.readouterr().err


def test_a_failed_block_counts_as_all_its_steps(log_file):
    def fail(bar):
        with sub_progress(bar, 60) as part:
            part.update(10)
            raise ValueError

    with progress(100, "MLP") as bar:
        with pytest.raises(ValueError):  # noqa: PT011
            fail(bar)
        bar.update(40)
    assert log_file() == ["MLP: 100 of 100 steps, 00:00 left"]


@pytest.mark.parametrize(
    ("seconds", "logged"),
    [(10.0, ["this takes about 15 minutes; shorter with fewer --seeds"]), (0.5, [])],
    ids=["long", "short"],
)
def test_the_time_of_long_work_is_announced_once(log_file, monkeypatch, seconds, logged):
    clock = iter((0.0, seconds))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    bar = announced(NO_PROGRESS, total=120, after=1, advice="fewer --seeds")
    bar.skip(29)  # from a cache or a checkpoint
    for _ in range(91):
        bar.update()
    assert log_file() == logged


def test_finished_steps_are_counted_for_the_process_around(log_file):
    before = control.steps
    with progress(5, "work") as whole, sub_progress(whole, 3) as part:
        part.update(2)
    NO_PROGRESS.update()
    assert control.steps == before + 3
