"""What the dashboard knows now: read in the background, rendered once for all clients, sent as changes.

The queue is read while somebody looks, at most once per `refresh`. What is slow (losses, disk, retention, lineage) is
read by tasks of their own, so that neither a client nor the queue waits for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ...core.errors import MetaoptError, QueueError
from ..jobs import Job, State
from ..queue import JobQueue
from . import rendering
from .config import DashboardConfig
from .disk import folders_to_measure, measure
from .events import Broadcast
from .helper import Helper
from .readings import read_lineages, read_losses, read_retention
from .snapshot import Snapshot, read_snapshot
from .views import DiskView, JobView, LineageView, LossesView, QueueView, RetentionView, WorkerView

log = logging.getLogger(__name__)
T = TypeVar("T")

ASIDE = ("workers", "disk", "retention", "lineage")
"""Panels beside the jobs, in their order."""

_INTEREST = 30.0  # after the last request, while no stream is open [s]
_AGE = 3.0  # of what a client is shown, at most [`refresh`]
_LOSSES_EVERY = 10.0  # [s]
_DISK_EVERY = 60.0  # [s]
_CHECKPOINTS_EVERY = 300.0  # [s]
_MOST_CURVES = 12  # running jobs whose losses are read [count]
_MOMENT = 3.0  # that a client waits for losses [s]


class Live:
    """The present state of the queue and of what belongs to it.

    Attributes:
        version: grows with each change.
        problem: why the queue cannot be read, in words; empty if it can.
    """

    def __init__(
        self, config: DashboardConfig, queue: JobQueue, broadcast: Broadcast, helper: Helper, files: Helper
    ) -> None:
        self.config, self._queue, self._broadcast, self._helper, self._files = config, queue, broadcast, helper, files
        self.version, self.problem = 0, ""
        self.snapshot = Snapshot()
        self.losses: dict[int, LossesView] = {}
        self.disk: DiskView | None = None
        self.retention, self.lineage = _no_plan("being read …"), _no_lineage("being read …")
        self.rows: dict[int, str] = {}
        self.panels: dict[str, str] = {}
        self._views: dict[int, JobView] = {}
        self._drawn: dict[int, tuple[Job, LossesView | None]] = {}
        self._reads: dict[int, asyncio.Task[None]] = {}
        self._read_at = self._asked_at = -float("inf")
        self._reading = asyncio.Lock()
        self._cache: dict[str, bytes] = {}

    async def fresh(self) -> "Live":
        """The state of a moment ago: it is kept up to date while somebody asks, and read now if nobody did."""
        self._asked_at = time.monotonic()
        await self._look(_AGE * self.config.refresh)
        return self

    async def changed(self) -> None:
        """Look at the queue at once, after a change by a client."""
        await self._look(0.0)

    async def run(self) -> None:
        """Keep the state up to date until the task is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for work, every in (
                (self._look_again, self.config.refresh),
                (self._read_losses, _LOSSES_EVERY),
                (self._measure_disk, _DISK_EVERY),
                (self._read_checkpoints, _CHECKPOINTS_EVERY),
            ):
                tasks.create_task(self._repeat(work, every))

    def cached(self, name: str, make: Callable[[], bytes]) -> bytes:
        """A response that is made once per version."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def view(self) -> QueueView:
        """The queue for the JSON API."""
        jobs = [self._views[job.id] for job in self.snapshot.jobs]
        return QueueView.model_construct(version=self.version, counts=dict(self.snapshot.counts), jobs=jobs)

    def workers(self) -> list[WorkerView]:
        """The workers for the JSON API."""
        return [WorkerView.of(each) for each in self.snapshot.workers]

    def page(self, shown: bool) -> bytes:
        """The whole page.

        Args:
            shown: whether the reader may see the queue.
        """
        if not shown:
            nothing: dict[str, Any] = {"rows": [], "panels": {}, "version": 0, "place": "", "aside": ()}
            return rendering.page(shown=False, now=time.time(), **nothing).encode()

        def make() -> bytes:
            rows = [self.rows[job.id] for job in self.snapshot.jobs]
            facts = {"version": self.version, "now": time.time(), "place": self._queue.database.place}
            return rendering.page(shown=True, rows=rows, panels=self.panels, aside=ASIDE, **facts).encode()

        return self.cached("page", make)

    async def _look_again(self) -> None:
        if len(self._broadcast) or time.monotonic() - self._asked_at < _INTEREST:
            await self._look(self.config.refresh / 2)

    async def _look(self, age: float) -> None:
        """Read the queue if what is known is older than an age [s]."""
        if time.monotonic() - self._read_at < age:
            return
        asked = time.monotonic()
        async with self._reading:
            if self._read_at > asked:  # another request has read it meanwhile
                return
            began = time.monotonic()
            try:
                found, problem = await asyncio.to_thread(read_snapshot, self._queue), ""
            except QueueError as error:
                found, problem = self.snapshot, str(error)
                if not self.problem:
                    log.warning("%s", error)
            self._read_at, self.problem = began, problem
            self._show(found)

    def _show(self, snapshot: Snapshot) -> None:
        """Render what has changed, and send it to all clients."""
        order = [job.id for job in snapshot.jobs]
        moved = order != [job.id for job in self.snapshot.jobs]
        self.snapshot = snapshot
        drawn = {job.id: (job, self.losses.get(job.id)) for job in snapshot.jobs}
        changed = {number: facts for number, facts in drawn.items() if self._drawn.get(number) != facts}
        views = {number: JobView.of(job) for number, (job, _) in changed.items()}
        rows = {number: rendering.part("row", views[number], losses) for number, (_, losses) in changed.items()}
        self._views = {number: views.get(number) or self._views[number] for number in drawn}
        self._drawn, self.rows = drawn, {number: rows.get(number) or self.rows[number] for number in drawn}
        panels = {name: html for name, html in self._panels().items() if self.panels.get(name) != html}
        self.panels |= panels
        if not (rows or panels or moved):
            return
        self.version += 1
        self._cache.clear()
        message: dict[str, Any] = {"version": self.version, "now": time.time(), "rows": rows, "panels": panels}
        self._broadcast.send(message | ({"order": order} if moved else {}))

    def _panels(self) -> dict[str, str]:
        names = {job.id: job.name for job in self.snapshot.jobs}
        return {
            "banner": rendering.part("banner", self.problem),
            "summary": rendering.part("summary", self.snapshot.counts, rendering.GROUPS),
            "workers": rendering.part("workers", self.workers(), names),
            "disk": rendering.part("disk", self.disk),
            "retention": rendering.part("retention", self.retention),
            "lineage": rendering.part("lineage", self.lineage),
        }

    async def losses_of(self, job: Job) -> LossesView:
        """The losses of a job: as they were read last, or read now if that takes a moment only."""
        if job.id not in self.losses:
            if job.id not in self._reads and len(self._reads) < _MOST_CURVES:
                self._reads[job.id] = asyncio.create_task(self._read_losses_of(job))
            if task := self._reads.get(job.id):
                await asyncio.wait((task,), timeout=_MOMENT)
        return self.losses.get(job.id) or _no_losses("being read; ask again in a few seconds")

    def disk_view(self) -> DiskView:
        """The disk, as it was measured last; the first measurement may not have ended."""
        return self.disk or DiskView(folders=[], free=0, total=0, measured=None)

    async def _read_losses(self) -> None:
        """Read the losses of running jobs, one after the other, and those of jobs that have ended since."""
        self.losses = {number: found for number, found in self.losses.items() if number in self._drawn}
        running = [job for job in self.snapshot.jobs if job.state is State.RUNNING and job.run_ids][:_MOST_CURVES]
        ended = [job for job in self.snapshot.jobs if job.ended and 0 < self._losses_at(job.id) < job.ended]
        for job in (*running, *ended) if self._is_watched else ():
            await self._read_losses_of(job)

    def _losses_at(self, number: int) -> float:
        """When the losses of a job were read; 0 if they were not."""
        known = self.losses.get(number)
        return known.read or 0.0 if known else 0.0

    async def _read_losses_of(self, job: Job) -> None:
        """Read the losses of a job's last run from the tracking store."""
        try:
            self.losses[job.id] = await asyncio.to_thread(self._losses_in_store, job)
            self._show(self.snapshot)
        finally:
            self._reads.pop(job.id, None)

    def _losses_in_store(self, job: Job) -> LossesView:
        store = self.config.store_of(job.folder)
        if not job.run_ids:
            return _no_losses("it has no run yet")
        if store is None:
            return _no_losses("its tracking store is not on this machine; give --tracking-uri")
        try:
            return self._helper.call(read_losses, job.run_ids[-1], store, self.config.ui)
        except MetaoptError as error:
            known = self.losses.get(job.id)
            return known if known and known.curves else _no_losses(f"the losses cannot be read: {error}")

    async def _measure_disk(self) -> None:
        if not self._is_watched and self.disk is not None:
            return
        working = dict.fromkeys([".", *(job.folder for job in self.snapshot.jobs)])
        own = self._queue.database.folder

        def look() -> DiskView:
            folders = folders_to_measure(working, self.config.trajectory_dir, self.config.checkpoint_dir)
            return measure(folders, own)

        try:
            self.disk = await asyncio.to_thread(look)
        except OSError as error:
            log.warning("the disk cannot be measured: %s", error)
            return
        self._show(self.snapshot)

    async def _read_checkpoints(self) -> None:
        """Plan the retention, and read the lineage, of the checkpoints in the folder of the dashboard."""
        config = self.config
        places = config.checkpoint_dir, config.trajectory_dir
        if not await asyncio.to_thread(self.config.checkpoint_dir.is_dir):
            missing = f"there is no folder {self.config.checkpoint_dir} here"
            self.retention, self.lineage = _no_plan(missing), _no_lineage(missing)
            self._show(self.snapshot)
            return
        try:
            self.retention = await asyncio.to_thread(self._files.call, read_retention, *places)
        except MetaoptError as error:
            self.retention = _no_plan(str(error))
        self._show(self.snapshot)
        try:
            read = partial(self._files.call, read_lineages, *places, config.store_of("."), config.ui)
            self.lineage = await asyncio.to_thread(read)
        except MetaoptError as error:
            self.lineage = _no_lineage(str(error))
        self._show(self.snapshot)

    @property
    def _is_watched(self) -> bool:
        return bool(len(self._broadcast)) or time.monotonic() - self._asked_at < _INTEREST

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]], every: float) -> None:
        """Do something again and again. A failure is logged: it must not end the rest."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("the dashboard goes on after a failure")
            await asyncio.sleep(every)


def _no_losses(problem: str) -> LossesView:
    return LossesView(curves=[], pages={}, problem=problem, read=time.time())


def _no_plan(problem: str) -> RetentionView:
    return RetentionView(
        decisions=[], kept=0, kept_size=0, deleted=0, deleted_size=0, problem=problem, read=time.time()
    )


def _no_lineage(problem: str) -> LineageView:
    return LineageView(checkpoints=[], problem=problem, read=time.time())
