"""Every loop computes on the device of its network: in `FakeTensorMode`, tensors have a device and no values.

An operation on tensors of two devices, or one that needs a value, raises an error there. What needs values, such as the
decision to skip an update, is in functions that are not called here.
"""

from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from metaopt import targets
from metaopt.core.rng import generator
from metaopt.core.tracker import SilentTracker
from metaopt.diffusion import CaptionedShapes, TextToVideoConfig
from metaopt.evaluation import paired_runs
from metaopt.evaluation.baselines import DERIVED_BASELINES
from metaopt.evaluation.config import EvaluateConfig
from metaopt.evaluation.paired_runs import RunSetup
from metaopt.evaluation.predictions import state_at
from metaopt.evaluation.trainable_averaging import CombinationDescent
from metaopt.generative import GENERATIVE_OPTIMIZERS, outcomes
from metaopt.growth.blueprints import Blueprint
from metaopt.growth.rollback import Rollback
from metaopt.metatraining import mixture
from metaopt.metatraining import state as meta_state
from metaopt.metatraining.cohort import Cohort, OnlineSettings
from metaopt.metatraining.config import TrainOptimizerConfig
from metaopt.metatraining.lookahead import lookahead_update
from metaopt.metatraining.mixture import ComponentConfig, MixtureComponent
from metaopt.metatraining.offline import OfflineSource, pair_batches
from metaopt.metatraining.problem import InnerProblem
from metaopt.metatraining.state import MetaTrainingState
from metaopt.nowcast import NowcastPolicy
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.group import batched_step
from metaopt.recording.record import train_targets
from metaopt.recording.state import Step, TargetTrainingState
from metaopt.recording.training import take_step
from metaopt.reinforcement.config import EpisodeConfig
from metaopt.reinforcement.episode import Episode
from metaopt.reinforcement.problem import Problem
from metaopt.targets import TARGETS, target_config
from metaopt.tasks import Batch, load_task
from metaopt.tasks.language_model import LanguageModel
from metaopt.tasks.measure import example_losses
from metaopt.tasks.supervised import Classification, Regression
from metaopt.trajectories import WeightTrajectoryDataset
from metaopt.weights import scales, tokens

from ..growing import EPISODE, GROWTH

DEVICE = torch.device("lazy", 0)
"""A device that needs no runtime: gradients of fake tensors on DEVICE start its runtime."""

LANGUAGE_MODELS = ("GPT", "Hope", "TransformerHost")

SMALL = {"dim": 16, "num_latents": 4, "latent_dim": 16, "heads": 2, "depth": 1, "hidden": 16}


def with_values(function):
    """A function that leaves `FakeTensorMode` while it runs."""

    def call(*arguments, **keywords):
        with unset_fake_temporarily():
            return function(*arguments, **keywords)

    return call


