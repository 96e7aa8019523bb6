"""Devices and threads: which device a name means, and how many threads an operation uses."""

import os
import subprocess
import sys

import pytest
import torch

from metaopt.cli.project import CONFIGS
from metaopt.core.devices import ComputeConfig, find_device, move, threads_for
from metaopt.core.errors import InvalidConfig
from metaopt.core.rng import random_states, restore_random_states


@pytest.fixture
def machine(monkeypatch):
    """Replaces what torch finds: an accelerator with a number of devices, of which the second is the current one."""

    def has(kind, count):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: count - 1)

    return has


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in ("register", "compare")])
def test_every_command_that_computes_has_the_options(name):
    given = CONFIGS[name].from_mapping({"device": "cuda:1", "threads": 3})
    assert (given.device, given.threads) == ("cuda:1", 3)
    assert CONFIGS[name]().device == "auto"


def test_the_main_job_hands_the_options_to_each_phase(tmp_path):
    config = CONFIGS["main"](device="cuda:1", threads=3)
    for phase in (config.target(), config.optimizer(), config.evaluation(tmp_path)):
        assert (phase.device, phase.threads) == ("cuda:1", 3)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "1"])
def test_a_name_that_is_no_device_is_refused(name):
    with pytest.raises(InvalidConfig, match="expected cpu, auto, or an accelerator"):
        ComputeConfig(device=name)


@pytest.mark.parametrize(
    ("kind", "count", "name", "found"),
    [
        ("cuda", 0, "auto", "cpu"),
        ("cuda", 2, "auto", "cuda:1"),
        ("cuda", 2, "cuda", "cuda:1"),
        ("cuda", 2, "cuda:0", "cuda:0"),
        ("cuda", 2, "cpu", "cpu"),
        ("mps", 1, "auto", "mps:0"),
        ("mps", 1, "mps", "mps:0"),
    ],
)
def test_the_device_of_a_name(machine, kind, count, name, found):
    machine(kind, count)
    assert find_device(name) == torch.device(found)


@pytest.mark.parametrize(("count", "name", "present"), [(0, "cuda", "only cpu;"), (2, "cuda:2", "cpu, cuda:0, cuda:1")])
def test_a_missing_device_is_refused_with_those_that_exist(machine, count, name, present):
    machine("cuda", count)
    with pytest.raises(InvalidConfig, match=present):
        find_device(name)


@pytest.mark.parametrize("threads", [-1, 1025, 10**9, 2**63 - 1])
def test_a_number_of_threads_that_no_machine_has_is_refused(threads):
    with pytest.raises(InvalidConfig, match=r"threads is .*; expected"):
        ComputeConfig(threads=threads)


def test_small_work_runs_on_one_thread(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    for weights, threads, used in ((6_570, 0, 1), (10_000_000, 0, 2), (6_570, 2, 2), (10_000_000, 1, 1)):
        with threads_for(weights, threads):
            assert torch.get_num_threads() == used
        assert torch.get_num_threads() == 2


def test_omp_num_threads_is_respected(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    with threads_for(6_570):
        assert torch.get_num_threads() == 2


def test_states_of_a_machine_with_more_devices_can_be_restored():
    states = random_states()
    expected = torch.rand(3)
    restore_random_states({**states, "cuda": [torch.zeros(16, dtype=torch.uint8)] * 8})
    assert torch.equal(torch.rand(3), expected)


def test_moving_to_the_same_device_copies_nothing():
    tensor = torch.ones(3)
    assert move(tensor, torch.device("cpu")) is tensor


def test_threads_of_the_command_line_sleep_while_they_wait():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-m", "metaopt.cli", "list", "tasks"]
    shown = subprocess.run(command, env={**environment, "OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown.stderr
