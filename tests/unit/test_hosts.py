"""The registry of hosts, and probes against servers that answer, refuse, talk nonsense or say nothing."""

import socket
import sqlite3
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from metaopt.core.addresses import without_password
from metaopt.core.errors import InvalidConfig
from metaopt.operations import probe
from metaopt.operations.hosts import HostConfig, read_hosts
from metaopt.operations.probe import probe_hosts

HOSTS = """\
laptop:
  roles: [worker, queue, storage]
  queue_url: sqlite:///queue.db
  storage: .
gpu-1:
  devices: [cuda:0, cuda:1]
  parameters: {device: cuda:0}
server: {roles: [tracking], tracking_url: "http://ada:battery@tracking.example:5000"}
"""


def write(folder, text=HOSTS):
    path = folder / "hosts.yaml"
    path.write_text(text)
    return path


@contextmanager
def server(text="OK", status=200, wait=0.0):
    """An HTTP server, with the paths and the headers of its requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append((self.path, self.headers.get("Authorization")))
            time.sleep(wait)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_port}", requests
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def found(time_limit=5.0, **values):
    """What the only probe of a host found."""
    role = {"tracking_url": "tracking", "queue_url": "queue", "storage": "storage"}[next(iter(values))]
    (health,) = probe_hosts({"host": HostConfig(roles=[role], **values)}, time_limit)
    assert (health.machine, health.role) == ("host", role)
    return health.healthy, health.detail


def test_hosts_are_read(tmp_path):
    hosts = read_hosts(write(tmp_path))
    assert list(hosts) == ["laptop", "gpu-1", "server"]
    assert hosts["gpu-1"].devices == ("cuda:0", "cuda:1")
    assert hosts["gpu-1"].roles == ("worker",)
    assert hosts["server"].addresses == {"tracking": "http://tracking.example:5000"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {roles: [wroker]}", "the machine 'a' of .*: roles has 'wroker': did you mean worker"),
        ("a: {roles: [tracking]}", "the role tracking needs tracking_url, which is missing"),
        ("a: {role: [worker]}", "unknown parameter 'role' for HostConfig: did you mean roles"),
        ("a: 5", "the machine 'a' of .* is 5; expected names with values"),
        ("[a]", "expected machines"),
        ("", "expected machines"),
    ],
)
def test_invalid_files_are_refused(tmp_path, text, message):
    with pytest.raises(InvalidConfig, match=message):
        read_hosts(write(tmp_path, text))


def test_a_tracking_server_that_answers_is_healthy():
    with server() as (address, requests):
        assert found(tracking_url=f"http://ada:bat%20tery@{address}/") == (True, "OK")
    assert requests == [("/health", "Basic YWRhOmJhdCB0ZXJ5")]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [({"text": "hello"}, "the server answers 'hello'; expected OK"), ({"status": 503}, "the server answers 503")],
)
def test_another_answer_is_not_healthy(answer, detail):
    with server(**answer) as (address, _):
        healthy, found_detail = found(tracking_url=f"http://{address}")
    assert not healthy
    assert detail in found_detail


def test_a_server_that_says_nothing_does_not_hang():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        urls = [f"http://ada:battery@{address}", f"postgresql+psycopg2://ada:battery@{address}/x"]
        hosts = {
            "one": HostConfig(roles=["tracking"], tracking_url=urls[0]),
            "two": HostConfig(roles=["queue"], queue_url=urls[1]),
        }
        health = probe_hosts(hosts, 0.3)
    assert time.monotonic() - started < 2
    assert [each.healthy for each in health] == [False, False]
    assert {each.detail for each in health} <= {"no answer within 0.3 s", "timed out"}


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:battery@127.0.0.1:1",
        "http://ada:battery/y@127.0.0.1:1",
        "http://ada:battery@[",
        "postgresql://ada:battery@127.0.0.1:1/x",
        "postgresql+psycopg2://ada:battery@127.0.0.1:1/x",
        "postgresql://ada:battery/y@127.0.0.1:1/x",
        "nodatabase://ada:battery@host/x",
        "sqlite:///missing.db?password=battery",
    ],
)
def test_no_result_shows_a_password(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for host in (HostConfig(roles=["tracking"], tracking_url=url), HostConfig(roles=["queue"], queue_url=url)):
        (health,) = probe_hosts({"host": host})
        assert not health.healthy
        assert "battery" not in health.detail + str(host.addresses)
    assert list(Path().iterdir()) == []


def test_a_database_is_connected_to_and_a_missing_file_is_not_made(tmp_path):
    path = tmp_path / "queue.db"
    assert found(queue_url=f"sqlite:///{path}") == (False, f"there is no file {path}; the first job creates it")
    assert not path.exists()
    sqlite3.connect(path).close()
    assert found(queue_url=f"sqlite:///{path}") == (True, "connected")
    assert found(queue_url=str(path)) == (True, "connected")
    path.write_text("no database " * 100)
    assert found(queue_url=f"sqlite:///{path}")[0] is False


def test_a_folder_needs_to_exist_and_to_have_room(tmp_path, monkeypatch):
    healthy, detail = found(storage=tmp_path)
    assert healthy
    assert detail.endswith(" free")
    assert found(storage=tmp_path / "missing")[1].endswith("is no folder on this machine; create it, or mount it")
    monkeypatch.setattr(probe, "LEAST_FREE", 10**18)
    healthy, detail = found(storage=tmp_path)
    assert not healthy
    assert "expected 1e+06 TB or more" in detail


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:battery@host/x", "postgresql://host/x"),
        ("https://host/?token=abc&x=1", "https://host/?token=***&x=1"),
        ("nothing secret", "nothing secret"),
    ],
)
def test_addresses_are_shown_without_passwords(text, shown):
    assert without_password(text) == shown
