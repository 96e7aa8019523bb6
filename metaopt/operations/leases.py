"""Which running jobs nobody works on any more: their process has ended, or it finishes no steps.

Times of different machines are never compared, and neither are times before and after a clock was set: each worker
measures by its own monotonic clock for how long a job has reported nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator

from ..core.process_identity import is_gone
from .jobs import Job

_GAP = 60.0  # without a look, after which the watch begins anew: the jobs could not report either, or nobody saw it [s]


class LeaseWatch:
    """Looks at running jobs again and again, and finds the abandoned ones.

    Args:
        clock: never goes back [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[int, tuple[tuple[int, int], float]] = {}
        self._looked = clock()

    def abandoned(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, str]]:
        """Yield each abandoned job, and the reason.

        Args:
            jobs: all running ones.
        """
        now, before = self._clock(), self._seen
        if now - self._looked > _GAP:  # the queue did not respond
            before = {}
        self._looked, self._seen = now, {}
        for job in jobs:
            mark = (job.attempt, job.beat)
            known, since = before.get(job.id, (None, now))
            since = since if known == mark else now
            self._seen[job.id] = mark, since
            if job.owner is not None and job.owner.identity is not None and is_gone(job.owner.identity):
                yield job, f"its process {job.owner.pid} on {job.owner.host} has ended"
            elif now - since >= job.lease:
                yield job, f"it finished no step for {now - since:.0f} s, longer than its lease of {job.lease:g} s"
