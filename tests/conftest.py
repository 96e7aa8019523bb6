"""Fixtures that several kinds of tests share."""

import os
from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread_and_known_randomness():
    torch.set_num_threads(1)
    torch.manual_seed(0)


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
