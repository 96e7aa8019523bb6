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
def mnist_dir() -> Path:
    """Folder that holds MNIST/raw, where the machine has it."""
    folder = Path(os.environ.get("METAOPT_TEST_DATA", SHARED_DATA))
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"no MNIST files in {folder}; set METAOPT_TEST_DATA to a folder that holds MNIST/raw")
    return folder
