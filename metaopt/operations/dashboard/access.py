"""Who may do what: names of this machine, the token, origins of requests, and limits of what a request can send.

Everything that changes state needs the token in the header `Authorization: Bearer`. Browsers send no such header of
their own accord, as they do with cookies, so another page cannot make a browser steer the queue.
"""

import hmac
import json
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.errors import InvalidConfig
from ...core.text import printable, shortened
from ...weights.regular import read_text

log = logging.getLogger(__name__)

VARIABLE = "METAOPT_DASHBOARD_TOKEN"
"""Environment variable with the token."""

_SHORTEST = 16  # token [characters]
_LARGEST_BODY = 64 * 1024  # [bytes]
_READING = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def find_token(file: Path | None) -> str:
    """The token of the file, else that of METAOPT_DASHBOARD_TOKEN, else a new one.

    Raises:
        FileFormatError: the file cannot be read.
        InvalidConfig: the token is too short, or a browser could not send it.
    """
    place, token = str(file), read_text(file, "a file with a token", 4096).strip() if file else ""
    if file is None:
        place, token = VARIABLE, os.environ.get(VARIABLE, "").strip() or secrets.token_urlsafe(32)
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidConfig(
            f"the token of {place} has {len(token)} characters; expected {_SHORTEST} or more letters and digits, such "
            "as those of `openssl rand -hex 32`"
        )
    return token


class Access:
    """An ASGI middleware that lets only allowed requests pass. Each refusal is logged, without the token.

    Args:
        app: what is protected.
        token: that requests need that change state.
        hosts: names of this machine in requests. Others come from pages whose name was bent to this machine.
        reading: whether reading needs the token, too.
        public: paths of files that are no secret, such as the script of the page.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, hosts: Iterable[str], reading: bool, public: Iterable[str] = ()
    ) -> None:
        self._app, self._token, self._reading = app, token.encode(), reading
        self._hosts = {each.lower() for each in hosts}
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope["is_trusted"] = trusted = self._has_token(headers)
        refusal = self._refusal(scope, headers, trusted)
        if refusal is None:
            await self._app(scope, _limited(receive), _with_headers(send))
            return
        status, reason = refusal
        path = printable(shortened(scope["path"]))
        client = scope["client"][0] if scope.get("client") else "unknown"
        log.warning("%d: %s %s from %s: %s", status, printable(shortened(scope["method"])), path, client, reason)
        await _answer(_with_headers(send), status, reason)

    def _refusal(self, scope: Scope, headers: Headers, trusted: bool) -> tuple[int, str] | None:
        """The status and the reason of a refusal; None for a request that may pass."""
        host = headers.get("host", "")
        if _name_of(host) not in self._hosts:
            return 400, "the address names another machine; start the dashboard with --allowed-hosts and its name"
        changes = scope["method"] not in _READING
        if changes and not _is_own_page(headers, host):
            return 403, "a page of another origin asked for it; use the page of this dashboard"
        if not trusted and (changes or (self._reading and scope["path"] not in self._public)):
            missing = "authorization" not in headers
            return 401, f"{'no' if missing else 'a wrong'} token; open the link that the dashboard printed at its start"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:12]) > _LARGEST_BODY:
            return 413, f"the request is too large; expected at most {_LARGEST_BODY:,} bytes"
        return None

    def _has_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


def _name_of(host: str) -> str:
    """The name in a header `Host`, without the port."""
    end = host.find("]") + 1 if host.startswith("[") else host.find(":")
    return (host[:end] if end > 0 else host).lower()


def _is_own_page(headers: Headers, host: str) -> bool:
    """Whether a request comes from a page of the dashboard, or from no page at all."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _limited(receive: Receive) -> Receive:
    """Ends a request whose body is longer than it may be; a body in pieces does not announce its length."""
    read = 0

    async def next_part() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        return message if read <= _LARGEST_BODY else {"type": "http.disconnect"}

    return next_part


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
