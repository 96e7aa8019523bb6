"""Ctrl-C, SIGTERM and SIGHUP end a process once, also during a finalizer."""

import signal
import sys
import time

import pytest

from metaopt.core import signals
from metaopt.core.signals import held, terminable


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


def send_all(*signums):
    for signum in signums:
        signal.raise_signal(signum)


@pytest.fixture
def default_handlers():
    """A shell that runs the tests in the background makes its processes ignore Ctrl-C."""
    before = {signum: signal.signal(signum, default) for signum, default in signals._DEFAULTS.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def end_by(first, further, reached):
    """A block that a signal ends, and whose end receives further ones."""
    with terminable():
        try:
            send_all(first)
        finally:
            for signum in further:
                send_all(signum)
                reached.append(signum)


@pytest.mark.parametrize("further", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("first", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["INT", "TERM", "HUP"]
)
def test_further_signals_do_not_interrupt_the_end(default_handlers, first, code, further):
    reached = []
    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
        end_by(first, [further] * 3, reached)
    assert reached == [further] * 3
    assert getattr(raised.value, "code", None) == code
    assert signals.ended_by_signal(raised.value)


def test_the_third_signal_interrupts_an_end_that_takes_long(default_handlers, monkeypatch):
    monkeypatch.setattr(signals, "FORCED_AFTER", 0.0)
    reached = []
    with pytest.raises(SystemExit):
        end_by(signal.SIGINT, [signal.SIGINT, signal.SIGTERM], reached)
    assert reached == [signal.SIGINT]


def hold(signum, reached):
    with terminable():
        with held() as waiting:
            reached.append(waiting())
            send_all(signum)
            reached.append(waiting())
        reached.append("after the block")


def test_a_held_signal_is_raised_after_the_block(default_handlers):
    reached = []
    with pytest.raises(KeyboardInterrupt):
        hold(signal.SIGINT, reached)
    assert reached == [False, True]


def test_handlers_of_the_application_and_ignored_signals_stay(default_handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    own = lambda *_: None  # noqa: E731
    signal.signal(signal.SIGTERM, own)
    with terminable():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is own


def test_a_program_that_ends_ignores_signals_until_it_exits(default_handlers):
    with pytest.raises(KeyboardInterrupt), terminable(until_exit=True):
        send_all(signal.SIGINT)
    send_all(signal.SIGINT, signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
