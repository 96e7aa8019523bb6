"""Nowcast takes registered optimizers by their address, and only then imports MLflow; what its page shows runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import metaopt
from metaopt.core.errors import TrackingError
from metaopt.generative import get_optimizer_model
from metaopt.tracking import register_optimizer, start_run
from metaopt.weights.layout import Layout

PAGE = (Path(__file__).parents[2] / "docs" / "nowcast.md").read_text(encoding="utf-8")
NEEDS = {"transformers": "transformers", "lightning": "lightning"}
"""Packages that an example needs, by a word that stands in it."""


@pytest.fixture
def champion(store, config):
    with start_run("meta", config) as tracker:
        register_optimizer(
            tracker,
            get_optimizer_model("Line"),
            [Layout.of(nn.Linear(4, 3))],
            name="metaopt-digits-MLP",
            description="for tests",
            tags={},
            stride=10.0,
            facts={},
            alias="champion",
        )


def adam(model):
    return torch.optim.Adam(model.parameters())


def test_an_address_takes_the_place_of_an_optimizer(champion):
    model = nn.Linear(4, 3)
    optimizer = metaopt.Nowcast(adam(model), model, "models:/metaopt-digits-MLP@champion", max_overhead=None)
    assert type(optimizer.forecaster).__name__ == "Line"
    with pytest.raises(TrackingError, match="cannot load an optimizer from models:/metaopt-digits-MLP@nobody"):
        metaopt.Nowcast(adam(model), model, "models:/metaopt-digits-MLP@nobody", max_overhead=None)
    with pytest.raises(TrackingError, match=r"no optimizer at 'nowhere\.safetensors'"):
        metaopt.Nowcast(adam(model), model, "nowhere.safetensors", max_overhead=None)


def test_mlflow_is_imported_only_for_an_address():
    code = "import sys, metaopt; assert 'mlflow' not in sys.modules and 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore")
def test_what_the_page_shows_runs_in_its_order(champion):
    known = {}
    for block in blocks():
        for word, package in NEEDS.items():
            if word in block:
                pytest.importorskip(package)
        exec(compile(block, "docs/nowcast.md", "exec"), known)
    assert known["optimizer"].events
