"""Fixtures of the tests that run commands or use a real MLflow store."""

import shlex
import warnings

import pytest

with warnings.catch_warnings():  # MLflow warns about itself, and SQLAlchemy 2.1 about MLflow, at import
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

from metaopt.core.config import Config, option
from metaopt.tracking import connect

SMALLER = {
    "main": "--runs 4 --target-epochs 2 --optimizer-epochs 1 --pairs-per-epoch 16 --generations 1 --steps 40 "
    "--every 20 --seeds 1",
    "train-target": "--epochs 2 --runs 2 --workers 1",
    "train-optimizer": "--epochs 1 --pairs-per-epoch 8 --objective weights "
    "--optimizer-options 'dim=16 num_latents=2 latent_dim=16 heads=2'",
    "train-controller": "--steps 60 --episodes 2 --n-envs 2 --train-seeds 2",
    "evaluate": "--steps 40 --every 20 --seeds 1 --learning-rates 0.001 --controls false --baselines quick",
    "evaluate-controller": "--seeds 1",
    "compare": "--seeds 2",
    "register": "",
    "generate": "",
    "export-adapter": "",
    "inspect": "",
    "diagnose": "--examples 32",
    "validate": "",
    "campaign": "",
    "config": "",
    "hosts": "",
    "queue": "",
    "reports": "",
    "ledger": "",
    "lineage": "",
    "prune": "",
    "list": "",
    "upload": "",
}
"""Flags that make each command cheap; the last of two equal flags wins."""

LIVE = "--rounds 1 --inner-steps 40 --every 20"
"""The same for online meta-training."""

SMALL_PRESET = "--n-layer 1 --n-embd 16"
"""The same for a network with a preset."""


class TrainingConfig(Config):
    epochs: int = option(default=3, help="How many.")
    lr: float = option(default=1e-3, help="How fast.")
    note: str | None = option(default=None, help="Anything.")


@pytest.fixture
def client(store):
    return connect()


@pytest.fixture(scope="session")
def config():
    return TrainingConfig()


@pytest.fixture(scope="module")
def in_small(command_line):
    """Runs a command that a document shows, with flags that make it cheap."""

    def run(arguments):
        smaller = SMALLER[arguments[0]]
        smaller += f" {LIVE}" * ("--rounds" in arguments) + f" {SMALL_PRESET}" * ("--preset" in arguments)
        result = command_line(*arguments, *shlex.split(smaller))
        assert result.exit_code == 0, f"{arguments}: {result.output}"

    return run
