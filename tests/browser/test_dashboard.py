"""The dashboard in a browser: a job that a worker runs is paused and resumed by clicks, on a desktop and on a phone."""

import math
import re
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import torch
from mlflow.entities import Metric

from metaopt.operations.claims import Claims
from metaopt.operations.jobs import JobOptions, State
from metaopt.operations.queue import JobQueue
from metaopt.operations.rows import WorkerRow
from metaopt.tracking import connect
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.trajectories.ledger_entry import TrainingFacts, read_entry, sidecar_path
from metaopt.trajectories.origin import Generator, Origin
from metaopt.trajectories.sealed_json import write_sealed

from ..dashboards import SCRIPT, add, counting_worker, owner, served
from .conftest import environment

PATIENCE = 30_000.0  # for a text to appear [ms]


@pytest.fixture
def folder(chromium, tmp_path):
    """A folder with a queue of one job to run, one that waits for it, and one with a name that is a script."""
    with JobQueue(str(tmp_path / "queue.db")) as queue:
        first = add(queue, "digits-mlp", priority=2)
        add(queue, "digits-optimizer", after=(first.id,))
        queue.skip(add(queue, SCRIPT).id)
    return tmp_path


@pytest.fixture
def open_page(browser):
    """Opens an address at a size of the window; fails if the page has errors, or asks another host."""
    contexts, failures = [], []

    def opened(address, width, height, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda message: failures.append(message.text) if is_failure(message) else None)
        page.on("dialog", lambda dialog: failures.append(dialog.message))
        page.on("request", lambda request: failures.append(request.url) if not is_own(request.url, address) else None)
        page.goto(address)
        return page

    yield opened
    for each in contexts:
        each.close()
    assert failures == []


def is_failure(message):
    return message.type == "error" and "401" not in message.text  # the token that is asked for


def is_own(url, address):
    return urlsplit(url).netloc == urlsplit(address).netloc


def row(page, name):
    return page.locator(".job", has_text=name)


def test_a_running_job_is_paused_and_resumed_by_clicks(open_page, folder, screenshots):
    with served(folder, "--refresh", "0.2") as (_, address), counting_worker(str(folder / "queue.db"), folder / "log"):
        page = open_page(address, 1440, 900)
        assert "token" not in page.url
        job = row(page, "digits-mlp")
        job.get_by_text("running").wait_for()
        job.get_by_text(re.compile(r"[1-9]\d* steps")).wait_for()
        job.get_by_role("button", name="pause job").click()
        job.locator(".state", has_text="paused").wait_for()
        page.screenshot(path=screenshots / "dashboard_paused.png")
        with JobQueue(str(folder / "queue.db")) as queue:
            assert queue.get(1).state is State.PAUSED
        job.get_by_role("button", name="resume job").click()
        job.locator(".state", has_text="running").wait_for()

        job.get_by_role("button", name="digits-mlp").click()
        page.get_by_role("dialog").get_by_text("MLP on digits, 1 run").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="left out").click()
        assert row(page, SCRIPT).is_visible()
        assert not job.is_visible()
        page.get_by_role("button", name=re.compile("^all")).click()
        page.get_by_label("Find jobs").fill("optimizer")
        assert not job.is_visible()
        assert row(page, "digits-optimizer").get_by_text("after 1").is_visible()
        page.context.close()  # before the server, whose end would be an error of the page


def test_a_phone_shows_everything_in_its_width_and_asks_for_the_token(open_page, folder, screenshots):
    with served(folder, "--refresh", "0.2") as (_, address):
        page = open_page(address.partition("#")[0], 390, 844, has_touch=True, is_mobile=True, color_scheme="dark")
        page.locator(".live.on").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        row(page, "digits-mlp").get_by_role("button", name="raise the priority").tap()
        page.locator("#token").fill(address.partition("token=")[2])
        page.get_by_role("button", name="Use it").tap()
        row(page, "digits-mlp").get_by_text("priority 3").wait_for()
        sizes = page.locator(".job button:visible:not(.name)").evaluate_all(
            "found => found.map(each => each.getBoundingClientRect().height)"
        )
        assert min(sizes) >= 40  # wide enough for a finger
        page.screenshot(path=screenshots / "dashboard_token.png", full_page=True)
        page.context.close()


