"""Fine-tuning: adapters, initial weights and modes in recordings, in phase 2 and in evaluations."""

import gc
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from metaopt import Trajectory, get_target_model, load_model_weights
from metaopt.adapters import (
    FineTuning,
    FineTuningConfig,
    adapt_as,
    adapters_of,
    export_adapter,
    fine_tuning,
    load_adapter,
    read_initial_weights,
    within_budget,
)
from metaopt.adapters.lora import described_adapters
from metaopt.adapters.merging import tensors_of
from metaopt.core.devices import CPU
from metaopt.core.errors import CheckpointError, FileFormatError, InvalidConfig, LayoutMismatch
from metaopt.core.tracker import SilentTracker
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import RunSetup, train_contender
from metaopt.evaluation.runner import PairedEvaluation
from metaopt.generative import get_optimizer_model
from metaopt.metatraining.problem import InnerProblem, problem_key
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.recording.record import TrainTargetConfig, prepared_recording, train_targets
from metaopt.recording.state import TargetTrainingState
from metaopt.tasks import load_task
from metaopt.trajectories import read_whole_network
from metaopt.workflows.generate_weights import GenerateConfig, predict_weights

LORA = {"adapter": "lora", "include": "layers", "rank": 2, "alpha": 2.0}


class Listener(nn.Module):
    """A network with an encoder, as those of text-conditioned diffusion."""

    def __init__(self, in_features: int = 64, classes: int = 10, cache_embeddings: bool = False):
        super().__init__()
        self.encoder, self.head = nn.Linear(in_features, 8), nn.Linear(8, classes)
        self.config = SimpleNamespace(cache_embeddings=cache_embeddings)

    def forward(self, inputs):
        return self.head(self.encoder(inputs.flatten(1)).relu())


def config_of(folder, **options):
    return TrainTargetConfig(
        **{
            "run_name": "tuned",
            "target_model": "MLP",
            "target_options": {"widths": [8]},
            "lr": "1e-2",
            "batch_size": 256,
            "epochs": 2,
            "snapshot_every": 2,
            "trajectory_dir": folder / "trajectories",
            "checkpoint_dir": folder / "checkpoints",
            **options,
        }
    )


def record(folder, **options):
    return train_targets(config_of(folder, **options), SilentTracker())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fine_tuning")


@pytest.fixture(scope="module")
def base(folder):
    """A recorded network."""
    return record(folder, run_name="base")[0]


@pytest.fixture(scope="module")
def tuned(folder, base):
    """Two recorded adapters of that network, each within a budget."""
    return record(folder, **LORA, initial_weights=base, delta_budget=0.05, runs=2)


def test_only_adapters_are_recorded_and_the_base_once(base, tuned):
    trajectory = Trajectory.open(tuned[0])
    names = [tensor.name for tensor in trajectory.layout.tensors]
    assert names == [f"layers.{layer}.lora_{part}.default.weight" for layer in (1, 3) for part in "AB"]
    start = read_whole_network(base)[0]
    frozen = {name.replace("base_layer.", ""): tensor for name, tensor in trajectory.frozen().items()}
    assert frozen.keys() == start.keys()
    assert all(tensor.equal(start[name]) for name, tensor in frozen.items())
    assert trajectory.losses(0)["val_loss"] == Trajectory.open(base).losses(-1)["val_loss"]
    assert trajectory.losses(-1)["val_loss"] < trajectory.losses(0)["val_loss"]


def test_every_snapshot_is_within_the_budget(tuned):
    trajectory = Trajectory.open(tuned[0])
    model = get_target_model("MLP", **trajectory.run["target_config"])
    adapt_as(model, trajectory.snapshots[0].path)
    shares = []
    for snapshot in trajectory.snapshots:
        model.load_state_dict(read_whole_network(snapshot.path)[0])
        shares += [(each.scale * (each.up @ each.down)).norm() / each.base.norm() for each in adapters_of(model)]
    assert 0.0499 < max(shares) <= 0.05 * (1 + 1e-6)


def largest_share(path):
    """The largest share in a trajectory or a file of weights, from its tensors alone."""
    tensors, facts = read_whole_network(path)
    return max(
        (each.up.double() @ each.down.double()).norm() * facts["run"]["adapter"]["alpha"]
        / facts["run"]["adapter"]["rank"] / each.base.double().norm()
        for each in tensors_of(tensors, described_adapters(facts["run"]["adapter"])).values()
    )  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"averaging": 0.9}, {"base_optimizer": "AdamWScheduleFree"}, {"snapshot_dtype": "bfloat16"}]
)
def test_what_is_recorded_is_within_the_budget(folder, base, options):
    cap = {"initial_weights": base, "delta_budget": 0.05, "lr": "0.3", "epochs": 4}
    (recorded,) = record(folder, **LORA, **cap, **options, run_name="average", overwrite=True)
    shares = [largest_share(snapshot.path) for snapshot in Trajectory.open(recorded).snapshots]
    assert 0.04 < max(shares) <= 0.05 * (1 + 1e-6)


