"""Fixtures that several kinds of tests share: known randomness, public data, an MLflow store per test."""

import logging
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread_and_known_randomness():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def fake_cuda():
    """The name of a device without memory: tensors have shapes and devices, but no values.

    Operations on tensors of two devices and values that the host asks for raise errors, as far as PyTorch knows them.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from metaopt.generative import outcomes
    from metaopt.weights import scales, tokens

    kept = (tokens.token_grid, scales._sample, outcomes._table)
    for cache in kept:
        cache.cache_clear()  # fake and real tensors do not mix
    with FakeTensorMode():
        yield "cuda"
    for cache in kept:
        cache.cache_clear()


@pytest.fixture(autouse=True)
def _levels_of_loggers():
    """The command line sets these levels for its process; later tests see all messages again."""
    logging.getLogger("metaopt").setLevel(logging.NOTSET)
    logging.getLogger("mlflow").setLevel(logging.INFO)


@pytest.fixture
def decorated_blueprints():
    """Forgets the blueprints that a test adds: actions of controllers follow from all of them."""
    from metaopt.growth.blueprints import _DECORATED

    kept = dict(_DECORATED)
    yield
    _DECORATED.clear()
    _DECORATED.update(kept)


@pytest.fixture(scope="session")
def real_data():
    """Gives the folder of public data that holds some file, where the machine has it."""
    folder = Path(os.environ.get("METAOPT_TEST_DATA", SHARED_DATA))

    def holding(place: str) -> Path:
        if not (folder / place).exists():
            pytest.skip(f"no {place} in {folder}; set METAOPT_TEST_DATA to a folder that holds it")
        return folder

    return holding


@pytest.fixture(scope="session")
def mnist_dir(real_data) -> Path:
    """Folder that holds MNIST/raw, where the machine has it."""
    return real_data("MNIST/raw/train-images-idx3-ubyte")


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory):
    """A cache folder of its own for each file of tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def import_mlflow():
    """MLflow with the modules that warn at import, about themselves or about SQLAlchemy 2.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store
    return mlflow


@pytest.fixture(scope="session")
def store_template(tmp_path_factory):
    """An empty store, which takes seconds to create: tests copy it."""
    mlflow = import_mlflow()
    from metaopt.tracking import connect

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # MLflow keeps files of its first experiment in the working directory
        connect(f"sqlite:///{path}")
    mlflow.set_tracking_uri(None)
    return path


@contextmanager
def working_in(folder, template):
    """Make a folder the working directory, with a store in it and no setting for another store."""
    mlflow = import_mlflow()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        shutil.copyfile(template, folder / "mlflow.db")
        patch.chdir(folder)
        yield folder
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(None)


@pytest.fixture
def store(store_template, tmp_path):
    """A working directory of its own with a store in it."""
    with working_in(tmp_path, store_template) as folder:
        yield folder


@pytest.fixture(scope="module")
def module_store(store_template, tmp_path_factory):
    """The same for what is too slow to repeat for each test of a module."""
    with working_in(tmp_path_factory.mktemp("module"), store_template) as folder:
        yield folder


@pytest.fixture(scope="module")
def command_line(module_store):
    """Runs `metaopt` in this process, in a folder with a store of its own."""
    from click.testing import CliRunner

    from metaopt.cli import cli

    return lambda *arguments: CliRunner().invoke(cli, list(map(str, arguments)))
