"""The device of these tests; METAOPT_TEST_DEVICE names another than cuda, such as cpu to check the tests themselves."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    """The device, if torch finds it."""
    found = torch.device(os.environ.get("METAOPT_TEST_DEVICE", "cuda"))
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device; METAOPT_TEST_DEVICE=cpu runs these tests on the CPU")
    return found
