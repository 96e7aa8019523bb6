"""A tracking server that is killed and started again during a run."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from metaopt.tracking import start_run, write_queue

SERVER = """
import sys
from werkzeug.serving import run_simple
from mlflow.server import app
from mlflow.server.handlers import initialize_backend_stores
initialize_backend_stores("sqlite:///mlflow.db", "sqlite:///mlflow.db", "./served")
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""


class Server:
    """MLflow's server without its workers, which take most of a minute to start."""

    def __init__(self, folder: Path, port: int) -> None:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        variables["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
        with (folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(port)], cwd=folder, env=variables, stdout=log, stderr=log
            )
        self.address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 180
        while not self._responds():
            assert self._process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end, (folder / "server.log").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _responds(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return True
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_killed_and_started_again_receives_everything(store, client, config, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(write_queue, "_PAUSES", (0.1, 0.5))
    monkeypatch.setattr(write_queue, "MAX_DELAY", 0.05)
    port = free_port()
    server = Server(store, port)
    try:
        with start_run("restarted", config, tracking_uri=server.address) as tracker:
            for step in range(100):
                tracker.metrics({"loss": float(step)}, step)
            server.kill()
            begin = time.monotonic()
            for step in range(100, 200):
                tracker.metrics({"loss": float(step)}, step)
                time.sleep(0.005)
            tracker.text("# Report", "report.md")
            assert time.monotonic() - begin < 5
            server = Server(store, port)
            with tracker.child("after the restart") as child:
                pass
    finally:
        server.kill()
    for run_id in (tracker.run_id, child.run_id):
        assert client.get_run(run_id).info.status == "FINISHED"
    assert sorted(metric.step for metric in client.get_metric_history(tracker.run_id, "loss")) == list(range(200))
    assert list(store.glob(f"served/**/{tracker.run_id}/artifacts/report.md"))
