"""Serves a dashboard until a signal ends it."""

import asyncio
import logging
import socket
from collections.abc import Callable

import uvicorn

from ...core.errors import StorageError
from .config import DashboardConfig
from .dashboard import Dashboard, check_reachable

log = logging.getLogger(__name__)

_GRACE = 5  # for open requests at the end [s]
_MOST = 512  # connections at the same time [count]


class _Server(uvicorn.Server):
    """Ends streams of events before it waits for open requests."""

    def __init__(self, config: uvicorn.Config, dashboard: Dashboard, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._dashboard, self._started = dashboard, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._dashboard.broadcast.close()
        await super().shutdown(sockets)


def serve(config: DashboardConfig, announce: Callable[[str], None] = log.info) -> None:
    """Serve a dashboard until SIGINT or SIGTERM.

    Args:
        announce: receives the address with the token, when the server listens.
    Raises:
        QueueError, InvalidConfig, FileFormatError: as for `Dashboard`.
        StorageError: the address is in use, or is none of this machine.
    """
    check_reachable(config)
    with Dashboard(config) as dashboard, _listening(config) as listener:
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/#token={dashboard.token}"
        settings = uvicorn.Config(
            dashboard.app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST,
            timeout_graceful_shutdown=_GRACE,
        )
        server = _Server(settings, dashboard, lambda: announce(address))
        asyncio.run(server.serve(sockets=[listener]))


def _listening(config: DashboardConfig) -> socket.socket:
    try:
        found = socket.getaddrinfo(config.host.strip("[]"), config.port, type=socket.SOCK_STREAM)
        family, _, _, _, place = found[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise StorageError(
            f"cannot listen at {config.host}, port {config.port} ({error.strerror or error}); expected a free port and "
            "an address of this machine, such as --host 127.0.0.1 --port 8601"
        ) from error
