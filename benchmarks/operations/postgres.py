"""A PostgreSQL server for measurements and tests, from the programs of Debian's package."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_WITHIN = 180
"""Time for a program to start; a busy machine takes most of a minute [s]."""


class PostgresMissing(RuntimeError):
    """PostgreSQL cannot run here."""


def _programs() -> Path:
    """The folder of PostgreSQL's programs; Debian has one per version outside the PATH."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    if not found:
        raise PostgresMissing("PostgreSQL is missing; install Debian's package postgresql")
    return found[0]


def _unprivileged() -> str | None:
    """A user for PostgreSQL, which does not run as root; None for the user of this process."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise PostgresMissing("PostgreSQL does not run as root, and neither user postgres nor user nobody exists")


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return
        time.sleep(0.2)
    raise RuntimeError(f"the program is not ready: {log.read_text(encoding='utf-8', errors='replace')}")


@contextmanager
def running(
    command: Sequence[object], log: Path, ready: Callable[[], bool], end: int = signal.SIGTERM, **options: Any
) -> Iterator[None]:
    """Run a program and its child processes during the block.

    Args:
        end: signal that ends them.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        _wait_until(ready, process, log)
        yield
    finally:
        os.killpg(process.pid, end)
        process.wait(timeout=60)


class PostgresServer:
    """A server of its own, whose URL stays the same when it is restarted.

    Args:
        folder: empty, and readable for other users.
    """

    def __init__(self, folder: Path) -> None:
        self.tools, self.folder, self.port = _programs(), folder, free_port()
        self.url = f"postgresql+psycopg2://metaopt@127.0.0.1:{self.port}"
        self.options: dict[str, Any] = {"cwd": folder}
        self._where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "metaopt"]
        if user := _unprivileged():
            shutil.chown(folder, user)
            self.options |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        make: list[str | Path] = [
            self.tools / "initdb",
            "-D",
            folder / "data",
            "-U",
            "metaopt",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
        ]
        subprocess.run([*make, "-E", "UTF8", "--no-locale"], check=True, stdout=subprocess.DEVNULL, **self.options)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server during the block."""
        data = self.folder / "data"
        probe: list[str | Path] = [self.tools / "pg_isready", "-q", *self._where]
        serve = [self.tools / "postgres", "-D", data, "-h", "127.0.0.1", "-p", self.port, "-k", self.folder, "-F"]
        log, fast = self.folder / "log", signal.SIGINT  # which does not wait for clients
        with running(serve, log, lambda: subprocess.run(probe).returncode == 0, fast, **self.options):
            yield

    def make_databases(self, names: Sequence[str]) -> None:
        """Make empty databases on the running server."""
        for name in names:
            subprocess.run([self.tools / "createdb", *self._where, name], check=True)


@contextmanager
def postgres(*databases: str) -> Iterator[str]:
    """Run a server with empty databases during the block.

    Yields: its URL, to which `/` and the name of a database is added.
    Raises:
        PostgresMissing: its programs are not installed, or no user can run them.
    """
    with tempfile.TemporaryDirectory() as folder:  # other users can enter it, unlike pytest's folders
        server = PostgresServer(Path(folder))
        with server.running():
            server.make_databases(databases)
            yield server.url
