"""The dashboard: what it shows, what it changes, and whom it refuses."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from metaopt.core.errors import FileFormatError, InvalidConfig, QueueError, UnknownName
from metaopt.operations.dashboard import Dashboard, DashboardConfig, events, snapshot
from metaopt.operations.dashboard.access import VARIABLE, find_token
from metaopt.operations.dashboard.dashboard import check_reachable
from metaopt.operations.dashboard.disk import folders_to_measure, measure
from metaopt.operations.dashboard.events import Broadcast, EventStream
from metaopt.operations.dashboard.helper import Helper, HelperFailed
from metaopt.operations.dashboard.log_tail import log_tail
from metaopt.operations.dashboard.rendering import GROUPS, part, sparkline
from metaopt.operations.dashboard.snapshot import read_snapshot
from metaopt.operations.dashboard.views import (
    CurveView,
    DecisionView,
    JobView,
    LineageOf,
    LineageView,
    LossesView,
    NodeView,
    RetentionView,
    actions_of,
)
from metaopt.operations.jobs import State
from metaopt.operations.queue import JobQueue
from metaopt.operations.workflow_table import find_workflow

from ..dashboards import SCRIPT, TOKEN, job_in_each_state

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ACTIONS = ("pause", "resume", "stop", "skip", "retry")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A queue with a job in each state, to be copied, and their IDs."""
    path = tmp_path_factory.mktemp("filled") / "queue.db"
    with JobQueue(str(path)) as queue:
        return path, job_in_each_state(queue)


@pytest.fixture
def queue(filled, tmp_path):
    shutil.copyfile(filled[0], tmp_path / "queue.db")
    with JobQueue(str(tmp_path / "queue.db")) as found:
        yield found


@pytest.fixture
def ids(filled):
    return filled[1]