@pytest.fixture
def device(monkeypatch):
    """Gives a device without memory. What is built, read or drawn on the CPU, and then moved, has values."""
    builder = targets._builder
    monkeypatch.setattr(
        targets,
        "_builder",
        lambda name: SimpleNamespace(build=with_values(builder(name).build), configure=builder(name).configure),
    )
    monkeypatch.setattr(meta_state, "get_optimizer_model", with_values(meta_state.get_optimizer_model))
    monkeypatch.setattr(meta_state, "deepcopy", lambda model: with_values(type(model))(model.config).to(DEVICE))
    monkeypatch.setattr(mixture, "_draw", with_values(mixture._draw))
    monkeypatch.setattr(OnlineSettings, "draw_gap", with_values(OnlineSettings.draw_gap))
    monkeypatch.setattr(WeightTrajectoryDataset, "batch", with_values(WeightTrajectoryDataset.batch))
    monkeypatch.setattr(paired_runs, "_draw", with_values(paired_runs._draw))
    monkeypatch.setattr(paired_runs, "find_device", lambda name: DEVICE)
    caches = (tokens.token_grid, scales._sample, outcomes._table)
    for cache in caches:
        cache.cache_clear()  # fake and real tensors do not mix
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield DEVICE
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(scope="module")
def digits():
    return load_task("digits")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The configuration of two short trajectories."""
    folder = tmp_path_factory.mktemp("recorded")
    config = TrainTargetConfig(
        run_name="mlp", target_model="MLP", target_options={"widths": [8]}, epochs=1, runs=2, snapshot_every=5,
        trajectory_dir=folder / "trajectories", checkpoint_dir=folder / "checkpoints",
    )  # fmt: skip
    train_targets(config, SilentTracker())
    return config


def facts_of(target, task):
    model_facts = {**task.model_facts, "vocab_size": 11, "block_size": 64}
    return {
        "task": "digits", "target_model": target, "target_config": target_config(target, model_facts, {}), "lr": 1e-3,
        "base_optimizer": "Adam", "base_optimizer_options": {}, "batch_size": 16, "seed": 0, "averaging": 0.9,
    }  # fmt: skip


def inputs_of(target, batch):
    """The batch, or tokens of its shape for language models, or rows of videos and tokens."""
    if target == "TextToVideo":
        config = TextToVideoConfig()
        labels = torch.zeros(len(batch.labels), prod(config.video_shape))
        return Batch(torch.zeros(len(labels), labels.shape[1] + 1 + config.prompt_length), labels)
    if target not in LANGUAGE_MODELS:
        return batch
    tokens = torch.zeros(len(batch.labels), 64, dtype=torch.long)
    return Batch(tokens, tokens)


@pytest.fixture
def batch(digits):
    """Listed before `device` by the tests: drawn with values, as the batches of a training are."""
    return next(digits.batches(16, 0, 0))


@pytest.mark.parametrize("target", TARGETS.names())
def test_a_step_of_recording(target, digits, batch, device):
    kind = LanguageModel if target in LANGUAGE_MODELS else CaptionedShapes if target == "TextToVideo" else None
    task = kind.__new__(kind) if kind else digits
    state = TargetTrainingState(facts_of(target, digits), task, device)
    loss = take_step(state.model, state.optimizer, task, inputs_of(target, batch).to(device))
    state.after_step(1.0)  # in place of the loss, whose value is unknown
    assert loss.device == device
    assert {tensor.device for tensor in state.recorded_weights(torch.float32).values()} == {device}
    assert state.layout.read(state.model).device == device


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}], ids=["plain", "batchnorm"])
def test_a_batched_step_of_several_recordings(options, digits, batch, device):
    facts = facts_of("ConvNet", digits)
    facts["target_config"] |= options
    states = [TargetTrainingState({**facts, "seed": seed}, digits, device) for seed in (0, 1)]
    assert batched_step([Step(state, batch) for state in states]).device == device


@pytest.mark.parametrize(
    ("task", "outputs", "labels"),
    [
        (Classification, (4, 10), torch.zeros(4, dtype=torch.long)),
        (Regression, (4, 1), torch.zeros(4)),
        (LanguageModel, (4, 8, 11), torch.zeros(4, 8, dtype=torch.long)),
    ],
)
def test_losses_and_metrics_of_a_task(task, outputs, labels, device):
    made = task.__new__(task)
    made._unit = 1.0
    outputs, labels = torch.zeros(outputs, device=device), labels.to(device)
    measured = [made.loss(outputs, labels), made.losses(outputs, labels), *made.metrics(outputs, labels).values()]
    assert {value.device for value in measured} == {device}


def options_of(optimizer):
    return SMALL if optimizer == "PerceiverOptimizer" else {}


@pytest.mark.parametrize("optimizer", GENERATIVE_OPTIMIZERS.names())
def test_an_update_on_recorded_pairs(optimizer, recorded, device):
    with unset_fake_temporarily():
        config = TrainOptimizerConfig(run_name="mlp", trajectory_dir=recorded.trajectory_dir, batch_size=2, held_out=1)
        source = OfflineSource(config, history=5, averaging=0.0)
        batch = next(pair_batches(source.training, source._order(0), config.batch_size))
    on_cpu, run = source.problems[batch.problem], source.training.trajectories[0].run
    source.problems[batch.problem] = InnerProblem(on_cpu.task, "MLP", run["target_config"], device=device)
    source.device = device
    state = meta_training(optimizer)
    scores = source._score(state.model, source.training, batch, 8, generator(0))
    assert {value.device for value in scores} == {device}
    check_gradient(state, scores.objective.mean())


@pytest.mark.parametrize("averaging", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", GENERATIVE_OPTIMIZERS.names())
def test_an_update_of_live_rounds(optimizer, averaging, component, device):
    settings = OnlineSettings(100, NowcastPolicy(20, 10), history=5, averaging=averaging, examples=8)
    cohort = Cohort(component, settings, seed=3)
    state = meta_training(optimizer)
    update = lookahead_update(state.model, cohort)
    trainings = cohort.trainings
    values = [trainings.weights, trainings.averaged, trainings.diverged, *trainings.history(), *update.metrics.values()]
    assert {value.device for value in values} == {device}
    check_gradient(state, update.objective)


@pytest.fixture
def component(device):
    """A component of a mixture, on DEVICE."""
    config = ComponentConfig(target_model="MLP", target_options={"widths": [8]}, rows=2, task_options={"shift": 0})
    with unset_fake_temporarily():
        task = load_task("digits", shift=0)  # shifting images needs their values
    network = target_config("MLP", task.model_facts, config.target_options)
    return MixtureComponent("mlp", config, InnerProblem(task, "MLP", network, device=device))


def meta_training(optimizer):
    options = SMALL if optimizer == "PerceiverOptimizer" else {}
    return MetaTrainingState(optimizer, options, seed=0, lr=1e-3, weight_decay=0.0, ema_decay=0.9, device=DEVICE)


def check_gradient(state, objective):
    """Differentiate, and take a step of AdamW."""
    assert objective.device == DEVICE
    if state._adamw:
        objective.backward()
        assert {parameter.grad.device for parameter in state.model.parameters()} == {DEVICE}
        state._take_step(state._adamw)


@pytest.mark.parametrize("optimizer", GENERATIVE_OPTIMIZERS.names())
def test_a_single_prediction_of_an_evaluation(optimizer, digits, device):
    setup = RunSetup(EvaluateConfig(target_model="MLP"), digits, seed=1000)
    model = meta_training(optimizer).predictor
    weights = setup.layout.read(setup.build())
    assert weights.device == device
    snapshots = {step: weights.cpu() for step in range(0, 200, 20)}
    predicted = state_at(setup, model, snapshots, 180).predict(model, setup.layout)
    setup.layout.write(setup._model, predicted)
    assert predicted.device == torch.device("cpu"), "the snapshots of an evaluation are on the CPU"


@pytest.mark.parametrize("name", DERIVED_BASELINES)
def test_derived_baselines_of_an_evaluation(name, device):
    derived = DERIVED_BASELINES[name]()
    for _ in range(12):
        derived.update(torch.zeros(9, device=device), snapshot=True)
    assert derived.weights().device == device


def test_losses_of_a_guard_and_of_a_validation_split(digits, device):
    setup = RunSetup(EvaluateConfig(target_model="ConvNet"), digits, seed=1000)
    batches = with_values(lambda: list(setup.guard_batches(40)))()
    assert example_losses(setup.build(), digits, batches).device == device
    assert {batch.inputs.device for batch in setup.batchnorm_batches} == {device}


def test_the_combination_of_snapshots(digits, batch, device):
    setup = RunSetup(EvaluateConfig(target_model="ConvNet"), digits, seed=1000)
    model = setup.build()
    snapshots = torch.ones(3, setup.layout.size, device=device)
    optimizer = CombinationDescent(model, setup.layout, snapshots, lr=0.1)
    take_step(model, optimizer, digits, batch.to(device))
    assert setup.layout.read(model).device == device


@pytest.fixture
def read_as_one(monkeypatch):
    """Every value that the host reads is 1."""
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: 1.0)
    monkeypatch.setattr(torch.Tensor, "__int__", lambda tensor: 1)


@pytest.mark.parametrize("initialisation", ["default", "gradmax"])
def test_an_episode_in_which_a_network_grows(initialisation, digits, device, read_as_one, monkeypatch):
    with unset_fake_temporarily():
        config = EpisodeConfig(**{**EPISODE, "growth_options": {**GROWTH, "initialisation": initialisation}})
        batches = [batch for epoch in range(2) for batch in digits.batches(32, 0, epoch)]
    monkeypatch.setattr(Blueprint, "build", with_values(Blueprint.build))
    monkeypatch.setattr(Rollback, "keep", lambda *_: None)  # fake tensors cannot be copied
    monkeypatch.setattr(EpisodeConfig, "load_task", lambda config: digits)
    for name in ("sample", "digest"):
        monkeypatch.setattr(type(digits), name, with_values(getattr(type(digits), name)))
    monkeypatch.setattr(Episode, "_stream", lambda episode: iter(batches))
    episode = Episode(Problem(config, device), random_seed=0)
    (slot,) = episode.growth.slots.values()
    names, stages = [action.name for action in episode._problem.actions], []
    while not episode.is_over:
        stages.append(slot.stage)
        slot.loss_with = 0.5  # so that the gates open
        following = [names.index(name) for name in ("ADVANCE", "GERMINATE_CONV") if episode.allowed[names.index(name)]]
        episode.act(next(iter(following), 0))
    assert stages[-1] == "fossilized"
    assert {parameter.device for parameter in episode.growth.model.parameters()} == {device}
    assert {tensor.device for state in episode.growth.optimizer.state.values() for tensor in state.values()
            if tensor.dim()} == {device}  # fmt: skip