def test_generated_adapters_are_within_the_budget(folder, tuned):
    config = GenerateConfig(trajectory=tuned[0], t_end=500.0, output=folder / "far.safetensors")
    generated = predict_weights(config, get_optimizer_model("Line")).write()
    assert 0.0499 < largest_share(generated.path) <= 0.05 * (1 + 1e-6)


@pytest.mark.parametrize(
    "run",
    [
        {"delta_budget": 0.1, "adapter": {}},
        {"delta_budget": {"cap": 0.1, "caps": 1}},
        {"delta_budget": {"cap": 1, "caps": {}}},
    ],
)
def test_facts_that_state_no_budget_are_refused(run):
    with pytest.raises(LayoutMismatch, match="is no budget of adapters; expected a cap, caps and adapters"):
        within_budget({}, run)


def test_a_resumed_recording_equals_an_uninterrupted_one(folder, base, tuned):
    options = {**LORA, "initial_weights": base, "delta_budget": 0.05, "run_name": "resumed"}
    record(folder, **options, epochs=1)
    (resumed,) = record(folder, **options, resume=True)
    last = [Trajectory.open(each).snapshots[-1].path.read_bytes() for each in (resumed, tuned[0])]
    assert last[0] == last[1]
    with pytest.raises(CheckpointError, match="initial_weights"):
        record(folder, **{**options, "initial_weights": tuned[0]}, resume=True)


def count_readings(monkeypatch):
    """A list that gets an entry for each reading of initial weights."""
    read = []

    def reading(*arguments, **options):
        read.append(arguments)
        return read_initial_weights(*arguments, **options)

    monkeypatch.setattr(fine_tuning, "read_initial_weights", reading)
    return read


def test_initial_weights_are_read_once_for_all_runs(folder, base, monkeypatch):
    read = count_readings(monkeypatch)
    for resume in (False, True):
        record(folder, **LORA, initial_weights=base, run_name="read", runs=2, epochs=1, resume=resume)
        assert len(read) == 1
        read.clear()


def test_a_prepared_recording_holds_no_network(folder, base):
    with prepared_recording(config_of(folder, **LORA, initial_weights=base, run_name="held")):
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is TargetTrainingState]


def test_networks_that_train_side_by_side_equal_those_that_train_alone(folder, base, tuned):
    together = record(folder, **LORA, initial_weights=base, delta_budget=0.05, runs=2, vectorize=2, run_name="both")
    for one, other in zip(tuned, together, strict=True):
        torch.testing.assert_close(Trajectory.open(one).weights(-1), Trajectory.open(other).weights(-1))


def test_a_recording_of_adapters_begins_another_with_them_merged(folder, tuned):
    (again,) = record(folder, initial_weights=tuned[0], run_name="again", epochs=1)
    first, last = Trajectory.open(again).losses(0), Trajectory.open(tuned[0]).losses(-1)
    assert first["val_loss"] == pytest.approx(last["val_loss"], rel=1e-5)


def test_phase_2_learns_from_adapters_with_their_base(folder, tuned):
    problem = InnerProblem.from_trajectory(Trajectory.open(tuned[0]))
    trajectory, task = Trajectory.open(tuned[0]), load_task("digits")
    loss = problem.losses(trajectory.weights(-1)[None], task.splits["validation"][:])
    assert loss.item() == pytest.approx(trajectory.losses(-1)["val_loss"], rel=1e-4)
    assert len({problem_key(Trajectory.open(each)) for each in tuned}) == 1
    trained = train_optimizer(
        TrainOptimizerConfig(
            run_name="tuned",
            optimizer_options={"dim": 8, "num_latents": 4, "latent_dim": 8, "depth": 1},
            epochs=1,
            trajectory_dir=folder / "trajectories",
            checkpoint_dir=folder / "checkpoints",
        ),
        SilentTracker(),
    )
    assert trained.problem_names == ["MLP with lora on digits"]


