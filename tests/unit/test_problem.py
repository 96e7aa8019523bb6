"""Inner problems measure the losses of the recorded training, or raise if they cannot be rebuilt."""

import pytest
import torch
from torch import nn

from metaopt.core.errors import InvalidConfig, LayoutMismatch, MetaoptError, TaskDataError, TrajectoryError, UnknownName
from metaopt.core.rng import generator
from metaopt.metatraining.problem import InnerProblem, problem_key
from metaopt.recording import functional
from metaopt.targets import get_target_model, target_config
from metaopt.tasks import load_task, task_config
from metaopt.trajectories import Recorder, Trajectory
from metaopt.weights.layout import Layout

FACTS = {"in_features": 64, "in_channels": 1, "image_size": 8, "classes": 10}
DIGITS = {"task": "digits", "task_config": {}}


def build(target="MLP", options=None, frozen=()):
    config = target_config(target, FACTS, {} if options is None else options)
    model = get_target_model(target, **config)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return model, {**DIGITS, "target_model": target, "target_config": config}


def record(folder, model, run):
    Recorder(folder, run, Layout.of(model)).record(model, 0, 0, {})
    return Trajectory.open(folder)


def examples(count=24):
    return load_task("digits").sample("meta", count, generator(3))


@torch.no_grad()
def loss_in_place(model, layout, weights, batch):
    """The loss as in training: the weights in the network, BatchNorm on the batch."""
    layout.write(model, weights)
    for module in model.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    return nn.functional.cross_entropy(model(batch.inputs), batch.labels)


@pytest.mark.parametrize(
    ("target", "options", "frozen"),
    [
        ("MLP", {"widths": [12]}, ()),
        ("MLP", {"widths": [12]}, ("layers.1.weight", "layers.1.bias")),
        ("TargetCNN", {}, ()),
        ("ResNet18", {}, ()),
    ],
)
def test_losses_equal_those_of_a_network_with_these_weights(tmp_path, target, options, frozen):
    model, run = build(target, options, frozen)
    trajectory = record(tmp_path, model, run)
    problem, batch = InnerProblem.from_trajectory(trajectory), examples()
    start = trajectory.weights(0)
    weights = torch.stack([start, start + 0.01 * torch.randn_like(start)])
    weights.requires_grad_()
    losses = problem.losses(weights, batch)
    expected = [loss_in_place(model, trajectory.layout, each, batch) for each in weights.detach()]
    torch.testing.assert_close(losses.detach(), torch.stack(expected), rtol=1e-4, atol=1e-5)
    losses.sum().backward()
    assert weights.grad.isfinite().all()
    assert weights.grad.any(1).all()


@pytest.mark.parametrize("shared", [True, False])
def test_convolutions_of_large_inputs_are_computed_one_network_at_a_time(tmp_path, monkeypatch, shared):
    model, run = build("ConvNet", {"widths": [4, 8]})
    problem, batch = InnerProblem.from_trajectory(record(tmp_path, model, run)), examples()
    weights = problem.initial_weights(0) + 0.01 * torch.randn(3, problem.layout.size)
    batches = batch if shared else type(batch)(*(torch.stack([each, each.flip(0), each]) for each in batch))
    measured = []
    for limit in (functional._LARGE_INPUTS, 24 * 64):
        monkeypatch.setattr(functional, "_LARGE_INPUTS", limit)
        weights = weights.detach().requires_grad_()
        losses = (problem.losses if shared else problem.losses_each)(weights, batches)
        losses.square().sum().backward()
        measured.append((losses.detach(), weights.grad))
    torch.testing.assert_close(*measured)


def test_the_gradient_equals_that_of_training(tmp_path):
    model, run = build(options={"widths": [12]}, frozen=["layers.3.bias"])
    trajectory = record(tmp_path, model, run)
    problem, batch = InnerProblem.from_trajectory(trajectory), examples()
    weights = trajectory.weights(0)[None].requires_grad_()
    problem.losses(weights, batch).sum().backward()
    nn.functional.cross_entropy(model(batch.inputs), batch.labels).backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    torch.testing.assert_close(weights.grad[0], trajectory.layout.flatten(gradients))


@pytest.mark.parametrize("task", ["mnist", "fashion-mnist", "cifar10"])
def test_a_trajectory_does_not_decide_where_data_is_downloaded(tmp_path, task):
    model, run = build()
    run |= {"task": task, "task_config": task_config(task, {"data_dir": str(tmp_path / "somewhere"), "download": True})}
    trajectory = record(tmp_path / "trajectory", model, run)
    with pytest.raises(TaskDataError, match=r"download is false.*--data-dir"):
        InnerProblem.from_trajectory(trajectory)
    assert not (tmp_path / "somewhere").exists()


@pytest.mark.parametrize("task", ["text", "csv", "mnist", "image-folder"])
@pytest.mark.parametrize("data_dir", ["/dev/zero", "/proc/kmsg"])
def test_a_trajectory_that_names_a_device_as_data_is_refused(tmp_path, task, data_dir):
    model, run = build()
    trajectory = record(tmp_path, model, run | {"task": task, "task_config": {"data_dir": data_dir}})
    with pytest.raises(TaskDataError):
        InnerProblem.from_trajectory(trajectory)


