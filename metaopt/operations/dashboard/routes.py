"""The JSON API, the page and its files."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter

from ...core.errors import IllegalTransition, JobError, MetaoptError, QueueError
from ..jobs import METAOPT, Job
from ..queue import JobQueue
from . import rendering
from .events import Broadcast, EventStream
from .live import Live
from .log_tail import log_tail
from .views import (
    Action,
    DiskView,
    HealthView,
    JobDetail,
    JobId,
    LineageView,
    LogView,
    LossesView,
    Move,
    Problem,
    QueueView,
    RetentionView,
    WorkerView,
)

_STATIC = Path(__file__).with_name("static")
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_WORKERS = TypeAdapter(list[WorkerView])

FILES = ("/static/colours.css", *(f"/static/{each.name}" for each in sorted(_STATIC.iterdir())))
"""Paths of the files of the page, which are no secret."""

_token = HTTPBearer(auto_error=False, description="The token that the dashboard printed at its start, or was given.")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in (400, 401, 403, 413, *statuses)}


def page_routes(live: Live) -> APIRouter:
    """The page and its files."""
    routes = APIRouter(include_in_schema=False)
    contents = {f"/static/{each.name}": (each.read_bytes(), _KINDS[each.suffix]) for each in _STATIC.iterdir()}
    contents["/static/colours.css"] = rendering.colour_sheet().encode(), _KINDS[".css"]

    @routes.get("/")
    async def page(request: Request) -> Response:
        shown = live.config.is_local or request.scope["is_trusted"]
        html = (await live.fresh()).page(True) if shown else live.page(False)
        return Response(html, 200 if shown else 401, media_type="text/html; charset=utf-8")

    def file_of(path: str) -> Callable[[], Any]:
        content, kind = contents[path]

        async def file() -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": "no-cache"})

        return file

    for path in FILES:
        routes.get(path)(file_of(path))
    return routes


def api_routes(live: Live, queue: JobQueue, broadcast: Broadcast) -> APIRouter:
    """The JSON API."""
    routes = APIRouter(prefix="/api", responses=_problems())

    @routes.get("/health")
    async def health() -> HealthView:
        """Whether the dashboard and its queue work."""
        await live.fresh()
        status: Literal["ok", "degraded"] = "degraded" if live.problem else "ok"
        return HealthView(
            status=status,
            version=METAOPT,
            queue=queue.database.place,
            problem=live.problem,
            clients=len(broadcast),
        )

    @routes.get("/queue", response_model=QueueView, responses=_problems(503))
    async def list_jobs() -> Response:
        """Jobs that run, jobs that wait in the order of claims, and the jobs that ended last."""
        _expect_queue(await live.fresh())
        return _json(live.cached("queue", lambda: live.view().model_dump_json().encode()))

    @routes.get("/queue/{id}", responses=_problems(404, 503))
    async def show_job(id: JobId) -> JobDetail:
        """A job with its parameters and its whole error."""
        return JobDetail.of(await _found(queue, id))

    @routes.get("/queue/{id}/log", responses=_problems(404, 503))
    async def read_log(id: JobId, lines: Annotated[int, Query(ge=1, le=2000)] = 200) -> LogView:
        """The last lines of the log of a job's last attempt, if it is on the machine of the dashboard."""
        job = await _found(queue, id)
        return await asyncio.to_thread(log_tail, job, lines)

    @routes.get("/workers", response_model=list[WorkerView], responses=_problems(503))
    async def list_workers() -> Response:
        """The workers, and when each was seen last."""
        _expect_queue(await live.fresh())
        return _json(live.cached("workers", lambda: _WORKERS.dump_json(live.workers())))

    @routes.get("/losses/{id}", responses=_problems(404, 503))
    async def show_losses(id: JobId) -> LossesView:
        """The losses of a job, as the store was read last; that of running jobs is read every ten seconds."""
        return await live.losses_of(await _found(queue, id))

    @routes.get("/disk", responses=_problems(503))
    async def show_disk() -> DiskView:
        """What trainings take on the disk of the dashboard's machine, as it was measured last."""
        return (await live.fresh()).disk_view()

    @routes.get("/retention")
    async def show_retention() -> RetentionView:
        """Which checkpoints `metaopt prune` would delete, and why; read every five minutes."""
        return (await live.fresh()).retention

    @routes.get("/lineage")
    async def show_lineage() -> LineageView:
        """What the latest checkpoints were made from; read every five minutes."""
        return (await live.fresh()).lineage

    @routes.get("/events", response_class=Response, responses=_problems(503) | {200: _EVENTS})
    async def follow(version: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Changes as server-sent events. `version`: what the client shows; if it is not the present one, the first
        event tells it to load the page again."""
        await live.fresh()
        client = broadcast.join()
        if client is None:
            raise HTTPException(503, "too many streams are open, or the dashboard ends; try again later")
        first = {"reload": version != live.version, "version": live.version, "now": time.time()}
        return EventStream(broadcast, client, first)

    routes.include_router(_steering_routes(live, queue))
    return routes


def _steering_routes(live: Live, queue: JobQueue) -> APIRouter:
    """What changes state. `Access` lets only requests with the token come here."""
    routes = APIRouter(dependencies=[Depends(_token)], responses=_problems(404, 409, 503))

    async def change(id: int, work: Callable[..., Job], *arguments: Any) -> JobDetail:
        await _found(queue, id)
        try:
            job = await asyncio.to_thread(work, id, *arguments)
        except (IllegalTransition, JobError) as error:
            raise HTTPException(409, str(error)) from error
        except QueueError as error:
            raise HTTPException(503, str(error)) from error
        await live.changed()
        return JobDetail.of(job)

    def steer(name: Action, work: Callable[[int], Job]) -> Callable[..., Any]:
        async def action(id: JobId) -> JobDetail:
            return await change(id, work)

        action.__name__, action.__doc__ = f"{name}_job", (work.__doc__ or "").partition("\n")[0]
        return action

    steering: Mapping[Action, Callable[[int], Job]] = {
        "pause": queue.pause,
        "resume": queue.resume,
        "stop": queue.stop,
        "skip": queue.skip,
        "retry": queue.retry,
    }
    for name, work in steering.items():
        routes.post(f"/queue/{{id}}/{name}")(steer(name, work))

    @routes.post("/queue/{id}/move")
    async def move_job(id: JobId, place: Move) -> JobDetail:
        """Change the priority of a job, or the jobs that must be done before."""
        return await change(id, queue.move, place.priority, place.after)

    return routes


_EVENTS = {
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
    "description": "Each event has JSON: `version`, `now`, `rows` (HTML by job), `order` (IDs, if it changed) and "
    "`panels` (HTML by name); or `reload`, whether the page must be loaded again. Comments keep the connection open.",
}


async def _found(queue: JobQueue, number: int) -> Job:
    try:
        return await asyncio.to_thread(queue.get, number)
    except JobError as error:
        raise HTTPException(404, str(error)) from error
    except MetaoptError as error:
        raise HTTPException(503, str(error)) from error


def _expect_queue(live: Live) -> None:
    if live.problem:
        raise HTTPException(503, live.problem)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
