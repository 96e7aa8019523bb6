"""The registered model in MLflow: it works without metaopt and validates its input."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from torch import nn

from metaopt.core.devices import find_device
from metaopt.generative import get_optimizer_model
from metaopt.tracking import register_optimizer, start_run
from metaopt.tracking.pyfunc_model import NextWeights
from metaopt.weights.layout import Layout

LAYOUT = Layout.of(nn.Linear(4, 3))  # 15 weights
SAME_SIZE = [Layout.of(nn.Linear(5, 3)), Layout.of(nn.Linear(2, 6))]  # 18 weights each
TIMES = {"t_start": 100, "t_end": 130}

WITHOUT_METAOPT = """
import importlib.abc, sys
class Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "metaopt":
            raise ImportError("this environment has no metaopt")
sys.meta_path.insert(0, Forbidden())
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
history = numpy.load("history.npy")
numpy.save("result.npy", model.predict(history, params={"t_start": 100, "t_end": 130}))
assert "metaopt" not in sys.modules
"""


@pytest.fixture(scope="module")
def optimizer():
    model = get_optimizer_model("PerceiverOptimizer", dim=16, latent_dim=16, num_latents=4, heads=2, depth=1, hidden=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def uri(module_store, config, optimizer):
    with start_run("meta", config) as tracker:
        layouts = [LAYOUT, *SAME_SIZE]
        register_optimizer(
            tracker, optimizer, layouts, description="", tags={}, stride=10, facts={}, name="served", alias="champion"
        )
    return "models:/served@champion"


@pytest.fixture(scope="module")
def model(uri):
    return mlflow.pyfunc.load_model(uri)


@pytest.fixture
def history():
    return np.random.default_rng(0).normal(size=(3, 15)).astype(np.float32)


def direct(optimizer, history, times, layout=LAYOUT):
    given = torch.from_numpy(history)[None], torch.tensor([times]).float(), torch.tensor([130.0])
    return optimizer.predict(*given, layout).numpy()


@pytest.mark.parametrize("named", ["cpu", ""])
def test_it_predicts_on_the_device_that_the_environment_names(uri, optimizer, history, monkeypatch, named):
    """A test in tests/gpu names another device than that of the default."""
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", named)
    served = mlflow.pyfunc.load_model(uri)
    assert served.unwrap_python_model().device == find_device(named or "auto")
    result = served.predict(history, params=TIMES)
    np.testing.assert_allclose(result, direct(optimizer, history, [80, 90, 100]), rtol=1e-5)


@pytest.mark.parametrize("named", ["cuda:7", "gpu", "0"])
def test_a_device_that_is_not_there_is_an_error_when_the_model_is_loaded(uri, monkeypatch, named):
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", named)
    with pytest.raises(MlflowException, match=f"MLFLOW_DEFAULT_PREDICTION_DEVICE: device is '{named}'"):
        mlflow.pyfunc.load_model(uri)


def test_the_model_returns_the_prediction_of_the_optimizer(model, optimizer, history):
    result = model.predict(history, params=TIMES)
    assert (result.shape, result.dtype) == ((1, 15), np.float32)
    np.testing.assert_array_equal(result, direct(optimizer, history, [80, 90, 100]))
    assert not np.array_equal(result, history[-1:])


def test_a_history_may_have_one_row(model, optimizer, history):
    np.testing.assert_array_equal(model.predict(history[-1:], params=TIMES), direct(optimizer, history[-1:], [100]))


def test_the_stride_can_be_given(model, optimizer, history):
    result = model.predict(history, params={**TIMES, "stride": 25})
    np.testing.assert_array_equal(result, direct(optimizer, history, [50, 75, 100]))


def test_the_times_of_the_rows_can_be_given(model, optimizer, history):
    result = model.predict(history, params={"t_history": [80, 95, 100], "t_end": 130})
    np.testing.assert_array_equal(result, direct(optimizer, history, [80, 95, 100]))


def test_a_file_with_many_names_is_refused_quickly(model):
    entries = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(300_000)}
    text = json.dumps(entries).encode()
    column = pd.DataFrame({"history": [len(text).to_bytes(8, "little") + text]})
    start = time.process_time()
    with pytest.raises(MlflowException, match="its header has"):
        model.predict(column, params=TIMES)
    assert time.process_time() - start < 20


def test_rows_beyond_the_history_are_ignored(model, optimizer, history):
    many = np.concatenate([np.ones((9, 15), np.float32), *[history] * 2])
    assert optimizer.history < len(many)
    np.testing.assert_array_equal(
        model.predict(many, params=TIMES), model.predict(many[-optimizer.history :], params=TIMES)
    )


def test_a_layout_can_be_given(model, optimizer):
    other = Layout.of(nn.Linear(7, 2))
    history = np.ones((2, 16), np.float32)
    result = model.predict(history, params={**TIMES, "layout": json.dumps(other.to_list())})
    np.testing.assert_array_equal(result, direct(optimizer, history, [90, 100], other))


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        (lambda h: h.astype(np.float64), TIMES, "float64"),
        (lambda h: h.astype(np.float16), TIMES, "float16"),
        (lambda h: h[0], TIMES, "hape"),
        (lambda h: h[None], TIMES, "hape"),
        (lambda h: h[:0], TIMES, "snapshots ≥ 1"),
        (lambda h: h * np.float32("nan"), TIMES, "NaN"),
        (lambda h: h / np.float32(1e-45), TIMES, "infinity"),
        (lambda h: h[:, :7], TIMES, "7 weights per row match 0 .*15, 18, 18 weights.*layout"),
        (lambda h: np.ones((1, 18), np.float32), TIMES, "18 weights per row match 2"),
        (lambda h: h, {"t_start": 100, "t_end": 99}, "t_end ≥ t_start"),
        (lambda h: h, {"t_start": 100}, "lack t_end"),
        (lambda h: h, None, "lack t_end"),
        (lambda h: h, {"t_end": 130}, "lack t_start"),
        (lambda h: h, {**TIMES, "t_end": 1e308}, "at most 1e\\+15"),
        (lambda h: h, {**TIMES, "stride": 1e308}, "at most 1e\\+15"),
        (lambda h: h, {**TIMES, "stride": 51}, "before step 0.*t_history"),
        (lambda h: h * np.float32(1e38), {**TIMES, "t_end": 1e14}, "holds NaN or infinity"),
        (lambda h: h, {"t_end": 130, "t_history": [80, 90]}, "expected 3 increasing times"),
        (lambda h: h, {"t_end": 130, "t_history": [80, 80, 100]}, "expected 3 increasing times"),
        (lambda h: h, {"t_end": 130, "t_history": [80, 90, 1e300]}, "a time in t_history"),
        (lambda h: h, {"t_end": 99, "t_history": [80, 90, 100]}, "t_end ≥ t_start"),
        (lambda h: h, {**TIMES, "t_history": [80, 90, 100]}, "t_history and t_start are given"),
        (lambda h: h, {**TIMES, "layout": "[" * 10**5}, "layout is"),
        (lambda h: h, {**TIMES, "layout": '[["w", [1e400], "float32"]]'}, "not a layout"),
        (lambda h: h, {**TIMES, "strid": 3}, "unknown params strid"),
        (lambda h: h, {**TIMES, "x" * 10**5: 3}, "unknown params xxx"),
        (lambda h: h, {**TIMES, "stride": 0}, "stride > 0"),
        (lambda h: h, {**TIMES, "t_end": float("inf")}, "finite"),
        (lambda h: h, {**TIMES, "t_end": "soon"}, "t_end"),
        (lambda h: h, {**TIMES, "layout": "15"}, "not a layout"),
        (lambda h: h, {**TIMES, "layout": "{"}, "layout is '{'"),
        (lambda h: h, {**TIMES, "layout": json.dumps(SAME_SIZE[0].to_list())}, "15 weights per row; the layout"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero|overflow:RuntimeWarning")
def test_invalid_requests_are_rejected(model, history, change, params, message):
    with pytest.raises((ValueError, MlflowException), match=message) as error:
        model.predict(change(history), params=params)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("change", [lambda h: h.astype(np.float64), lambda h: h[0], lambda h: h.tolist()])
def test_invalid_requests_are_rejected_without_the_schema_of_mlflow(model, history, change):
    with pytest.raises(ValueError, match="expected"):
        model.unwrap_python_model().predict(None, change(history), TIMES)


def test_concurrent_predictions_equal_sequential_ones(model, history):
    ends = [100.0 + step for step in range(16)]
    alone = [model.predict(history, params={"t_start": 100, "t_end": end}) for end in ends]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda end: model.predict(history, params={"t_start": 100, "t_end": end}), ends)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_call_from_another_model_has_its_own_params(model, history):
    class Outer(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: np.ndarray, params=None):
            return model.unwrap_python_model().predict(None, history, TIMES)

    outer = mlflow.pyfunc.PyFuncModel(
        model.metadata, mlflow.pyfunc.model._PythonModelPyfuncWrapper(Outer(), None, None)
    )
    np.testing.assert_array_equal(
        outer.predict(history, params={**TIMES, "temperature": 1}), model.predict(history, params=TIMES)
    )


def test_versions_with_other_optimizers_load_in_one_process(model, module_store, config, history):
    given = {"description": "", "tags": {}, "stride": 10, "facts": {}, "name": "served", "alias": None}
    optimizers = [get_optimizer_model(name) for name in ("Line", "Average", "HopeOptimizer")]
    with start_run("meta", config) as tracker:
        versions = [register_optimizer(tracker, each, [LAYOUT], **given) for each in optimizers]
    for version, each in zip(versions, optimizers, strict=True):
        result = mlflow.pyfunc.load_model(f"models:/served/{version}").predict(history, params=TIMES)
        np.testing.assert_allclose(result, direct(each, history, [80, 90, 100]), rtol=1e-5, atol=1e-6)


def test_importing_the_module_sets_no_model():
    assert NextWeights.__module__ == "metaopt.tracking.pyfunc_model"


def test_the_model_works_without_metaopt(uri, module_store, optimizer, history, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    np.save(folder / "history.npy", history)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"MLFLOW_TRACKING_URI": f"sqlite:///{module_store / 'mlflow.db'}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_METAOPT, uri], cwd=folder, env=variables, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    result = np.load(folder / "result.npy")
    np.testing.assert_allclose(result, direct(optimizer, history, [80, 90, 100]), rtol=1e-6)
