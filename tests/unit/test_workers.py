"""Work in several processes: all answers come, whatever becomes of one process."""

import os
import threading
import time

import pytest

from metaopt.core.errors import WorkerDied
from metaopt.core.processes import map_in_processes

JOBS = {
    "number": "1 + 1",
    "list": "['b', 3]",
    "error": "1 / 0",
    "cannot be sent": "lambda: 0",
    "process": "__import__('os').getpid()",
    "threads": "__import__('torch').get_num_threads()",
    "death": "__import__('os')._exit(9)",
    "after it": "3",
}


@pytest.fixture(scope="module")
def answers():
    """What two processes answered; one more takes the dead one's place."""
    given = list(map_in_processes(eval, list(JOBS.values()), 2))  # a function that a new process can find by its name
    assert sorted(number for number, _ in given) == list(range(len(JOBS))), "each once"
    names = list(JOBS)
    return {names[number]: answer for number, answer in given}


def test_every_job_is_answered(answers):
    assert (answers["number"], answers["list"]) == (2, ["b", 3])


def test_it_is_done_elsewhere_with_one_thread(answers):
    assert answers["process"] != os.getpid()
    assert answers["threads"] == 1


def test_what_a_job_raises_is_its_answer(answers):
    assert isinstance(answers["error"], ZeroDivisionError)


def test_a_dead_process_costs_its_own_job_only(answers):
    assert isinstance(answers["death"], WorkerDied)
    assert answers["after it"] == 3


def test_an_answer_that_cannot_be_sent_is_an_error(answers):
    assert isinstance(answers["cannot be sent"], Exception)


def test_one_process_serves_several_jobs():
    first, second = dict(map_in_processes(eval, [JOBS["process"]] * 2, 1)).values()
    assert first == second


def test_leaving_early_ends_the_processes():
    before = threading.active_count()
    children = map_in_processes(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"], 2)
    started = time.monotonic()
    _, pid = next(children)
    children.close()
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert threading.active_count() == before
