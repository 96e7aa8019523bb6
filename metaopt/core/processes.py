"""Worker processes: a job that fails, or kills its process, does not affect the other jobs.

The pools of the standard library lose all pending jobs with one dead process, or wait for it without end. Their
processes also outlive a parent that was killed.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from .control import control
from .errors import WorkerDied
from .signals import blocked, terminable, unblock

_GRACE = 20.0  # for a terminated worker to record its end [s]
_PAUSE = 1.0  # between two messages about steps [s]
_SPAWN = multiprocessing.get_context("spawn")  # forked copies of torch's thread pools hang


@dataclass(frozen=True)
class _Steps:
    """A message: steps that trainings of a worker have finished since the last one [count]."""

    count: int


def map_in_processes(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[tuple[int, Any]]:
    """Call a function with each job, in worker processes. Their training steps count as steps of this process.

        from metaopt.core.processes import map_in_processes

        for index, result in map_in_processes(len, ["ab", "c"], workers=2):
            print(index, result)

    Args:
        function: picklable; torch uses one thread in it.
        jobs: its arguments, picklable.
        workers: processes at the same time [count].
    Yields: the index of a job, and the value or exception that the function returned or raised, in order of completion.
    """
    waiting = list(enumerate(jobs))[::-1]
    busy: dict[Connection, tuple[_Worker, int]] = {}
    idle = [_Worker(function) for _ in range(min(workers, len(jobs)))]
    try:
        while waiting or busy:
            while waiting and idle:
                index, job = waiting.pop()
                worker = idle.pop()
                worker.connection.send(job)
                busy[worker.connection] = worker, index
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, index = busy[connection]
                result, alive = worker.receive()
                if isinstance(result, _Steps):
                    control.steps += result.count
                    continue
                del busy[connection]
                idle.append(worker if alive else _Worker(function))
                yield index, result
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.connection, other_end = _SPAWN.Pipe()
        level = logging.getLogger("metaopt").getEffectiveLevel()
        self.process: BaseProcess = _SPAWN.Process(target=_serve, args=(function, other_end, level))
        with blocked():
            self.process.start()
        other_end.close()

    def receive(self) -> tuple[Any, bool]:
        """Return steps, or the value or exception of the last job; and whether the process is alive."""
        try:
            return self.connection.recv(), True
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            return WorkerDied(f"its process ended with exit code {code}; it may have run out of memory"), False

    def end(self) -> None:
        self.connection.close()  # the process exits when it finds no further job
        self.process.join(_GRACE)
        self.process.kill()


def _serve(function: Callable[[Any], Any], connection: Connection, level: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("metaopt").setLevel(level)
    torch.set_num_threads(1)
    # EOFError: no further job. Ctrl-C reaches all processes of a terminal.
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt), terminable():
        unblock()
        while True:
            job = connection.recv()
            with _steps_sent(connection):
                try:
                    result = function(job)
                except Exception as error:
                    result = error
            connection.send(result)


@contextmanager
def _steps_sent(connection: Connection) -> Iterator[None]:
    """Send the steps that are finished inside the block: every second, and the last ones at its end."""
    sent, over = control.steps, threading.Event()

    def send() -> None:
        nonlocal sent
        if new := control.steps - sent:
            connection.send(_Steps(new))
            sent += new

    def send_often() -> None:
        with suppress(OSError):  # the parent has ended
            while not over.wait(_PAUSE):
                send()

    thread = threading.Thread(target=send_often, name="steps", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        send()


def _end_with_parent() -> None:
    """Exit with the parent: a worker that outlives it would write to the files of the run that resumes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
