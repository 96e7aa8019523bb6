"""`metaopt dashboard` as a process: it starts, sends events, and ends with its streams."""

import http.client
import json
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from metaopt.operations.jobs import State
from metaopt.operations.queue import JobQueue

from ..dashboards import TOKEN, job_in_each_state, served


@pytest.fixture
def ids(tmp_path):
    with JobQueue(str(tmp_path / "queue.db")) as queue:
        return job_in_each_state(queue)


def event_of(answer):
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream has ended"
    return json.loads(line[6:])


def test_a_change_by_one_client_reaches_another_and_sigterm_ends_both(tmp_path, ids):
    with served(tmp_path, "--refresh", "0.2") as (process, address):
        place = urlsplit(address)
        reader, writer = (http.client.HTTPConnection(place.hostname, place.port, timeout=20) for _ in range(2))
        reader.request("GET", "/api/events")
        stream = reader.getresponse()
        assert stream.getheader("Content-Type").startswith("text/event-stream")
        assert event_of(stream)["reload"]
        number = ids[State.RUNNING]
        writer.request("POST", f"/api/queue/{number}/pause", headers={"Authorization": f"Bearer {TOKEN}"})
        assert json.loads(writer.getresponse().read())["request"] == "pause"
        while "pausing" not in event_of(stream).get("rows", {}).get(str(number), ""):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
        assert stream.read().strip() == b""
        for each in (stream, reader, writer):
            each.close()
        assert "Traceback" not in (tmp_path / "dashboard.log").read_text()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((), "there is no queue"),
        (("--host", "0.0.0.0"), "--allowed-hosts"),
        (("--host", "192.0.2.1"), "cannot listen at 192.0.2.1"),
        (("--token-file", "missing.txt"), "a file with a token"),
        (("--mlflow-url", "ftp://x"), "such as http://127.0.0.1:5000"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, flags, reason):
    from click.testing import CliRunner

    from metaopt.cli import cli

    monkeypatch.chdir(tmp_path)
    if flags:
        JobQueue("queue.db").close()
    done = CliRunner().invoke(cli, ["dashboard", "--port", "0", *flags])
    assert done.exit_code == 1
    assert reason in done.output
    assert done.output.count("\n") == 1


def test_a_missing_extra_is_named(tmp_path):
    code = "import sys; sys.modules['fastapi'] = None; from metaopt.cli import program; program(['dashboard'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "metaopt[operations]"' in done.stderr
    assert done.stderr.count("\n") == 1
