"""Probes during a training describe it, and change nothing."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import InvalidConfig, UnknownName
from metaopt.core.tracker import SilentTracker
from metaopt.probes import PROBES, Probe, get_probe, run_probe, sample_examples
from metaopt.recording import run as recording_run
from metaopt.recording.probing import EXAMPLES
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.targets import get_target_model
from metaopt.tasks import load_task
from metaopt.trajectories import Trajectory
from metaopt.weights.model_files import load_model_weights

PROBED = ("weight-norms", "loss-line")


class Fails(Probe):
    """A probe with a mistake."""

    def measure(self, before, after, task, examples):
        raise ZeroDivisionError("a mistake")


class Meddles(Probe):
    """A probe that draws random numbers and changes modes."""

    def measure(self, before, after, task, examples):
        torch.rand(7)
        after.train()
        return get_probe("weight-norms").measure(before, after, task, examples)


class Kept(SilentTracker):
    """Keeps metrics by step, and texts."""

    def __init__(self):
        self.values, self.texts = {}, {}

    def metrics(self, values, step):
        self.values.setdefault(step, {}).update(values)

    def text(self, text, name):
        self.texts[name] = text

    def probed(self):
        """The metrics of probes by step."""
        own = {
            step: {name: value for name, value in found.items() if name.startswith("probe_")}
            for step, found in self.values.items()
        }
        return {step: found for step, found in own.items() if found}


@pytest.fixture
def config(tmp_path):
    return TrainTargetConfig(
        run_name="cnn",
        target_model="ConvNet",
        target_options={"norm": "batch", "widths": [4]},
        epochs=3,
        probes=PROBED,
        trajectory_dir=tmp_path / "trajectories",
        checkpoint_dir=tmp_path / "checkpoints",
    )


@pytest.fixture
def broken(monkeypatch):
    """Two more probes, one of which fails."""
    table = {**PROBES._table, "fails": f"{__name__}:Fails", "meddles": f"{__name__}:Meddles"}
    monkeypatch.setattr(PROBES, "_table", table)


def train(config):
    tracker = Kept()
    (folder,) = train_targets(config, tracker)
    return folder, tracker


def same_files(folder, other):
    return [path.read_bytes() for path in sorted(folder.glob("*.safetensors"))] == [
        path.read_bytes() for path in sorted(other.glob("*.safetensors"))
    ]


DROPOUT = {"n_layer": 1, "n_embd": 8, "n_head": 2, "dropout": 0.1}


@pytest.mark.parametrize("network", [{}, {"target_model": "VisionTransformer", "target_options": DROPOUT, "epochs": 2}])
def test_a_training_with_probes_has_the_same_weights_bit_for_bit(config, broken, network):
    """With BatchNorm, whose statistics a forward pass changes, and with dropout, which draws random numbers."""
    config = replace(config, **network)
    probed, tracker = train(replace(config, probes=(*PROBED, "meddles")))
    plain, silent = train(replace(config, run_name="plain", probes=()))
    assert same_files(probed, plain)
    assert tracker.probed()
    assert not silent.probed()
    assert "report.md" not in silent.texts


def test_metrics_are_the_values_between_the_first_step_and_each_epoch(config):
    folder, tracker = train(config)
    trajectory, task = Trajectory.open(folder), load_task("digits")
    assert [*tracker.probed()] == trajectory.steps[1:]
    before, after = (get_target_model("ConvNet", **trajectory.run["target_config"]) for _ in range(2))
    load_model_weights(before, trajectory.snapshots[0].path)
    load_model_weights(after, trajectory.snapshots[-1].path)
    expected = {}
    for name in PROBED:
        values = run_probe(get_probe(name), before, after, task, sample_examples(task, "validation", EXAMPLES)).values
        expected |= {f"probe_{name.replace('-', '_')}_{value}": number for value, number in values.items()}
    assert tracker.probed()[trajectory.steps[-1]] == pytest.approx(expected)
    assert "## loss-line" in tracker.texts["report.md"]
    assert f"| norm_ratio | {expected['probe_weight_norms_norm_ratio']:.4g} |" in tracker.texts["report.md"]


@pytest.mark.parametrize("keep_last", [0, 1])
def test_a_resumed_training_has_the_metrics_of_an_uninterrupted_one(config, keep_last):
    config = replace(config, keep_last=keep_last)
    whole, uninterrupted = train(replace(config, run_name="whole"))
    train(replace(config, epochs=1))
    resumed, tracker = train(replace(config, resume=True))
    assert same_files(whole, resumed)
    last = [*uninterrupted.probed()][1:]
    assert tracker.probed() == {step: uninterrupted.probed()[step] for step in last}
    assert tracker.texts["report.md"] == uninterrupted.texts["report.md"]


def test_a_probe_that_fails_is_a_warning(config, broken, caplog):
    _, tracker = train(replace(config, epochs=1, probes=("fails", "weight-norms")))
    assert "the probe fails failed: ZeroDivisionError: a mistake" in caplog.text
    assert {name.split("_")[1] for name in tracker.probed()[15]} == {"weight"}


INVALID = {
    "unknown": ({"probes": ("weigth-norms",)}, UnknownName, "did you mean weight-norms"),
    "not for this network": ({"probes": ("embedding-drift",)}, InvalidConfig, "does not apply to ConvNet"),
    "twice": ({"probes": ("spectrum", "spectrum")}, InvalidConfig, "give each one once"),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_probe_that_cannot_run_is_an_error_before_training(config, name, monkeypatch):
    change, error, message = INVALID[name]
    monkeypatch.setattr(recording_run, "run_steps", lambda *_: pytest.fail("it trains"))
    with pytest.raises(error, match=message):
        train(replace(config, **change))
    assert not config.trajectory_dir.exists()


def test_networks_that_grow_have_no_probes(config):
    with pytest.raises(InvalidConfig, match="this one grows"):
        replace(config, controller="wait")


def test_all_probes_that_apply(config):
    _, tracker = train(replace(config, epochs=1, probes="all"))
    assert {name.split("_")[1] for name in tracker.probed()[15]} == {"dead", "delta", "loss", "spectrum", "weight"}
