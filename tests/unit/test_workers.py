"""Work in several processes: all answers come, whatever becomes of one process."""

import os
import threading
import time

import pytest

from metaopt.errors import WorkerDied
from metaopt.training.workers import in_processes


def answers(jobs, workers=2):
    return dict(in_processes(eval, jobs, workers))  # a function that a new process can find by its name


def test_every_job_is_answered_once():
    assert answers(["1 + 1", "'b'", "[3]"]) == {0: 2, 1: "b", 2: [3]}


def test_one_process_serves_several_jobs_with_one_thread():
    given = answers(["__import__('os').getpid()", "__import__('torch').get_num_threads()"] * 2, workers=1)
    assert given[0] == given[2] != os.getpid()
    assert given[1] == 1


def test_what_a_job_raises_is_its_answer():
    given = answers(["1 / 0", "2"])
    assert isinstance(given[0], ZeroDivisionError)
    assert given[1] == 2


def test_a_dead_process_costs_its_own_job_only():
    given = answers(["__import__('os')._exit(9)", "1", "2", "3"])
    assert isinstance(given.pop(0), WorkerDied)
    assert given == {1: 1, 2: 2, 3: 3}


def test_an_answer_that_cannot_be_sent_is_an_error():
    assert isinstance(answers(["lambda: 0"])[0], Exception)


def test_leaving_early_ends_the_processes():
    before = threading.active_count()
    children = in_processes(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"], 2)
    started = time.monotonic()
    _, pid = next(children)
    children.close()
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert threading.active_count() == before
