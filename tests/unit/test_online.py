"""Online meta-training: rounds, warm-up, resuming, and invalid settings."""

from dataclasses import replace

import pytest
import torch

from metaopt.core.errors import InvalidConfig, MetaoptError
from metaopt.core.rng import generator
from metaopt.core.tracker import SilentTracker
from metaopt.generative import get_optimizer_model
from metaopt.generative.extrapolation import Line
from metaopt.generative.files import save_optimizer
from metaopt.metatraining.cohort import Cohort, OnlineSettings, WarmUpTrainings
from metaopt.metatraining.lookahead import lookahead_update
from metaopt.metatraining.online import OnlineSource
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.nowcast import NowcastPolicy

SMALL = {"dim": 16, "num_latents": 4, "latent_dim": 16, "heads": 2, "depth": 1}


@pytest.fixture
def config(mixture, tmp_path):
    return TrainOptimizerConfig(
        rounds=2,
        mixture=mixture,
        inner_steps=60,
        every=20,
        stride=10,
        task_batch=32,
        optimizer_options=SMALL,
        checkpoint_every=1,
        checkpoint_dir=tmp_path / "checkpoints",
    )


@pytest.mark.parametrize(("min_cosine", "followed"), [(-1.0, True), (1.0, False)])
def test_the_minimal_cosine_is_a_setting(config, min_cosine, followed):
    source = OnlineSource(replace(config, min_cosine=min_cosine), history=5, averaging=0.9)
    cohort = Cohort(source.components[0], source.inner, seed=3)
    cohort.trainings.advance(60)
    assert (lookahead_update(Line(), cohort).metrics["followed"] > 0) == followed


class DatasetTracker(SilentTracker):
    def __init__(self):
        self.datasets = []

    def dataset(self, name, source, digest, context):
        self.datasets.append((name, context))


def test_a_data_set_of_several_components_is_logged_once(config):
    tracker = DatasetTracker()
    OnlineSource(config, history=5, averaging=0.98).log_data(tracker)
    assert tracker.datasets == [("digits", "mlp, cnn")]


def test_rounds_train_and_validate(config):
    trained = train_optimizer(config, SilentTracker())
    assert trained.training_names == ["mlp", "cnn"]
    assert len(trained.layouts) == 2
    assert {"train_log_loss_change", "val_speedup/mlp", "val_speedup/cnn"} <= trained.metrics.keys()
    assert trained.checkpoint.parent.name == "mixture"


@pytest.mark.parametrize(
    ("optimizer", "options"), [("PerceiverOptimizer", SMALL), ("HopeOptimizer", {"dim": 8, "keys": 4, "history": 5})]
)
def test_resumed_rounds_give_the_bytes_of_an_uninterrupted_training(config, optimizer, options):
    config = replace(config, optimizer_model=optimizer, optimizer_options=options)
    whole = train_optimizer(config, SilentTracker())
    first = train_optimizer(replace(config, rounds=1, checkpoint_name="two"), SilentTracker())
    second = train_optimizer(replace(config, rounds=1, checkpoint_name="two"), SilentTracker(), first.checkpoint)
    assert second.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_rounds_can_start_from_a_trained_optimizer(config, tmp_path):
    first = train_optimizer(replace(config, rounds=1, lr=1e-2), SilentTracker())
    changes = {"optimizer_options": {}, "start_from": str(first.checkpoint), "lr": 1e-12, "weight_decay": 0.0}
    second = train_optimizer(replace(config, rounds=1, checkpoint_name="two", **changes), SilentTracker())
    assert second.optimizer.config == first.optimizer.config
    for name, value in second.optimizer.state_dict().items():
        torch.testing.assert_close(value, first.optimizer.state_dict()[name], msg=name)


def test_an_optimizer_of_another_class_is_rejected_as_a_start(config, tmp_path):
    save_optimizer(get_optimizer_model("Line"), tmp_path / "line.safetensors")
    with pytest.raises(InvalidConfig, match=r"start_from is a Line, and optimizer_model PerceiverOptimizer"):
        train_optimizer(
            replace(config, optimizer_options={}, start_from=str(tmp_path / "line.safetensors")), SilentTracker()
        )
    with pytest.raises(InvalidConfig, match="leave the options out"):
        replace(config, start_from="builtin")


@pytest.mark.parametrize("change", [{"rounds": 0}, {"every": 15}])
def test_contradictory_settings_are_rejected(config, change):
    with pytest.raises(MetaoptError, match=r"rounds|every"):
        replace(config, **change)


def test_warm_up_histories_come_from_all_stages_of_training(mlp):
    settings = OnlineSettings(60, NowcastPolicy(20, 10), history=4, averaging=0.9, examples=8)
    warm_up = WarmUpTrainings(mlp, settings, generator(3))
    history, times = warm_up.draw(generator(4))
    assert history.shape == (16, 4, mlp.problem.layout.size)
    assert times.max() <= 60
    assert len(times[:, -1].unique()) > 3
    assert (times[:, 1:] >= times[:, :-1]).all()
    start, same = times[:, 0] == 0, times[:, 1] == times[:, 0]
    assert torch.equal(history[start & same][:, 0], history[start & same][:, 1])  # missing snapshots are copies
    assert torch.equal(warm_up.draw(generator(4))[0], history)


def test_a_warm_up_changes_the_result_and_can_be_resumed(config):
    warmed = replace(config, warm_up=5)
    whole = train_optimizer(warmed, SilentTracker())
    first = train_optimizer(replace(warmed, rounds=1, checkpoint_name="two"), SilentTracker())
    second = train_optimizer(replace(warmed, rounds=1, checkpoint_name="two"), SilentTracker(), first.checkpoint)
    assert second.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    cold = train_optimizer(replace(config, checkpoint_name="cold"), SilentTracker())
    assert not torch.equal(
        cold.optimizer.state_dict()["coefficients.weight"], whole.optimizer.state_dict()["coefficients.weight"]
    )
