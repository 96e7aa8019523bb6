"""Worker processes return the results of all jobs, also if one process dies."""

import os
import threading
import time
from pathlib import Path

import pytest

from metaopt.core.control import control
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
def results():
    """Results of two processes; a third replaces the dead one."""
    returned = list(map_in_processes(eval, list(JOBS.values()), 2))  # picklable by name
    assert sorted(index for index, _ in returned) == list(range(len(JOBS))), "each once"
    names = list(JOBS)
    return {names[index]: result for index, result in returned}


def test_every_job_has_its_result(results):
    assert (results["number"], results["list"]) == (2, ["b", 3])


def test_a_job_runs_in_another_process_with_one_thread(results):
    assert results["process"] != os.getpid()
    assert results["threads"] == 1


def test_the_exception_of_a_job_is_its_result(results):
    assert isinstance(results["error"], ZeroDivisionError)


def test_a_dead_process_fails_only_its_job(results):
    assert isinstance(results["death"], WorkerDied)
    assert results["after it"] == 3


def test_a_result_that_cannot_be_pickled_is_an_error(results):
    assert isinstance(results["cannot be sent"], Exception)


def test_one_process_runs_several_jobs():
    first, second = dict(map_in_processes(eval, [JOBS["process"]] * 2, 1)).values()
    assert first == second


def test_closing_the_iterator_ends_the_processes():
    before = threading.active_count()
    children = map_in_processes(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"], 2)
    started = time.monotonic()
    _, pid = next(children)
    children.close()
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert threading.active_count() == before


def _train(job: tuple[Path, bool]) -> None:
    """Finish three steps and wait without end; or wait until another process has done so for some time."""
    done, trains = job
    if trains:
        control.steps += 3
        done.touch()
        time.sleep(60)
    while not done.exists():
        time.sleep(0.05)
    time.sleep(3)


def test_steps_are_counted_while_a_process_trains(tmp_path):
    before = control.steps
    running = map_in_processes(_train, [(tmp_path / "done", True), (tmp_path / "done", False)], 2)
    index, _ = next(running)
    running.close()
    assert index == 1
    assert control.steps - before == 3


def _step(count: int) -> None:
    control.steps += count


def test_all_steps_are_counted_at_the_end():
    before = control.steps
    assert len(list(map_in_processes(_step, [2, 0, 5], 1))) == 3
    assert control.steps - before == 7
