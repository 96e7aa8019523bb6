"""Work in several processes: one that fails, or dies, takes nothing else with it.

The standard pools lose all waiting work with one dead process, or wait for it for ever; and a process of theirs
outlives a parent that was killed.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from .errors import WorkerDied
from .signals import terminate

_PATIENCE = 20.0  # seconds for a stopped worker to record its end
_SPAWN = multiprocessing.get_context("spawn")  # a forked copy of torch's thread pools hangs


def map_in_processes(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[tuple[int, Any]]:
    """Call a function with each job, in at most some processes at a time.

    Function and jobs must be picklable. Each process uses one thread for tensors.

    Yields: the number of a job and what the function returned or raised, as soon as it has ended.
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
                worker, index = busy.pop(connection)
                answer, alive = worker.answer()
                idle.append(worker if alive else _Worker(function))
                yield index, answer
    finally:
        for worker, _ in busy.values():
            worker.process.terminate()
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


class _Worker:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        level = logging.getLogger("metaopt").getEffectiveLevel()
        self.process: BaseProcess = _SPAWN.Process(target=_serve, args=(function, theirs, level))
        self.process.start()
        theirs.close()

    def answer(self) -> tuple[Any, bool]:
        """What the function gave for the job that was sent, and whether the process can take another one."""
        try:
            return self.connection.recv(), True
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            return WorkerDied(f"its process ended with exit code {code}; it may have run out of memory"), False

    def end(self) -> None:
        """Let the process end, with time to record how."""
        self.connection.close()  # there will be no more jobs
        self.process.join(_PATIENCE)
        self.process.kill()


def _serve(function: Callable[[Any], Any], connection: Connection, level: int) -> None:
    signal.signal(signal.SIGTERM, terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("metaopt").setLevel(level)
    torch.set_num_threads(1)
    with suppress(EOFError, KeyboardInterrupt):  # no more jobs; Ctrl-C reaches all processes of a terminal
        while True:
            job = connection.recv()
            try:
                answer = function(job)
            except Exception as error:
                answer = error
            connection.send(answer)


def _end_with_parent() -> None:
    """A worker that outlives a killed parent would write beside the run that resumes it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
