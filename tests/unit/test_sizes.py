"""Networks beyond the memory of the machine are refused before they are built, with the option to lower."""

import resource
import time
from pathlib import Path

import pytest

from metaopt.core.errors import InvalidConfig
from metaopt.evaluation.config import EvaluateConfig
from metaopt.metatraining.mixture import read_mixture
from metaopt.metatraining.state import MetaTrainingState
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.record import prepared_recording
from metaopt.weights import building
from metaopt.workflows.evaluate_optimizer import check_case

HUGE = 10**7


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Fail if a test takes seconds of CPU or a gigabyte; the machine has 16 GB."""
    monkeypatch.setattr(building, "memory_size", lambda: 2**34)
    start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 4.0  # imports included
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**20  # [kB]


def test_more_latents_than_attention_can_compare():
    with pytest.raises(InvalidConfig, match="num_latents is 10000000; expected 100000 or less"):
        MetaTrainingState("PerceiverOptimizer", {"num_latents": HUGE}, seed=0, lr=1e-3, weight_decay=0.0, ema_decay=0.9)


@pytest.mark.parametrize("option", ["hidden", "dim", "latent_dim", "heads"])
def test_a_generative_optimizer(option):
    with pytest.raises(InvalidConfig, match=rf"fit into the 16 GB of memory.*lower {option} \(10000000\)"):
        MetaTrainingState("PerceiverOptimizer", {option: HUGE}, seed=0, lr=1e-3, weight_decay=0.0, ema_decay=0.9)


def test_the_network_of_an_evaluation():
    config = EvaluateConfig(target_model="MLP", target_options={"widths": [HUGE, HUGE]})
    with pytest.raises(InvalidConfig, match=r"16 GB of memory.*lower widths \(\[10000000, 10000000\]\)"):
        check_case(config)


def test_the_network_of_a_recording(tmp_path):
    config = TrainTargetConfig(
        target_model="MLP", target_options={"widths": [HUGE, HUGE]}, trajectory_dir=tmp_path / "new"
    )
    with pytest.raises(InvalidConfig, match=r"16 GB of memory.*lower widths"), prepared_recording(config):
        pass
    assert not (tmp_path / "new").exists()


def test_a_network_of_a_mixture(tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text(f"large: {{target_options: {{widths: [{HUGE}, {HUGE}]}}}}\n", encoding="utf-8")
    with pytest.raises(InvalidConfig, match=r"large in the mixture: .*16 GB of memory.*lower widths"):
        read_mixture(path)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.undo()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(building, "_CONTAINER_LIMIT", limit)
    whole = building.memory_size()
    for text, size in (("max\n", whole), (f"{2**20}\n", 2**20)):
        limit.write_text(text, encoding="ascii")
        assert building.memory_size() == size
    monkeypatch.setattr(building, "_CONTAINER_LIMIT", Path("nowhere"))
    assert building.memory_size() == whole