def test_a_loss_does_not_depend_on_the_other_weight_vectors(tmp_path):
    model, run = build("ResNet18")
    problem, batch = InnerProblem.from_trajectory(record(tmp_path, model, run)), examples(12)
    weights = Layout.of(model).read(model)
    together = problem.losses(torch.stack([weights, 2 * weights]), batch)
    torch.testing.assert_close(together[:1], problem.losses(weights[None], batch))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"task": "digit"}, UnknownName, "did you mean digits"),
        ({"task_config": {"size": 3}}, MetaoptError, "unknown parameter 'size'"),
        ({"target_model": "MPL"}, UnknownName, "did you mean MLP"),
        ({"target_config": {"widths": [5], "in_features": 64}}, LayoutMismatch, "Build it with the configuration"),
        ({"task": "mnist", "task_config": {"data_dir": "nowhere"}}, TaskDataError, "nowhere"),
    ],
)
def test_a_problem_that_cannot_be_rebuilt_raises_with_a_remedy(tmp_path, monkeypatch, change, error, message):
    monkeypatch.chdir(tmp_path)
    model, run = build(options={"widths": [12]})
    trajectory = record(tmp_path / "seed_0", model, {**run, **change})
    with pytest.raises(error, match=message) as caught:
        InnerProblem.from_trajectory(trajectory)
    assert "seed_0" in str(caught.value)
    assert "objective `weights`" in str(caught.value)


@pytest.mark.parametrize("fact", ["task", "task_config", "target_model", "target_config"])
def test_a_trajectory_without_the_facts_of_its_problem_is_rejected(tmp_path, fact):
    model, run = build(options={"widths": [12]})
    del run[fact]
    with pytest.raises(TrajectoryError, match=f"has no {fact};.*The objective `weights` needs"):
        InnerProblem.from_trajectory(record(tmp_path, model, run))


def test_the_data_folder_can_be_given(tmp_path, mnist_dir):
    config = target_config("MLP", {**FACTS, "in_features": 784, "image_size": 28}, {"widths": [4]})
    model = get_target_model("MLP", **config)
    run = {"task": "mnist", "task_config": {"data_dir": "/gone"}, "target_model": "MLP", "target_config": config}
    problem = InnerProblem.from_trajectory(record(tmp_path, model, run), mnist_dir)
    batch = problem.task.sample("meta", 10, generator(0))
    assert problem.losses(problem.layout.read(model)[None], batch).isfinite().all()


def test_trajectories_share_a_key_only_within_one_problem(tmp_path):
    model, run = build(options={"widths": [12]})

    def key(name, model=model, **changes):
        return problem_key(record(tmp_path / name, model, {**run, **changes}))

    expected = key("a", seed=0)
    assert key("b", seed=1, lr=0.1) == expected
    others = [
        key("task", task="mnist"),
        key("task_config", task_config={"split_seed": 1}),
        key("target", target_model="Other"),
        key("layout", build(options={"widths": [13]})[0]),
        key("nothing known", task=None),
    ]
    assert len({expected, *others}) == 1 + len(others)


def test_frozen_weights_are_part_of_the_problem(tmp_path):
    """Else the second network's loss would be measured with the frozen weights of the first."""
    frozen = ["layers.1.weight"]
    (one, run), (other, _) = build(options={"widths": [12]}, frozen=frozen), build(options={"widths": [12]})
    same, _ = build(options={"widths": [12]}, frozen=frozen)
    other.layers[1].weight.requires_grad_(False)
    with torch.no_grad():
        same.layers[1].weight.copy_(one.layers[1].weight)
    keys = [
        problem_key(record(tmp_path / str(seed), model, {**run, "seed": seed}))
        for seed, model in enumerate([one, same, other])
    ]
    assert keys[0] == keys[1] != keys[2]


CODE = """
import torch
from torch import nn

class Random(nn.Module):
    def __init__(self, in_features, classes):
        super().__init__()
        self.register_buffer("features", torch.randn(in_features, 6))
        self.last = nn.Linear(6, classes)

    def forward(self, images):
        return self.last(images.flatten(1) @ self.features)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "somebodys_networks.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return "somebodys_networks:Random"


def test_code_named_by_a_file_runs_only_if_trusted(outside, tmp_path):
    model, run = build(outside)
    trajectory = record(tmp_path / "run", model, run)
    with pytest.raises(InvalidConfig, match="--trust-config true"):
        InnerProblem.from_trajectory(trajectory)
    assert (
        InnerProblem.from_trajectory(trajectory, trusted=True)
        .losses(trajectory.weights(0).unsqueeze(0), examples())
        .isfinite()
    )


def test_constant_buffers_are_those_of_the_recording(outside, tmp_path):
    model, run = build(outside)
    trajectory = record(tmp_path / "one", model, run)
    batch = examples()
    expected = nn.functional.cross_entropy(model(batch.inputs), batch.labels).detach()
    measured = (
        InnerProblem.from_trajectory(trajectory, trusted=True)
        .losses(trajectory.weights(0).unsqueeze(0), batch)
        .detach()
    )
    assert float(measured) == pytest.approx(float(expected), rel=1e-5)
    another = record(tmp_path / "two", *build(outside))
    assert problem_key(another) != problem_key(trajectory)
