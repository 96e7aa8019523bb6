"""A process beside the dashboard for what needs MLflow or torch, or can hang: losses, retention, lineage.

MLflow takes seconds to import and hundreds of megabytes, and a store that does not respond blocks whoever asks it. So
the dashboard itself never asks one. The process has the lowest priority, answers within a time limit or is ended, and
ends by itself when nothing was asked for a while.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ...core.errors import MetaoptError
from ...core.signals import blocked, unblock
from ...core.text import reason_of

R = TypeVar("R")

_SPAWN = multiprocessing.get_context("spawn")
_START = 120.0  # for imports, on a busy machine [s]
_IDLE = 180.0  # after which the process ends [s]


class HelperFailed(MetaoptError):
    """The process beside the dashboard has failed, or did not answer in time."""


class Helper:
    """Calls functions in a process of its own, one at a time.

    Args:
        limit: for each call, without the time to start [s].
    """

    def __init__(self, limit: float = 20.0) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._closed = False

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call a function of a module; arguments and result are pickled between the two processes of this program.

        Raises:
            MetaoptError: the function raised it, or something that is described in it.
            HelperFailed: the process ended, or did not answer in time.
        """
        with self._lock:
            if self._closed:
                raise HelperFailed("the dashboard ends")
            started = self._process is None or not self._process.is_alive()
            if started:
                self._start()
            assert self._connection is not None
            try:
                self._connection.send((function, arguments))
                if not self._connection.poll(self._limit + _START * started):
                    self._end()
                    raise HelperFailed(f"no answer within {self._limit:g} s; it is asked again later")
                is_result, found = self._connection.recv()
            except (EOFError, OSError) as error:
                self._end()
                raise HelperFailed("the process that reads it has ended; it is started again later") from error
        if is_result:
            return found
        raise found if isinstance(found, MetaoptError) else HelperFailed(str(found))

    def close(self) -> None:
        """End the process, also while it works."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        with self._lock:
            self._end()

    def _start(self) -> None:
        self._end()
        self._connection, other_end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(other_end,), name="metaopt dashboard: helper", daemon=True)
        with blocked():
            self._process.start()
        other_end.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _serve(connection: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for each in (signal.SIGINT, signal.SIGHUP):  # of the terminal, for the dashboard
        signal.signal(each, signal.SIG_IGN)
    unblock()
    with contextlib.suppress(OSError):
        os.nice(19)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.disable(logging.ERROR)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while connection.poll(_IDLE):
            function, arguments = connection.recv()
            connection.send(_answer(function, arguments))


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except MetaoptError as error:
        return False, error
    except Exception as error:
        return False, reason_of(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive():
        time.sleep(1.0)
    os._exit(1)
