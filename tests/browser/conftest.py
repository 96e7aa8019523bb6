"""Fixtures: a small main job, an `mlflow ui` server of its results, and a real browser.

Screenshots are stored in the folder METAOPT_SCREENSHOTS, by default among pytest's temporary folders.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = [
    "main", "--runs", "4", "--target-epochs", "2", "--optimizer-epochs", "1", "--pairs-per-epoch", "16",
    "--steps", "40", "--every", "20", "--seeds", "2", "--target-options", "widths=[8]",
]  # fmt: skip
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
START = 120.0  # [s] for the server to start; it takes 17 on an idle machine
PATIENCE = 60_000.0  # [ms] for a page's text to appear


def environment() -> dict[str, str]:
    """Environment variables of this process, without those of another store."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium; skips without Chromium or playwright."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on the PATH (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def results(chromium, tmp_path_factory) -> Path:
    """Folder of a finished small main job."""
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "metaopt.cli", *TINY]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def address(results) -> str:
    """Address of an `mlflow ui` server of these results."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    with (results / "ui.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=results, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server, results / "ui.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # on SIGTERM it waits for the browser
        server.wait()


def wait_until_ready(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START
    while True:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)


@pytest.fixture(scope="module")  # while it is open, an event loop runs in this thread: other files must not meet it
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Folder of screenshots."""
    named = os.environ.get("METAOPT_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.getbasetemp() / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def show(browser, address, screenshots):
    """Opens a page of the UI, waits for a text on it, stores a screenshot, and returns the page."""
    context = browser.new_context(viewport={"width": 1500, "height": 1100})
    context.set_default_timeout(PATIENCE)
    ours = (address, "data:", "blob:")
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith(ours) else route.abort())

    def open_page(name: str, place: str, expected: str):
        page = context.new_page()
        page.goto(f"{address}/#{place}")
        page.get_by_text(expected).first.wait_for()
        page.screenshot(path=screenshots / f"{name}.png")
        return page

    yield open_page
    context.close()
