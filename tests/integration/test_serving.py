"""A registered optimizer over HTTP: the examples of docs/serving.md with a real `mlflow models serve`."""

import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from safetensors.numpy import load, save
from torch import nn

from metaopt.generative import get_optimizer_model
from metaopt.tracking import register_optimizer, start_run
from metaopt.weights.layout import Layout

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
TIMES = {"t_start": 400, "t_end": 480, "stride": 20}
START_WITHIN = 180  # [seconds]; a busy machine takes most of a minute


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def registered(module_store, config):
    """The URI of a version of an optimizer that changes weights and takes averages of them."""
    model = get_optimizer_model("PerceiverOptimizer", dim=16, latent_dim=16, num_latents=4, heads=2, averaging=0.98)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    layouts = [Layout.of(nn.Linear(4, 3))]
    with start_run("meta", config) as tracker:
        given = {"description": "", "tags": {}, "stride": 20, "facts": {}, "alias": "champion"}
        register_optimizer(tracker, model.eval(), layouts, name="metaopt-digits-MLP", **given)
    return "models:/metaopt-digits-MLP@champion"


@pytest.fixture(scope="module")
def history():
    return np.random.default_rng(0).normal(size=(3, 15)).astype(np.float32)


@pytest.fixture(scope="module")
def model(registered):
    return mlflow.pyfunc.load_model(registered)


@pytest.fixture(scope="module")
def expected(model, history):
    result = model.predict(history, params=TIMES)
    assert not np.array_equal(result, history[-1:])
    return result


@pytest.fixture(scope="module", params=["in a thread", pytest.param("by command", marks=pytest.mark.slow)])
def port(request, registered, module_store):
    """Port of the served version: by MLflow's server in a thread, or by the command of the page."""
    start = in_a_thread if request.param == "in a thread" else by_command
    with start(registered, free_port(), module_store) as port:
        yield port


@contextmanager
def in_a_thread(address: str, port: int, folder: Path) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # `init` sets it and does not restore it
        app = scoring_server.init(mlflow.pyfunc.load_model(address))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", thread.is_alive)
            yield port
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def by_command(address: str, port: int, folder: Path) -> Iterator[int]:
    (command,) = blocks("bash")
    words = shlex.split(command.replace("5001", str(port)))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    store = f"sqlite:///{folder / 'mlflow.db'}"
    variables = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": store}
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", lambda: process.poll() is None)
        assert log.read_text(encoding="utf-8").count("moving average of the weights (decay 0.98)") == 1
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def wait_for(url: str, runs: Callable[[], bool]) -> None:
    end = time.monotonic() + START_WITHIN
    while time.monotonic() < end and runs():
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server does not answer")


def in_column(history: np.ndarray) -> dict:
    file = base64.b64encode(save({"history": history})).decode()
    return {"dataframe_split": {"columns": ["history"], "data": [[file]]}, "params": TIMES}


def test_the_client_of_the_page_returns_the_same_prediction(port, history, expected, module_store):
    np.save(module_store / "history.npy", history)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block.replace("5001", str(port)), "serving.md", "exec"), names)
    np.testing.assert_array_equal(names["weights"], expected)
    assert names["facts"]["averaging"] == 0.98


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"t_start": 400}}, "params lack t_end"),
        ({"params": {**TIMES, "strid": 3}}, "unknown params strid"),
        ({"params": {**TIMES, "layout": "15"}}, "not a layout"),
        ({"dataframe_split": {"columns": ["history"], "data": [["no file"]]}}, "expected a safetensors file"),
        ({"dataframe_split": {"columns": ["weights"], "data": [["x"]]}}, "missing inputs ['history']"),
        ({"dataframe_split": None, "inputs": [[1.0, 2.0]]}, "2 weights per row match 0"),
        ({"dataframe_split": None, "inputs": [[1.0, 2.0], [1.0]]}, "history is shape (2,)"),
        ({"dataframe_split": None, "inputs": [["a", "b"]]}, "history is not a table of numbers"),
    ],
)
def test_an_invalid_request_has_status_400_and_a_reason(port, history, change, message):
    payload = {key: value for key, value in {**in_column(history), **change}.items() if value is not None}
    request = Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(payload).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(HTTPError) as caught:
        urlopen(request)
    with caught.value as response:
        assert response.code == 400
        assert message in json.load(response)["message"]


@pytest.mark.parametrize("encode", [bytes, lambda file: base64.b64encode(file).decode(), base64.encodebytes])
def test_a_column_returns_the_same_prediction_as_an_array(model, history, expected, encode):
    file = encode(save({"history": history}))
    if encode is base64.encodebytes:  # broken into lines, as MLflow itself writes it
        file = file.decode()
    (row,) = model.predict(pd.DataFrame({"history": [file]}), params=TIMES)
    weights = row["weights"] if isinstance(file, bytes) else base64.b64decode(row["weights"])
    np.testing.assert_array_equal(load(weights)["weights"], expected)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (lambda h: [save({"history": h})] * 2, "column history has 2 rows"),
        (lambda h: [save({"history": h})[:-1]], "column history cannot be read"),
        (lambda h: ["ä"], "column history cannot be read"),
        (lambda h: [save({"past": h})], r"holds \['past'\]"),
        (lambda h: [save({"history": h.astype(np.float64)})], "float64; expected float32"),
        (lambda h: [save({"history": h[0]})], "shape"),
    ],
)
def test_invalid_columns_are_rejected(model, history, column, message):
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(pd.DataFrame({"history": column(history)}), params=TIMES)
    assert isinstance(caught.value, ValueError)


def test_only_an_optimizer_of_averages_logs_a_warning(model, registered, module_store, config, caplog):
    mlflow.pyfunc.load_model(registered)
    assert caplog.text.count("decay 0.98") == 1
    caplog.clear()
    with start_run("meta", config) as tracker:
        options = {"description": "", "tags": {}, "stride": 10, "facts": {}, "name": "plain", "alias": "champion"}
        register_optimizer(tracker, get_optimizer_model("Line"), [Layout.of(nn.Linear(4, 3))], **options)
    facts = mlflow.pyfunc.load_model("models:/plain@champion").metadata.metadata
    assert (facts["snapshots_are"], facts["averaging"], facts["stride"]) == ("the weights", 0.0, 10.0)
    assert "moving average" not in caplog.text
