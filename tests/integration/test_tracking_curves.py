"""The losses that the dashboard shows, read from a real store, without importing torch."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from metaopt.core.errors import TrackingError
from metaopt.tracking.curves import loss_curves, page_of_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(client):
    """Starts a run with metrics: the values of each name, by step."""

    def start_run(name="run", parent=None, **metrics):
        tags = {} if parent is None else {MLFLOW_PARENT_RUN_ID: parent}
        run_id = client.create_run("0", tags=tags, run_name=name, start_time=int(time.time_ns() / 1e6)).info.run_id
        logged = [
            Metric(key, value, 0, step) for key, values in metrics.items() for step, value in dict(values).items()
        ]
        client.log_batch(run_id, logged)
        return run_id

    return start_run


@pytest.fixture
def address(store):
    """Address of the store, which does not depend on the working directory."""
    return f"sqlite:///{store / 'mlflow.db'}"


@pytest.fixture
def curves(address):
    return lambda run_id: loss_curves(run_id, address).curves


def test_losses_are_in_the_order_of_their_steps_and_finite(start, curves):
    run_id = start(
        train_loss={30: 0.5, 0: 2.0, 10: math.nan, 20: math.inf}, val_loss={0: 2.5, 30: 1.0}, accuracy={0: 1}
    )
    train, validation = curves(run_id)
    assert train == (run_id, "run", "train_loss", [0, 30], [2.0, 0.5])
    assert validation == (run_id, "run", "val_loss", [0, 30], [2.5, 1.0])


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        (("train_loss", "train_objective"), ["train_loss"]),
        (("val_objective", "return"), ["val_objective"]),
        (("train_log_loss_change",), ["train_log_loss_change"]),
        (("return", "kl"), ["return"]),
        (("accuracy",), []),
    ],
)
def test_the_losses_of_each_phase_are_known(start, curves, logged, shown):
    run_id = start(**{name: {0: 1.0, 1: 0.5} for name in logged})
    assert [curve.metric for curve in curves(run_id)] == shown


def test_a_long_curve_is_thinned_out_evenly(start, curves):
    (curve,) = curves(start(train_loss={step: float(step) for step in range(1000)}))
    assert (len(curve.steps), curve.steps[0], curve.steps[-1]) == (80, 0, 999)
    assert curve.values == [float(step) for step in curve.steps]
    gaps = {after - before for before, after in zip(curve.steps, curve.steps[1:], strict=False)}
    assert gaps <= {12, 13}


def test_a_run_without_losses_shows_those_of_its_latest_child(start, curves):
    main = start("main")
    phase = start("phase 1", main)
    start("seed 0", phase, train_loss={0: 1.0, 1: 0.5})
    time.sleep(0.01)
    start("seed 1", phase, train_loss={0: 3.0, 1: 2.0})
    (curve,) = curves(main)
    assert (curve.run_name, curve.values) == ("seed 1", [3.0, 2.0])


def test_a_single_value_of_a_run_is_shown_if_no_child_has_a_curve(start, curves):
    parent = start("several", val_loss={10: 0.3})
    start("seed 0", parent, accuracy={0: 1.0})
    assert [curve.values for curve in curves(parent)] == [[0.3]]


def test_a_page_has_the_experiment_and_the_run(start, address):
    run_id = start()
    curves, page = loss_curves(run_id, address)
    assert curves == []
    assert page == page_of_run(run_id, address)
    assert page.startswith(f"/#/experiments/0/runs/{run_id}")


@pytest.mark.parametrize("read", [loss_curves, page_of_run])
def test_a_run_that_does_not_exist_is_an_error(address, read):
    with pytest.raises(TrackingError, match="0000"):
        read("0" * 32, address)


def test_the_process_beside_the_dashboard_reads_losses_without_torch(start, store, address):
    run_id = start(train_loss={0: 1.0, 1: 0.5})
    code = (
        "import sys; from metaopt.operations.dashboard.readings import read_losses; "
        f"print(read_losses({run_id!r}, {address!r}, None).curves[0].values, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=store, env=environment, capture_output=True, text=True)
    assert done.stdout == "[1.0, 0.5] False\n", done.stderr


def test_the_store_says_which_checkpoints_are_registered_without_torch(store):
    code = "import sys; from metaopt.tracking import registered_checkpoints as r; print(*r(), 'torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=store, env=environment, capture_output=True, text=True)
    assert done.stdout == "{} {} False\n", done.stderr
