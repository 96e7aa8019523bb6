"""What tests of jobs share: a real worker in a process of its own, and waiting for what it does."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from metaopt.operations.jobs import State

WITHIN = 300.0
"""A busy machine imports torch and MLflow for minutes [s]."""

QUICK = ["--poll", "0.05", "--beat", "0.05", "--first-pause", "0", "--longest-pause", "0"]


class WorkerProcess:
    """A worker that is started when it is needed: its start takes longer than a small job.

    Args:
        folder: working folder, with the queue.
        words: further flags of its command.
    """

    def __init__(self, folder, *words):
        self._folder = folder
        self._words = words
        self.process = None

    def start(self):
        """Start it unless it runs; returns its process."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "metaopt.cli", "worker", "--quiet", *QUICK, *self._words]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stderr=subprocess.PIPE, text=True
            )
        return self.process

    def wait_for(self, condition):
        """Return what a function finds, when it finds something; the worker must run meanwhile."""

        def found():
            assert self.process.poll() is None, self.process.stderr.read()
            return condition()

        return wait_for(found)

    def kill_job(self, queue, number):
        """Kill the process of a job; returns whether it has one."""
        job = queue.get(number)
        if job.state is not State.RUNNING or job.owner.pid == self.process.pid:  # claimed, and not begun
            return False
        with suppress(ProcessLookupError):
            os.kill(job.owner.pid, signal.SIGKILL)
        return True

    def kill(self):
        """Kill it as the system does when memory is short; its job goes on for a step."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()
            self.process = None


def wait_for(condition):
    """Return what a function finds, when it finds something."""
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.03)  # more often would take the core from the worker
    raise AssertionError("it did not happen in time")


def steps(queue, number, attempt):
    """The steps of an attempt, once it has finished some."""
    job = queue.get(number)
    return job.state is State.RUNNING and job.attempt == attempt and job.steps