@pytest.fixture
def start(tmp_path, monkeypatch, queue):
    """Returns a client of a dashboard with some settings."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.chdir(tmp_path)
    opened = []

    def client(host="127.0.0.1", **settings):
        dashboard = Dashboard(DashboardConfig(queue=str(tmp_path / "queue.db"), refresh=0.05, **settings))
        opened.append(dashboard)
        return TestClient(dashboard.app, base_url=f"http://{host}")

    yield client
    for each in opened:
        each.close()


@pytest.fixture
def client(start):
    return start()


def test_the_queue_is_listed_with_what_can_be_done(client, ids):
    found = client.get("/api/queue").json()
    states = {job["id"]: job["state"] for job in found["jobs"]}
    assert states == {number: str(state) for state, number in ids.items()}
    assert found["counts"] == {str(state): 1 for state in State}
    by_state = {job["state"]: job for job in found["jobs"]}
    assert found["jobs"][0]["state"] == "running"
    assert by_state["running"]["actions"] == ["pause", "stop", "skip"]
    assert by_state["failed"]["actions"] == ["retry"]
    assert by_state["done"]["actions"] == []
    assert by_state["queued"]["waits"] == f"after {ids[State.PAUSED]}"


def test_the_page_shows_every_job_and_escapes_what_it_shows(client, ids):
    answer = client.get("/")
    assert answer.status_code == 200
    assert all(f'id="job-{number}"' in answer.text for number in ids.values())
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text


def test_the_page_runs_only_its_own_script_and_asks_no_other_host(client):
    answer = client.get("/")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe-inline" not in answer.headers["content-security-policy"]
    assert answer.text.count("<script") == 1
    assert "://" not in answer.text.replace("sqlite:///", "")
    assert " style=" not in answer.text
    assert " onclick=" not in answer.text
    for path in ("/static/dashboard.js", "/static/dashboard.css", "/static/colours.css", "/static/icon.svg"):
        assert path in answer.text
        assert client.get(path).headers["x-content-type-options"] == "nosniff"
    for path in ("/static/", "/static/../config.py", "/static/%2e%2e/config.py", "/docs", "/redoc"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", State)
def test_every_action_is_offered_exactly_where_the_queue_allows_it(client, queue, ids, state, action):
    offered = action in actions_of(queue.get(ids[state]))
    answer = client.post(f"/api/queue/{ids[state]}/{action}", headers=HEADERS)
    assert answer.status_code == (200 if offered else 409), answer.text


def test_a_running_job_is_asked_to_pause_and_the_request_can_be_taken_back(client, ids, queue):
    number = ids[State.RUNNING]
    assert client.post(f"/api/queue/{number}/pause", headers=HEADERS).json()["request"] == "pause"
    job = next(each for each in client.get("/api/queue").json()["jobs"] if each["id"] == number)
    assert job["actions"] == ["resume", "stop", "skip"]
    assert "pausing" in client.get("/").text
    assert client.post(f"/api/queue/{number}/resume", headers=HEADERS).json()["request"] is None


def test_a_job_is_moved(client, ids, queue):
    number = ids[State.QUEUED]
    answer = client.post(f"/api/queue/{number}/move", headers=HEADERS, json={"priority": 3, "after": []})
    assert (answer.json()["priority"], answer.json()["depends_on"]) == (3, {})
    assert client.post(f"/api/queue/{number}/move", headers=HEADERS, json={"priority": 10**7}).status_code == 422
    assert client.post(f"/api/queue/{number}/move", headers=HEADERS, json={"prio": 1}).status_code == 422
    answer = client.post(f"/api/queue/{number}/move", headers=HEADERS, json={"after": [number]})
    assert answer.status_code == 409
    assert "itself" in answer.json()["detail"]


def test_a_job_is_shown_in_full(client, ids):
    found = client.get(f"/api/queue/{ids[State.FAILED]}").json()
    assert found["error"] == f"InvalidConfig: {SCRIPT}; expected another name"
    assert found["config"]["target_model"] == "MLP"
    missing = client.get("/api/queue/99")
    assert missing.status_code == 404
    assert "no job 99" in missing.json()["detail"]
    assert client.get("/api/queue/x").status_code == 422
    assert client.get(f"/api/queue/{2**70}").status_code == 422


# ---- who may do what


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer ÿ".encode("latin-1")},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_nothing_is_changed_without_the_token(client, ids, queue, headers, caplog):
    number = ids[State.RUNNING]
    answer = client.post(f"/api/queue/{number}/pause", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert queue.get(number).request is None
    (line,) = [each.getMessage() for each in caplog.records if each.name.endswith("access")]
    assert line.startswith(f"401: POST /api/queue/{number}/pause from testclient: ")
    assert TOKEN not in line


def test_a_line_of_the_log_cannot_be_forged(client, caplog):
    client.post("/api/%0A200: all is well%1b[2J")
    (line,) = [each.getMessage() for each in caplog.records if each.name.endswith("access")]
    assert line.isprintable()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://[broken"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_origins_change_nothing_even_with_the_token(client, ids, queue, headers):
    answer = client.post(f"/api/queue/{ids[State.RUNNING]}/pause", headers=HEADERS | headers)
    assert answer.status_code == 403
    assert queue.get(ids[State.RUNNING]).request is None


def test_the_own_page_may_change(client, ids):
    own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"/api/queue/{ids[State.RUNNING]}/pause", headers=HEADERS | own).status_code == 200


@pytest.mark.parametrize("host", ["elsewhere.example.org", "127.0.0.1.example.org", "", "[::2]", "localhost.", "a b"])
def test_other_names_of_this_machine_are_refused(client, host):
    answer = client.get("/api/queue", headers={"Host": host})
    assert answer.status_code == 400
    assert "--allowed-hosts" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host", ["localhost:8600", "127.0.0.1:1", "[::1]:8600", "box.example.org", "BOX.example.org:80"]
)
def test_allowed_names_of_this_machine_are_accepted(start, ids, host):
    client = start(allowed_hosts=("box.example.org",))
    assert client.get("/api/queue", headers={"Host": host}).status_code == 200


@pytest.mark.usefixtures("start", "ids")
def test_other_machines_need_the_token_to_read():
    config = DashboardConfig(queue="queue.db", host="0.0.0.0", allowed_hosts=("box.example.org",))
    with Dashboard(config) as dashboard:
        client = TestClient(dashboard.app, base_url="http://box.example.org")
        for path in ("/api/queue", "/api/health", "/api/openapi.json", "/api/events", "/nothing"):
            assert client.get(path).status_code == 401
        assert client.get("/api/queue", headers=HEADERS).status_code == 200
        page = client.get("/")
        assert page.status_code == 401
        assert "running job" not in page.text
        assert "queue.db" not in page.text
        assert client.get("/static/dashboard.js").status_code == 200
        assert "running job" in client.get("/", headers=HEADERS).text


def test_requests_are_limited_in_size(client, ids):
    path = f"/api/queue/{ids[State.QUEUED]}/move"
    assert client.post(path, headers=HEADERS, content=b"x" * 100_000).status_code == 413
    pieces = (b" " * 50_000 for _ in range(3))
    answer = client.post(path, headers=HEADERS | {"Content-Type": "application/json"}, content=pieces)
    assert answer.status_code >= 400


def test_the_token_comes_from_a_file_the_environment_or_chance(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert len(find_token(None)) > 40
    assert find_token(None) != find_token(None)
    monkeypatch.setenv(VARIABLE, "abcdefgh" * 3)
    assert find_token(None) == "abcdefgh" * 3
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", encoding="utf-8")
    assert find_token(file) == TOKEN
    for bad in ("short", "with blanks and long enough", "ünïcödé-and-long-enough"):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(InvalidConfig, match="16 or more"):
            find_token(file)
    with pytest.raises(FileFormatError, match="a file with a token"):
        find_token(tmp_path / "missing")


@pytest.mark.parametrize(
    "values",
    [
        {"mlflow_url": "javascript:alert(1)"},
        {"mlflow_url": "http://"},
        {"host": "a/b"},
        {"host": ""},
        {"allowed_hosts": ("*",)},
        {"port": 70_000},
        {"refresh": 0},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(InvalidConfig):
        DashboardConfig(**values)


def test_a_host_without_a_name_needs_names():
    with pytest.raises(InvalidConfig, match="--allowed-hosts"):
        check_reachable(DashboardConfig(host="0.0.0.0"))
    check_reachable(DashboardConfig(host="0.0.0.0", allowed_hosts=("box",)))
    assert DashboardConfig(host="::1").is_local
    assert not DashboardConfig(host="box.example.org").is_local


def test_links_name_the_server_of_mlflow_but_never_a_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000/")
    assert DashboardConfig().ui == "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:battery@host.example.org")
    assert DashboardConfig().ui is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert DashboardConfig().ui is None


# ---- what is shown


def test_a_queue_that_cannot_be_read_is_reported(start, ids, tmp_path, caplog):
    client = start()
    assert client.get("/api/health").json()["status"] == "ok"
    (tmp_path / "queue.db").write_bytes(b"no database" * 1000)
    deadline = time.monotonic() + 5
    while client.get("/api/health").json()["status"] == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get("/api/queue").status_code == 503
    assert client.get(f"/api/queue/{ids[State.DONE]}").status_code == 503
    assert client.post(f"/api/queue/{ids[State.RUNNING]}/pause", headers=HEADERS).status_code == 503
    assert 'role="alert"' in client.get("/").text


def test_a_missing_queue_is_not_made(tmp_path):
    with pytest.raises(QueueError, match="no queue"):
        Dashboard(DashboardConfig(queue=str(tmp_path / "none.db")))
    assert not (tmp_path / "none.db").exists()


def test_long_queues_are_shown_in_part(queue, ids, monkeypatch):
    monkeypatch.setattr(snapshot, "SHOWN", 2)
    found = read_snapshot(queue)
    shown = [ids[state] for state in (State.RUNNING, State.PAUSED, State.QUEUED, State.SKIPPED, State.STOPPED)]
    assert [job.id for job in found.jobs] == shown
    assert found.counts[State.DONE] == 1


def test_the_end_of_a_log_is_read_without_control_characters(queue, ids, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)), encoding="utf-8")
    job = replace(queue.get(ids[State.RUNNING]), log=str(log))
    found = log_tail(job, 3)
    assert (found.text, found.is_whole) == ("line 99997\nline 99998\nline 99999", False)
    log.write_bytes(b"50 %\r100 %\x1b[31m done\x1b[0m\x07\n\xff")
    assert log_tail(job, 9).text == "50 %\n100 % done\n�"
    os.mkfifo(tmp_path / "pipe")
    for place, reason in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), (tmp_path / "none", "No such file")):
        assert reason in log_tail(replace(job, log=str(place)), 9).problem
    assert log_tail(replace(job, log=None), 9).problem


def test_folders_are_measured(tmp_path):
    (tmp_path / "trajectories" / "mlp").mkdir(parents=True)
    (tmp_path / "trajectories" / "mlp" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "trajectories" / "linked").symlink_to(tmp_path)  # not followed: it would have no end
    folders = folders_to_measure([str(tmp_path), "/none"], Path("trajectories"), Path("checkpoints"))
    linked = tmp_path / "same"
    linked.symlink_to(tmp_path)
    assert folders_to_measure([str(tmp_path), str(linked)], Path("trajectories"), Path("none")) == folders
    (found,) = measure(folders, tmp_path).folders
    assert (found.name, found.files, found.is_whole) == ("trajectories", 1, True)
    assert found.size == 1000
    assert "trajectories/" in part("disk", measure(folders, tmp_path))


def test_a_sparkline_fits_its_box_and_joins_curves_on_common_axes():
    def curve(steps, values):
        return CurveView(run_id="r", run_name="n", metric="val_loss", steps=steps, values=values)

    assert sparkline([curve([0, 10], [2.0, 1.0])]) == ["0.0,2.0 120.0,26.0"]
    assert sparkline([curve([0, 10], [2.0, 1.0]), curve([5], [1.5])])[1] == "60.0,14.0"
    assert sparkline([curve([3], [1.0])]) == ["0.0,26.0"]
    assert sparkline([]) == []
    assert sparkline([curve([0, 1], [-1e308, 1e308])])


def test_losses_are_drawn_in_the_row_of_a_job(queue, ids):
    curve = CurveView(run_id="r", run_name="n", metric="val_loss", steps=[0, 9], values=[2.0, 0.25])
    losses = LossesView(curves=[curve], pages={}, problem="", read=1.0)
    row = part("row", JobView.of(queue.get(ids[State.RUNNING])), losses)
    assert "<polyline" in row
    assert "val_loss <b>0.25</b>" in row


def test_plans_and_lineages_are_shown_with_their_reasons_and_links():
    decision = DecisionView(path=SCRIPT, keep=False, reason="30 days old", size=10**6, is_protected=False)
    plan = RetentionView(decisions=[decision], kept=0, kept_size=0, deleted=1, deleted_size=10**6, problem="", read=1.0)
    assert "30 days old · 1 MB" in part("retention", plan)
    node = NodeView(kind="trajectory", name=SCRIPT, digest="ab" * 16, place="", page="http://box/#/x", problem="gone")
    found = part("lineage", LineageView(checkpoints=[LineageOf(path="a", nodes=[node])], problem="", read=1.0))
    assert 'href="http://box/#/x"' in found
    assert "missing link" in found
    assert "<script>" not in found + part("retention", plan)


def test_every_state_has_a_button_that_shows_it():
    assert sorted(state for name, states in GROUPS.items() if name != "all" for state in states) == sorted(State)


# ---- live


def test_a_client_that_does_not_read_is_removed_and_the_others_go_on():
    async def run():
        broadcast = Broadcast()
        slow, quick = broadcast.join(), broadcast.join()
        for number in range(40):
            broadcast.send({"version": number})
            assert await quick.get() == f'data: {{"version": {number}}}\n\n'.encode()
        assert len(broadcast) == 1
        assert slow.qsize() == 1  # the end of the stream, and nothing of what it has missed
        broadcast.close()
        assert await quick.get() == b""
        assert broadcast.join() is None

    asyncio.run(run())


def test_only_so_many_clients_are_served():
    async def run():
        broadcast = Broadcast(most=2)
        clients = [broadcast.join() for _ in range(3)]
        assert clients[2] is None
        broadcast.leave(clients[0])
        assert broadcast.join() is not None

    asyncio.run(run())


def test_a_stream_ends_when_its_client_leaves_or_hangs(monkeypatch):
    monkeypatch.setattr(events, "_PATIENCE", 0.1)
    monkeypatch.setattr(events, "_HEARTBEAT", 0.05)

    async def run(receive, send):
        broadcast = Broadcast()
        stream = EventStream(broadcast, broadcast.join(), {"version": 0})
        await asyncio.wait_for(stream({}, receive, send), 5)
        return len(broadcast)

    sent = []

    async def leaves():
        while len(sent) < 4:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def keep(message):
        sent.append(message.get("body"))

    async def never():
        await asyncio.Event().wait()

    async def hangs(message):
        if "body" in message:
            await never()

    assert asyncio.run(run(leaves, keep)) == 0
    assert sent[1:4] == [b'data: {"version": 0}\n\n', b": still here\n\n", b": still here\n\n"]
    assert asyncio.run(run(never, hangs)) == 0


@pytest.mark.usefixtures("start")
def test_changes_are_sent_as_rows_and_nothing_is_sent_without_a_change(ids, queue):
    with Dashboard(DashboardConfig(queue="queue.db")) as dashboard:
        asyncio.run(_see_changes(dashboard, queue, ids))


async def _see_changes(dashboard, queue, ids):
    await dashboard.live.changed()
    reader = dashboard.broadcast.join()
    await dashboard.live.changed()
    assert reader.empty()
    queue.pause(ids[State.RUNNING])
    await dashboard.live.changed()
    event = (await reader.get()).decode()
    assert f'"rows": {{"{ids[State.RUNNING]}": "<li' in event
    assert "pausing" in event
    assert '"order"' not in event
    assert reader.empty()


# ---- beside it


def test_the_process_beside_it_passes_errors_and_is_ended_if_it_hangs():
    helper = Helper(limit=0.5)
    try:
        with pytest.raises(UnknownName, match="no workflow"):
            helper.call(find_workflow, "x")
        first = helper.call(os.getpid)
        assert first != os.getpid()
        with pytest.raises(HelperFailed, match="ZeroDivisionError"):
            helper.call(divmod, 1, 0)
        assert helper.call(os.getpid) == first
        with pytest.raises(HelperFailed, match=r"no answer within 0\.5 s"):
            helper.call(time.sleep, 60)
        assert helper.call(os.getpid) != first
    finally:
        helper.close()
    with pytest.raises(HelperFailed, match="ends"):
        helper.call(os.getpid)


def test_it_starts_without_torch_and_mlflow():
    code = (
        "import sys, metaopt.cli.dashboard, metaopt.operations.dashboard.server; "
        "sys.exit(str({'torch', 'mlflow', 'matplotlib'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