@pytest.fixture
def busy(results, tmp_path):
    """The folder of a main job with a queue of many jobs, two of which run and have losses, and old checkpoints."""
    folder = shutil.copytree(results, tmp_path / "busy")
    runs = losses_in(f"sqlite:///{folder / 'mlflow.db'}", ("text-gpt", "table-mlp"))
    old_checkpoints(folder / "checkpoints" / "mnist")
    with JobQueue(str(folder / "queue.db")) as queue:
        claims, options = Claims(queue), {"folder": folder}
        for name, steps in (("digits-mlp", 1200), ("digits-cnn", 2400)):
            add(queue, name, **options)
            job = claims.claim(owner())
            claims.beat(job, steps)
            claims.done(job)
        failed = add(queue, "wide-mlp", **options)
        job = claims.claim(owner())
        claims.beat(job, 4800)
        claims.failed(job, "Diverged: MLP on digits, random seed 2: the loss is nan, after 312 steps. Try a lower lr")
        queue.skip(add(queue, "wide-cnn", **options).id)
        for number, (name, run_id) in enumerate(runs.items()):
            add(queue, name, **options)
            job = claims.claim(owner(f"cuda:{number}"))
            claims.add_run(job, run_id)
            claims.beat(job, 3120 // (number + 1))
            seen = WorkerRow("box", f"cuda:{number}", 1, None, f"cuda:{number}", job.id, 1, time.time(), time.time())
            claims.report_worker(seen)
        claims.report_worker(WorkerRow("attic", "cpu", 1, None, None, None, 1, time.time() - 200, time.time() - 200))
        queue.pause(add(queue, "images-vit", priority=5, **options).id)
        add(queue, "wide-optimizer", after=(failed.id,), **options)
        add(queue, "mnist-mlp", **options)
    return folder


def losses_in(store, names) -> dict[str, str]:
    """Runs with falling losses in a tracking store: their IDs by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow about its database
        client, found = connect(store), {}
    for place, name in enumerate(names):
        found[name] = client.create_run("0", run_name=name).info.run_id
        losses = [
            Metric(kind, 2.3 * math.exp(-step / (30 + 20 * place)) + floor + 0.02 * math.sin(step), 0, 40 * step)
            for kind, floor in (("train_loss", 0.2), ("val_loss", 0.4))
            for step in range(79)
        ]
        client.log_batch(found[name], losses)
    return found


def old_checkpoints(folder) -> None:
    """Six checkpoints of a month ago, with their sidecars."""
    for epoch in range(6):
        path = folder / f"PerceiverOptimizer_epoch_{epoch}.safetensors"
        origin = Origin(Generator("train-optimizer", "0.2.0", "0" * 64), ())
        facts = TrainingFacts("optimizer", "mnist", None, epoch, {"val_objective": abs(epoch - 2.0)}, origin)
        save_checkpoint(path, {"weights": torch.zeros(10_000)}, {}, facts)
        made = datetime.now(UTC) - timedelta(days=30)
        write_sealed(sidecar_path(path), replace(read_entry(path), created=made.isoformat()).to_mapping())


def picture(page, path):
    """A picture of the whole page, in a window of its height: what is outside of a window is not drawn."""
    page.evaluate("window.scrollTo(0, 0)")
    for _ in range(3):  # its height changes when more of it is drawn
        box = page.locator("main").bounding_box()
        height = math.ceil(box["y"] + box["height"])
        page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
        page.wait_for_timeout(300)
    page.screenshot(path=path)


@pytest.mark.slow
def test_the_plan_of_retention_and_the_lineage_are_shown(open_page, busy, screenshots):
    with served(busy, "--refresh", "0.5") as (_, address):
        page = open_page(address, 1440, 900)
        page.set_default_timeout(120_000)  # the losses and the lineage are read by slow processes
        row(page, "text-gpt").locator("polyline").first.wait_for()
        row(page, "table-mlp").locator("polyline").first.wait_for()
        page.get_by_text("would go by metaopt prune --apply true").wait_for()
        page.get_by_text("The plan").click()
        assert page.get_by_text("a copy of").count() == 0
        assert page.get_by_text("goes", exact=True).count() == 3
        page.get_by_text("the best of its run by val_objective").first.wait_for()
        latest = page.locator('details[data-open-part^="lineage"]', has_text="PerceiverOptimizer").last
        latest.locator("summary").click()
        latest.get_by_text("data set digits").wait_for()
        assert page.get_by_text("missing link").count() == 0
        page.get_by_text("The plan").click()
        picture(page, screenshots / "dashboard.png")
        page.context.close()
        phone = open_page(address, 390, 844, has_touch=True, is_mobile=True, color_scheme="dark")
        row(phone, "text-gpt").locator("polyline").first.wait_for()
        phone.get_by_text("would go by").wait_for()
        assert phone.evaluate("document.documentElement.scrollWidth") == 390
        picture(phone, screenshots / "dashboard_phone.png")
        phone.context.close()


@pytest.mark.slow
def test_a_training_of_a_real_worker_is_paused_by_a_click(open_page, chromium, tmp_path):
    with JobQueue(str(tmp_path / "queue.db")) as queue:
        queue.add(
            "train-target",
            {"run_name": "mlp", "target_model": "MLP", "runs": 1, "epochs": 5000},
            JobOptions(folder=tmp_path),
        )
    command = [sys.executable, "-m", "metaopt.cli", "worker", "--queue", "queue.db"]
    log = (tmp_path / "worker.log").open("w")
    worker = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    try:
        with served(tmp_path) as (_, address):
            page = open_page(address, 1200, 800)
            page.set_default_timeout(180_000)
            job = row(page, "mlp")
            job.get_by_text(re.compile(r"[1-9][\d,]* steps")).wait_for()
            job.locator("polyline").first.wait_for()
            job.get_by_role("button", name="pause job").click()
            job.locator(".state", has_text="paused").wait_for()
            page.context.close()
    finally:
        worker.terminate()
        worker.wait()
        log.close()
    assert [*tmp_path.glob("checkpoints/mlp/**/*.safetensors")]