def test_generated_adapters_are_loaded_and_exported(folder, tuned):
    generated = folder / "next.safetensors"
    config = GenerateConfig(trajectory=tuned[0], t_end=20.0, output=generated)
    predict_weights(config, get_optimizer_model("Line")).write()
    trajectory = Trajectory.open(tuned[0])
    model = get_target_model("MLP", **trajectory.run["target_config"])
    with pytest.raises(LayoutMismatch, match=r"call metaopt\.adapters\.adapt_as\(model, file\) before"):
        load_model_weights(model, generated)
    load_model_weights(adapt_as(model, generated), generated)
    other = get_target_model("MLP", **trajectory.run["target_config"])
    start = {name.replace("base_layer.", ""): tensor for name, tensor in trajectory.frozen().items()}
    other.load_state_dict(start)
    exported = export_adapter(generated, folder / "exported")
    inputs = torch.randn(3, 64)
    assert load_adapter(other, exported.folder)(inputs).equal(model(inputs))


def test_an_evaluation_trains_what_a_recording_trains(folder, base):
    options = {**LORA, "initial_weights": base, "delta_budget": 0.05, "lr": 1e-2, "batch_size": 256}
    config = EvaluateConfig(
        **options, target_model="MLP", target_options={"widths": [8]}, steps=40, every=20, stride=10, evaluate_every=20
    )
    setup = RunSetup(config, config_of(folder).load_task(), seed=0)
    start = setup.validation_loss(setup.layout.read(setup.build()))
    curve = train_contender(setup, "line", get_optimizer_model("Line"))
    assert setup.layout.size == 2 * (64 + 8) + 2 * (8 + 10)
    assert start == pytest.approx(Trajectory.open(base).losses(-1)["val_loss"], rel=1e-5)
    assert curve.points[-1].loss < start
    assert len(curve.events) == 2


def test_an_evaluation_reads_initial_weights_once(base, monkeypatch):
    read = count_readings(monkeypatch)
    config = EvaluateConfig(
        **LORA, initial_weights=base, lr=1e-2, batch_size=256, target_model="MLP", target_options={"widths": [8]},
        steps=20, every=10, stride=5, evaluate_every=10, seeds=2, controls=False, baselines="none", cache_dir=None,
    )  # fmt: skip
    task = config_of(Path()).load_task()
    PairedEvaluation(config, task, {"line": get_optimizer_model("Line")}).compare()
    assert len(read) == 1


def test_a_forecast_stays_within_the_budget(folder, base):
    config = EvaluateConfig(
        **LORA, initial_weights=base, delta_budget=0.02, lr=1e-2, batch_size=256, target_model="MLP",
        target_options={"widths": [8]}, steps=40, every=20, stride=10, evaluate_every=20,
    )  # fmt: skip
    setup = RunSetup(config, config_of(folder).load_task(), seed=0)
    model, shares = setup.build(), []

    def observe(step, weights, optimizer):
        setup.layout.write(model, weights)
        shares.extend((each.scale * (each.up @ each.down)).norm() / each.base.norm() for each in adapters_of(model))

    train_contender(setup, "line", get_optimizer_model("Line"), observe)
    assert 0.0199 < max(shares) <= 0.02 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "adapter"}, "mode is adapter without an adapter: the weights of the base would be trained"),
        ({"mode": "encoder-finetune", **LORA}, "adapter is lora, which freezes the encoder: leave one of them out"),
        ({"mode": "encoder-finetune", "space": "x"}, "the mode decides what is trained"),
        ({"mode": "adapter", "space": "x", **LORA}, "the mode decides what is trained"),
        ({"mode": "both"}, "mode is 'both': known are encoder-finetune, adapter"),
        ({"delta_budget": 0.1}, "a delta budget is one of adapters; give adapter=lora"),
        ({"delta_budgets": {"x": 0.1}}, "a delta budget is one of adapters; give adapter=lora"),
        ({**LORA, "delta_budget": 0}, "delta_budget is 0.0; expected more than 0"),
        ({**LORA, "rank": 0}, "rank is 0; expected 1 or more"),
        ({"rank": 4}, "rank is given without an adapter; give adapter=lora"),
        ({"alpha": 4.0}, "alpha is given without an adapter; give adapter=lora"),
        ({"space": "("}, "no regular expression"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(InvalidConfig, match=message):
        FineTuningConfig(**options)


def test_a_controller_and_an_adapter_are_refused(tmp_path):
    with pytest.raises(InvalidConfig, match="adapters freeze the network, and a controller lets it grow"):
        config_of(tmp_path, **LORA, controller="wait")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**LORA, "include": "attention"}, "matches none of the 2 matrices"),
        ({**LORA, "include": "("}, "no regular expression"),
        ({**LORA, "layers": "7-9"}, "expected layers that exist"),
        ({**LORA, "delta_budgets": {"attention": 0.1}}, "for no adapted matrix"),
        ({"mode": "encoder-finetune"}, "MLP has no module named encoder"),
        ({"initial_weights": Path("none")}, "which does not exist"),
    ],
)
def test_what_does_not_fit_the_network_is_refused_before_the_first_step(tmp_path, options, message):
    with pytest.raises(InvalidConfig, match=message):
        record(tmp_path, **options)
    assert not (tmp_path / "trajectories").exists()


