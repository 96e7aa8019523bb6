"""The dashboard as an ASGI application, with the queue, the token and the tasks behind it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Self

from fastapi import FastAPI
from starlette.types import ASGIApp

from ...core.errors import InvalidConfig
from ..jobs import METAOPT
from ..queue import JobQueue
from .access import Access, find_token
from .config import LOOPBACK, DashboardConfig
from .events import Broadcast
from .helper import Helper
from .live import Live
from .routes import FILES, api_routes, page_routes

DESCRIPTION = "/api/openapi.json"
"""Path of the OpenAPI description."""

_LONG = 180.0  # for lineage and retention of all checkpoints [s]


class Dashboard:
    """A dashboard of one queue. As a context it closes the queue at its end.

    Attributes:
        token: that changes need.
        app: the ASGI application; its lifespan runs the tasks that read the queue, the losses and the disk.

    Raises:
        QueueError: the queue does not exist, does not respond, or is of a newer metaopt.
        InvalidConfig: the token is too short.
        FileFormatError: the file of the token cannot be read.
    """

    def __init__(self, config: DashboardConfig) -> None:
        self.config = config
        self.token = find_token(config.token_file)
        self.queue = JobQueue(config.queue, create=False)
        self.broadcast = Broadcast()
        self._helpers = Helper(), Helper(limit=_LONG)  # the long answers of the second do not delay losses
        self.live = Live(config, self.queue, self.broadcast, *self._helpers)
        self.app: ASGIApp = Access(
            self._application(),
            token=self.token,
            hosts=_names(config),
            reading=not config.is_local,
            public=("/", *FILES),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the streams, the processes beside it, and the connections to the queue."""
        self._stop()
        self.queue.close()

    def _stop(self) -> None:
        self.broadcast.close()
        for each in self._helpers:
            each.close()

    def _application(self) -> FastAPI:
        @contextlib.asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            running = asyncio.create_task(self.live.run())
            yield
            self._stop()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

        app = FastAPI(
            title="metaopt dashboard",
            description="A queue of trainings, its workers, and what a person needs to watch and steer it. Requests "
            "that change state need the header `Authorization: Bearer <token>`.",
            version=METAOPT,
            openapi_url=DESCRIPTION,
            docs_url=None,  # these pages load scripts of other hosts
            redoc_url=None,
            lifespan=lifespan,
        )
        app.include_router(page_routes(self.live))
        app.include_router(api_routes(self.live, self.queue, self.broadcast))
        return app


def _names(config: DashboardConfig) -> list[str]:
    """Names of this machine in the addresses of requests."""
    bound = f"[{config.host}]" if ":" in config.host and not config.host.startswith("[") else config.host
    own = [] if config.is_local else [socket.gethostname()]
    return [*LOOPBACK, bound, *own, *config.allowed_hosts]


def check_reachable(config: DashboardConfig) -> None:
    """Raise if browsers could not name this machine.

    Raises:
        InvalidConfig: it listens at all addresses, and no name is allowed.
    """
    if config.host in ("0.0.0.0", "::", "[::]") and not config.allowed_hosts:
        raise InvalidConfig(
            f"host is {config.host}, which is no name that a browser could ask for; give --allowed-hosts and the names "
            "of this machine, such as box.example.org"
        )
