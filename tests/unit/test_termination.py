"""A process that is asked to end does so, whatever it was doing."""

import signal
import sys
import time

import pytest

from metaopt.tracking.ending import terminable


def work_on(asked):
    """Where the signal meets a finaliser."""

    class Last:
        def __del__(self):
            signal.raise_signal(asked)

    with terminable():
        last = Last()
        del last
        time.sleep(20)


@pytest.mark.parametrize(("asked", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_meets_a_finaliser_is_not_lost(asked, raised):
    before, report = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    try:
        with pytest.raises(raised):
            work_on(asked)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sys.unraisablehook is report


def test_other_errors_of_finalisers_are_reported_as_ever(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))

    class Last:
        def __del__(self):
            raise ArithmeticError

    with terminable():
        last = Last()
        del last
    assert reported == [ArithmeticError]