def test_encoder_finetuning_trains_the_encoder_alone(tmp_path):
    config = config_of(tmp_path, target_model=f"{__name__}:Listener", target_options={}, mode="encoder-finetune")
    state = TargetTrainingState.from_config(config, config.load_task(), CPU)
    assert [tensor.name for tensor in state.layout.tensors] == ["encoder.weight", "encoder.bias"]


def test_cached_embeddings_and_a_training_encoder_are_refused():
    config = FineTuningConfig(mode="encoder-finetune")
    with pytest.raises(InvalidConfig, match=r"mode is encoder-finetune, and cache_embeddings .* would do nothing"):
        FineTuning(config, partial(Listener, cache_embeddings=True))
    both = FineTuningConfig(space="encoder|transformer")
    with pytest.raises(
        InvalidConfig, match=r"space is 'encoder\|transformer', which matches encoder\..* cache_embeddings"
    ):
        FineTuning(both, partial(Listener, cache_embeddings=True))
    FineTuning(both, Listener)
    FineTuning(FineTuningConfig(space="^(?!encoder)"), partial(Listener, cache_embeddings=True))
    with pytest.raises(InvalidConfig, match="the encoder of Listener is frozen: nothing would train"):
        FineTuning(config, lambda: Listener().requires_grad_(False))


def test_exports_of_other_networks_are_refused(tmp_path, base, tuned):
    with pytest.raises(LayoutMismatch, match="has no adapters; expected a recording of"):
        export_adapter(base, tmp_path / "none")
    with pytest.raises(InvalidConfig, match=r"module is 'layers\.3', but the adapter of 'layers\.1' is not in it"):
        export_adapter(tuned[0], tmp_path / "part", "layers.3")
    assert not [*tmp_path.iterdir()]
    exported = export_adapter(tuned[0], tmp_path / "exported").folder
    config = Trajectory.open(tuned[0]).run["target_config"]
    with pytest.raises(InvalidConfig, match="is an adapter of another base"):
        load_adapter(get_target_model("MLP", **config), exported)
    with pytest.raises(LayoutMismatch, match=r"Linear has no matrix 'layers\.1', which"):
        load_adapter(nn.Linear(2, 2), exported)
    (exported / "adapter_model.safetensors").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(FileFormatError):
        load_adapter(get_target_model("MLP", **config), exported)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda metadata, tensors: metadata.update(
                metaopt_adapter=metadata["metaopt_adapter"].replace('"rank": 2', '"rank": 1000000000')
            ),
            r"has no A of shape \(1000000000, 64\) for 'layers.1'",
        ),
        (lambda metadata, tensors: next(iter(tensors.values())).fill_(torch.nan), "cannot be used: .* NaN or infinity"),
    ],
)
def test_a_changed_export_changes_nothing(tmp_path, base, tuned, damage, message):
    from safetensors import safe_open
    from safetensors.torch import save_file

    exported = export_adapter(tuned[0], tmp_path / "exported").folder / "adapter_model.safetensors"
    with safe_open(exported, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    damage(metadata, tensors)
    save_file(tensors, exported, metadata)
    model = get_target_model("MLP", **Trajectory.open(base).run["target_config"])
    load_model_weights(model, Trajectory.open(base).snapshots[-1].path)
    with pytest.raises(FileFormatError, match=message):
        load_adapter(model, exported.parent)
    assert next(adapters_of(model), None) is None


def test_peft_loads_an_export(tmp_path, base, tuned):
    import peft

    exported = export_adapter(tuned[0], tmp_path / "exported").folder
    trajectory, inputs = Trajectory.open(tuned[0]), torch.randn(3, 64)
    network = partial(get_target_model, "MLP", **trajectory.run["target_config"])
    whole = adapt_as(network(), trajectory.snapshots[-1].path)
    whole.load_state_dict(read_whole_network(tuned[0])[0])
    theirs = network()
    load_model_weights(theirs, Trajectory.open(base).snapshots[-1].path)
    loaded = peft.PeftModel.from_pretrained(theirs, str(exported))
    assert loaded(inputs).equal(whole(inputs))
