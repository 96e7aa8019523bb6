"""Phase 2 with a curriculum: which data a stage has, its metrics, resuming, and invalid stages."""

from dataclasses import replace

import pytest

from metaopt.core.errors import CheckpointError, InvalidConfig
from metaopt.core.tracker import SilentTracker
from metaopt.metatraining.curriculum import StageConfig, read_curriculum
from metaopt.metatraining.offline import OfflineSource, _extent, _pairs_of
from metaopt.metatraining.online import OnlineSource
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.recording.record import TrainTargetConfig, train_targets

SMALL = {"dim": 8, "num_latents": 4, "latent_dim": 8, "heads": 1, "depth": 1, "hidden": 8}
OFFLINE = """
checkpoints: 1
advance_at: 1.5
step_back_at: 9
stages:
- {horizon: 4, weights: 700}
- {horizon: 4}
- {}
"""
ONLINE = """
metric: speedup
checkpoints: 1
advance_at: 0.01
step_back_at: 0.001
stages:
- {components: [mlp], horizon: 20, inner_steps: 40}
- {}
"""


class Metrics(SilentTracker):
    """Keeps the metrics of each epoch."""

    def __init__(self):
        self.values = []

    def metrics(self, values, step):
        self.values.append(values)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two runs of a small and of a larger network."""
    folder = tmp_path_factory.mktemp("recorded")
    for name, width in (("small", 8), ("large", 24)):
        options = {
            "target_model": "MLP",
            "target_options": {"widths": [width]},
            "runs": 2,
            "epochs": 3,
            "batch_size": 256,
        }
        folders = {"trajectory_dir": folder, "checkpoint_dir": folder / "checkpoints"}
        train_targets(TrainTargetConfig(run_name=name, **options, **folders), SilentTracker())
    return folder


@pytest.fixture
def offline(recorded, tmp_path):
    (tmp_path / "curriculum.yaml").write_text(OFFLINE)
    return TrainOptimizerConfig(
        run_name="small,large",
        optimizer_options=SMALL,
        objective="weights",
        epochs=3,
        held_out=2,
        seed=1,
        curriculum=tmp_path / "curriculum.yaml",
        trajectory_dir=recorded,
        checkpoint_dir=tmp_path / "checkpoints",
    )


@pytest.fixture
def online(mixture, tmp_path):
    (tmp_path / "curriculum.yaml").write_text(ONLINE)
    return TrainOptimizerConfig(
        rounds=2,
        mixture=mixture,
        curriculum=tmp_path / "curriculum.yaml",
        inner_steps=60,
        every=20,
        stride=10,
        task_batch=32,
        optimizer_options=SMALL,
        checkpoint_every=1,
        checkpoint_dir=tmp_path / "checkpoints",
    )


@pytest.mark.parametrize(
    "stage", [StageConfig(horizon=4), StageConfig(weights=700), StageConfig(horizon=4, weights=700)]
)
def test_a_stage_has_the_pairs_within_its_bounds(offline, stage):
    dataset = OfflineSource(offline, history=2, averaging=0.0).training
    kept = [
        (horizon, weights)
        for horizon, weights in (_extent(dataset, index) for index in _pairs_of(dataset, range(len(dataset)), stage))
    ]
    everything = [_extent(dataset, index) for index in range(len(dataset))]
    expected = [(h, w) for h, w in everything if h <= (stage.horizon or 10**9) and w <= (stage.weights or 10**9)]
    assert kept == expected
    assert 0 < len(kept) < len(everything)


def test_the_stage_is_a_metric_and_advances(offline):
    tracker = Metrics()
    train_optimizer(offline, tracker)
    assert [values["curriculum_stage"] for values in tracker.values] == [1, 2, 3]
    first, last = tracker.values[0], tracker.values[-1]
    assert first["val_stage_relative_error"] != first["val_relative_error"]
    assert last["val_stage_relative_error"] == last["val_relative_error"]


@pytest.mark.parametrize("source", ["offline", "online"])
def test_a_resumed_curriculum_gives_the_bytes_of_an_uninterrupted_one(source, request):
    config = request.getfixturevalue(source)
    length = "rounds" if source == "online" else "epochs"
    whole = train_optimizer(config, SilentTracker())
    parts = replace(config, checkpoint_name="parts")
    first = train_optimizer(replace(parts, **{length: 1}), SilentTracker())
    rest = replace(parts, **{length: getattr(config, length) - 1})
    assert train_optimizer(rest, SilentTracker(), first.checkpoint).checkpoint.read_bytes() == (
        whole.checkpoint.read_bytes()
    )


@pytest.mark.parametrize("change", ["none", "other"])
def test_another_curriculum_cannot_resume(offline, change):
    first = train_optimizer(replace(offline, epochs=1), SilentTracker())
    if change == "other":
        offline.curriculum.write_text(OFFLINE.replace("horizon: 4", "horizon: 8"))
    config = offline if change == "other" else replace(offline, curriculum=None)
    with pytest.raises(CheckpointError, match=r"its settings\.curriculum.* is "):
        train_optimizer(config, SilentTracker(), first.checkpoint)


def test_a_stage_chooses_components_lengths_and_horizons(online):
    source, (easy, everything) = OnlineSource(online, 5, 0.98), read_curriculum(online.curriculum).stages
    assert [each.name for each in source._components(easy)] == ["mlp"]
    assert (source._inner(easy).steps, source._inner(easy).policy.all_horizons) == (40, (10,))
    assert [each.name for each in source._components(everything)] == ["mlp", "cnn"]
    assert source._inner(everything) == source.inner
    sizes = [each.problem.layout.size for each in source.components]
    assert len(source._components(StageConfig(weights=min(sizes)))) == 1


def test_online_stages_train_their_components(online):
    tracker = Metrics()
    train_optimizer(online, tracker)
    trained = [
        {name.partition("/")[2] for name in each if name.startswith("train_kept/")} for each in tracker.values[:2]
    ]
    assert trained == [{"mlp"}, {"mlp", "cnn"}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- {}", "- {horizon: 1}", "stage 3 of the curriculum has no pair of snapshots to train on"),
        ("- {}", "- {components: [mlp]}", "stage 3 of the curriculum has components or inner_steps"),
        ("checkpoints: 1", "metric: speedup\ncheckpoints: 1", "a higher speedup is better"),
        ("checkpoints: 1", "metric: log_loss_change\ncheckpoints: 1", "expected relative_error, objective"),
    ],
)
def test_stages_that_do_not_fit_recordings_are_refused(offline, old, new, message):
    offline.curriculum.write_text(OFFLINE.replace(old, new))
    with pytest.raises(InvalidConfig, match=message):
        train_optimizer(offline, SilentTracker())
    assert not offline.checkpoint_dir.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[mlp]", "[mpl]", "stage 1 of the curriculum names the component 'mpl': did you mean mlp"),
        ("- {}", "- {weights: 3}", "stage 2 of the curriculum has no component of at most 3 weights"),
        ("metric: speedup", "metric: objective", "expected speedup or final_log_ratio|worse value"),
    ],
)
def test_stages_that_do_not_fit_a_mixture_are_refused(online, old, new, message):
    online.curriculum.write_text(ONLINE.replace(old, new))
    with pytest.raises(InvalidConfig, match=message):
        train_optimizer(online, SilentTracker())


def test_a_curriculum_needs_held_out_trajectories(offline):
    with pytest.raises(InvalidConfig, match=r"to validate on.* held-out trajectories"):
        train_optimizer(replace(offline, held_out=0), SilentTracker())
