"""Server-sent events: one source for all clients, and no client that can delay the others.

Each client has a short queue of messages. One that does not read them in time is disconnected; its page connects again
and is told to load itself again.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_WAITING = 16  # messages of a client [count]
_HEARTBEAT = 15.0  # silence before a comment, so that proxies and pages see that the connection lives [s]
_PATIENCE = 10.0  # to send one message [s]
_END = b""


class Broadcast:
    """Sends messages to all clients.

    Args:
        most: clients at the same time [count].
    """

    def __init__(self, most: int = 200) -> None:
        self._most = most
        self._clients: set[asyncio.Queue[bytes]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._clients)

    def join(self) -> asyncio.Queue[bytes] | None:
        """Add a client; None if there are too many, or the dashboard ends."""
        if self._closed or len(self._clients) >= self._most:
            return None
        client: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._clients.add(client)
        return client

    def leave(self, client: asyncio.Queue[bytes]) -> None:
        """Remove a client."""
        self._clients.discard(client)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to all clients; those that have not read earlier ones are removed."""
        event = encoded(message)
        for client in [*self._clients]:
            try:
                client.put_nowait(event)
            except asyncio.QueueFull:
                self._end(client)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for client in [*self._clients]:
            self._end(client)

    def _end(self, client: asyncio.Queue[bytes]) -> None:
        self.leave(client)
        while not client.empty():
            client.get_nowait()
        client.put_nowait(_END)


def encoded(message: Mapping[str, Any]) -> bytes:
    """A message as an event; JSON has no line breaks of its own."""
    return f"data: {json.dumps(message, allow_nan=False)}\n\n".encode()


class EventStream(Response):
    """The response that sends events to one client, until it leaves, or the dashboard ends.

    Args:
        broadcast: the source.
        client: its queue there.
        first: a message to begin with.
    """

    media_type = "text/event-stream"

    def __init__(self, broadcast: Broadcast, client: asyncio.Queue[bytes], first: Mapping[str, Any]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._broadcast, self._client, self._first = broadcast, client, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._broadcast.leave(self._client)
            for task in (sending, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, TimeoutError, OSError):
                    await task

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        event = encoded(self._first)
        while event != _END:
            async with asyncio.timeout(_PATIENCE):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            try:
                event = await asyncio.wait_for(self._client.get(), _HEARTBEAT)
            except TimeoutError:
                event = b": still here\n\n"
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
