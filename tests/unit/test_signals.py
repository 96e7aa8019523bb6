"""Ctrl-C and SIGTERM end a process, also during a finalizer."""

import signal
import sys
import time

import pytest

from metaopt.core.signals import terminable


def signal_in_finalizer(signum):

    class Last:
        def __del__(self):
            signal.raise_signal(signum)

    with terminable():
        last = Last()
        del last
        time.sleep(20)


@pytest.mark.parametrize(("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_during_a_finalizer_is_not_lost(signum, raised):
    before, report = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    try:
        with pytest.raises(raised):
            signal_in_finalizer(signum)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sys.unraisablehook is report


def test_other_errors_of_finalizers_are_reported(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(lost.exc_type))

    class Last:
        def __del__(self):
            raise ArithmeticError

    with terminable():
        last = Last()
        del last
    assert reported == [ArithmeticError]
