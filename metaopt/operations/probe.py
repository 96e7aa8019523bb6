"""Health probes of hosts: whether servers answer, the database of a queue can be reached, and a folder has room.

Each probe ends within a time limit, whatever the other side does, and changes nothing. No result shows a password.
"""

import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import sqlalchemy

from ..core.addresses import without_password
from ..core.errors import MetaoptError
from ..core.text import bytes_text, shortened
from .database import queue_url
from .hosts import HostConfig

LEAST_FREE = 10**9
"""Free disk below which a folder is not healthy [bytes]."""

_FILE = "sqlite"


class Health(NamedTuple):
    """What a probe found.

    Attributes:
        machine: name of the machine.
        role: `tracking`, `queue` or `storage`.
        healthy: whether it can be used.
        detail: what was found, for people.
    """

    machine: str
    role: str
    healthy: bool
    detail: str


class _Unhealthy(Exception):
    """Why something cannot be used."""


def probe_hosts(hosts: Mapping[str, HostConfig], time_limit: float = 5.0) -> list[Health]:
    """Probe each address and folder of some machines, all at the same time.

        from metaopt.operations.hosts import HostConfig
        from metaopt.operations.probe import probe_hosts

        hosts = {"laptop": HostConfig(roles=["storage"], storage=".")}
        print(probe_hosts(hosts)[0].detail)  # such as "42.1 GB free"

    Args:
        time_limit: how long to wait for all answers [s].
    """
    probes = [
        _Probe(name, role, check) for name, host in hosts.items() for role, check in _checks(host, time_limit).items()
    ]
    for probe in probes:
        probe.start()
    until = time.monotonic() + time_limit
    return [probe.result(until) or _too_slow(probe, time_limit) for probe in probes]


def _too_slow(probe: "_Probe", time_limit: float) -> Health:
    return Health(probe.machine, probe.role, False, f"no answer within {time_limit:g} s")


class _Probe(threading.Thread):
    """A probe in a thread that is left alone when its time is up: an address can be looked up for minutes."""

    def __init__(self, machine: str, role: str, check: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self.machine, self.role = machine, role
        self._check = check
        self._found: Health | None = None

    def run(self) -> None:
        """Find out, in the thread."""
        try:
            self._found = self._health(True, self._check())
        except (_Unhealthy, MetaoptError, OSError, ValueError, ImportError, ArithmeticError) as error:
            self._found = self._health(False, str(error) or type(error).__name__)
        except Exception as error:  # a driver of a database raises what it likes
            self._found = self._health(False, f"{type(error).__name__}: {error}")

    def result(self, until: float) -> Health | None:
        """What was found; None if nothing was found in time.

        Args:
            until: when to stop waiting, by the clock that only goes forward [s].
        """
        self.join(max(until - time.monotonic(), 0.0))
        return self._found

    def _health(self, healthy: bool, detail: str) -> Health:
        line = shortened(without_password(" ".join(detail.split())))
        return Health(self.machine, self.role, healthy, line)


def _checks(host: HostConfig, time_limit: float) -> dict[str, Callable[[], str]]:
    """The probes of a machine by role."""
    checks: dict[str, Callable[[], str]] = {}
    if (tracking := host.tracking_url) is not None:
        checks["tracking"] = lambda: _check_tracking(tracking, time_limit)
    if (queue := host.queue_url) is not None:
        checks["queue"] = lambda: _check_database(queue, time_limit)
    if (storage := host.storage) is not None:
        checks["storage"] = lambda: _check_folder(storage)
    return checks


def _check_tracking(url: str, time_limit: float) -> str:
    """Ask an MLflow server for its health, or connect to a database that is the store itself."""
    if not url.startswith(("http://", "https://")):
        return _check_database(url, time_limit)
    try:
        with urllib.request.urlopen(_health_request(url), timeout=time_limit) as answer:
            text = answer.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        raise _Unhealthy(f"the server answers {error.code} {error.reason}; expected an MLflow server") from error
    except urllib.error.URLError as error:
        raise _Unhealthy(f"no MLflow server answers: {error.reason}") from error
    if text != "OK":
        raise _Unhealthy(f"the server answers {text!r}; expected OK, as MLflow servers do")
    return "OK"


def _health_request(url: str) -> urllib.request.Request:
    """The request for the health of a server; user name and password of the address go into a header."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is no number
        host = parts.netloc.rpartition("@")[2]
        request = urllib.request.Request(parts._replace(netloc=host, path=f"{parts.path.rstrip('/')}/health").geturl())
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_header("Authorization", f"Basic {b64encode(secret.encode()).decode()}")
    except ValueError as error:  # its text can be a part of the password
        raise _Unhealthy("the address cannot be read; expected one such as http://127.0.0.1:5000") from error
    return request


def _check_database(url: str, time_limit: float) -> str:
    """Connect to a database; a file that does not exist is not created."""
    try:
        parsed = sqlalchemy.make_url(queue_url(url))
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:  # its text can be a part of the password
        raise _Unhealthy("the address cannot be read; expected one such as sqlite:///queue.db") from error
    is_file = parsed.get_backend_name() == _FILE
    if is_file:
        _check_database_file(parsed.database)
    limits = {} if is_file else {"connect_timeout": max(int(time_limit), 1)}
    try:
        engine = sqlalchemy.create_engine(parsed, connect_args=limits)
    except (sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
        raise _Unhealthy(f"{parsed.drivername} cannot be used ({error}); expected postgresql+psycopg2://…") from error
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT count(*) FROM sqlite_master" if is_file else "SELECT 1"))
    except sqlalchemy.exc.DBAPIError as error:
        raise _Unhealthy(f"no connection: {error.orig}") from error
    finally:
        engine.dispose()
    return "connected"


def _check_database_file(name: str | None) -> None:
    if not name:
        return
    path = Path(name)
    if not path.exists():
        raise _Unhealthy(f"there is no file {path}; the first job creates it")


def _check_folder(path: Path) -> str:
    if not path.is_dir():
        raise _Unhealthy(f"{path} is no folder on this machine; create it, or mount it")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _Unhealthy(f"{path} cannot be written by this user")
    free = shutil.disk_usage(path).free
    if free < LEAST_FREE:
        raise _Unhealthy(f"{bytes_text(free)} free; expected {bytes_text(LEAST_FREE)} or more")
    return f"{bytes_text(free)} free"
