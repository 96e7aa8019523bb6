"""The device of these tests; METAOPT_TEST_DEVICE names another than cuda, such as cpu to check the tests themselves."""

import os
from contextlib import contextmanager

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    """The device, if torch finds it."""
    found = torch.device(os.environ.get("METAOPT_TEST_DEVICE", "cuda"))
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device; METAOPT_TEST_DEVICE=cpu runs these tests on the CPU")
    return found


@pytest.fixture
def waiting_is_an_error(device):
    """Gives a context in which an error is raised where the host waits for the device. Only CUDA reports that."""

    @contextmanager
    def context():
        if device.type != "cuda":
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return context
