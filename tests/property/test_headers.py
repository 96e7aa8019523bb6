"""A file whose header was changed and sealed again is read, or refused by an error of metaopt; never anything else."""

import copy
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaopt.core.devices import CPU
from metaopt.core.errors import MetaoptError
from metaopt.diagnostics.inspector import inspect_files
from metaopt.diagnostics.inspector.report import report_of, terminal_text
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import load_optimizer_file, save_optimizer
from metaopt.metatraining.problem import InnerProblem
from metaopt.metatraining.state import MetaTrainingState
from metaopt.recording.config import TrainTargetConfig
from metaopt.recording.state import TargetTrainingState
from metaopt.targets import get_target_model
from metaopt.trajectories import Recorder, Trajectory, WeightTrajectoryDataset
from metaopt.weights.files import _header, _write, read_tensors
from metaopt.weights.header import read_header
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights, save_model_weights

from ..wan_files import TINY, with_length, write_sharded

SMALL = {"dim": 8, "num_latents": 4, "latent_dim": 8, "hidden": 8, "history": 2}
TARGET = {"in_features": 64, "classes": 10, "widths": [4]}
MEMORY = 2**30  # for a file of some kilobytes, beside what was in use before [bytes]


@contextmanager
def limited_memory() -> Iterator[None]:
    """Refuse allocations of more than `MEMORY` bytes during the block."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def seal(path: Path, tensors: dict[str, torch.Tensor], description: dict[str, Any]) -> None:
    """Write a file with a correct digest and any description."""
    _write(path, tensors, _header(tensors, description))


def target_state(task) -> TargetTrainingState:
    config = TrainTargetConfig(run_name="x", target_model="MLP", target_options={"widths": [4]}, averaging=0.9)
    return TargetTrainingState.from_config(config, task, CPU)


def meta_state() -> MetaTrainingState:
    return MetaTrainingState("PerceiverOptimizer", SMALL, seed=0, lr=1e-3, weight_decay=0.0, ema_decay=0.9)


def read_trajectory(path: Path) -> None:
    trajectory = Trajectory.open(path.parent)
    trajectory.weights(-1)
    trajectory.buffers(-1)
    assert trajectory.digest
    assert trajectory.frozen_digest
    assert trajectory.averaging < 1
    assert WeightTrajectoryDataset([trajectory], history=3).batch([0]).end.isfinite().all()
    InnerProblem.from_trajectory(trajectory)


def read_weights(path: Path) -> None:
    load_model_weights(get_target_model("MLP", **TARGET), path)


def read_optimizer(path: Path) -> None:
    optimizer = load_optimizer_file(path)
    layout = Layout.from_list([["w", [6, 5], "float32"]])
    history = torch.zeros(1, min(optimizer.history, 3), layout.size)
    optimizer.predict(history, torch.arange(float(history.shape[1]))[None], torch.tensor([9.0]), layout)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """A file of each kind, and a function that reads all of it."""
    from metaopt.tasks import load_task

    folder, task = tmp_path_factory.mktemp("files"), load_task("digits")
    model = get_target_model("MLP", **TARGET)
    model.get_parameter("layers.1.bias").requires_grad_(False)
    run = {"task": "digits", "task_config": {}, "target_model": "MLP", "target_config": TARGET, "averaging": 0.5}
    recorder = Recorder(folder / "seed_0", run, Layout.of(model))
    for step in (0, 5, 10):
        last = recorder.record(model, step, 0, {"train_loss": 1.0})
    save_optimizer(get_optimizer_model("PerceiverOptimizer", **SMALL), folder / "optimizer.safetensors")
    for name in ("Slopes", "Average"):
        save_optimizer(get_optimizer_model(name), folder / f"{name}.safetensors")
    save_model_weights(get_target_model("MLP", **TARGET), folder / "weights.safetensors")
    meta, target = meta_state(), target_state(task)
    meta.update(sum(parameter.sum() for parameter in meta.model.parameters()))
    meta.save(folder / "meta.safetensors", {"lr": 1e-3})
    for step in target.epoch_steps():
        target.after_step(step.take())
        break
    target.save(folder / "target.safetensors", {"data": "x"})
    return {
        "snapshot": (last, read_trajectory),
        "frozen": (last.with_name("frozen.safetensors"), read_trajectory),
        "weights": (
            folder / "weights.safetensors",
            read_weights,
        ),
        "optimizer": (folder / "optimizer.safetensors", read_optimizer),
        "Slopes": (folder / "Slopes.safetensors", read_optimizer),
        "Average": (folder / "Average.safetensors", read_optimizer),
        "averaged": (folder / "meta.safetensors", read_optimizer),
        "meta": (folder / "meta.safetensors", lambda path: meta_state().load(path, {"lr": 1e-3})),
        "target": (folder / "target.safetensors", lambda path: target_state(task).load(path, {"data": "x"})),
    }


DEEP = json.loads("[" * 90 + "]" * 90)
TOO_DEEP = json.loads("[" * 300 + "]" * 300)
VALUES = [
    *(None, True, -1, 0, 7, 1.5, -0.0, float("nan"), float("inf"), 10**6, 10**9, 10**30),
    *("", "x", "os:system", "a" * 999, [], {}, [7], {"x": 1}, {"tensor": "model/x"}, DEEP, TOO_DEEP),
    *([["x", [2], "float32"]], [["x", [10**9], "float32"]]),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def change(description: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """Replace, drop, wrap, retype or repeat a value."""
    changed = copy.deepcopy(description)
    by_depth: dict[int, list[tuple[Any, ...]]] = {}
    for place in places(description)[1:]:
        by_depth.setdefault(len(place), []).append(place)
    *parents, key = data.draw(st.sampled_from(by_depth[data.draw(st.sampled_from(sorted(by_depth)))]))
    inner = changed
    for parent in parents:
        inner = inner[parent]
    match data.draw(st.sampled_from(["replace", "drop", "wrap", "text", "scale", "repeat"])):
        case "drop":
            del inner[key]
        case "wrap":
            inner[key] = data.draw(st.sampled_from([[inner[key]], {"dict": inner[key]}]))
        case "text":
            inner[key] = str(inner[key])
        case "scale" if isinstance(inner[key], int):
            inner[key] = inner[key] * data.draw(st.sampled_from([-1, 2, 1000, 10**6, 10**12]))
        case "repeat" if isinstance(inner, list):
            inner += [inner[key]] * data.draw(st.sampled_from([1, 1000]))
        case _:
            inner[key] = data.draw(st.sampled_from(VALUES))
    return changed


@pytest.mark.parametrize(
    "name", ["snapshot", "frozen", "weights", "optimizer", "Slopes", "Average", "averaged", "meta", "target"]
)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_changed_header_is_read_or_refused(files, name, data):
    path, read = files[name]
    whole, header = path.read_bytes(), read_header(path)
    tensors = {key: tensor.clone() for key, tensor in read_tensors(path, header.kind)[0].items()}
    description = {"kind": header.kind, "facts": header.facts}
    try:
        for _ in range(data.draw(st.integers(1, 2))):
            if places(description)[1:]:
                description = change(description, data)
        seal(path, tensors, description)
        with limited_memory():
            read(path)
    except MetaoptError:
        pass
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("sharded", [False, True], ids=["file", "index"])
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_changed_file_of_another_program_is_inspected_or_refused(tmp_path, sharded, data):
    index = write_sharded(tmp_path, TINY.original(), 2)
    path = index if sharded else next(tmp_path.glob("*-00001-*"))
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    document = json.loads(raw if sharded else raw[8 : 8 + length])
    with suppress(MetaoptError):
        for _ in range(data.draw(st.integers(1, 2))):
            if places(document)[1:]:
                document = change(document, data)
        text = json.dumps(document)
        path.write_bytes(text.encode() if sharded else with_length(text) + raw[8 + length :])
        with limited_memory():
            found = inspect_files(tmp_path, "changed", include="attn")
            report_of(found, {}).files()
            terminal_text(found)


def test_the_files_themselves_are_read(files):
    for path, read in files.values():
        with limited_memory():
            read(path)
