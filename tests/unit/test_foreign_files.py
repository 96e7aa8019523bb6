"""Files that somebody else prepared: sealed correctly, but wrong, endless or far too large."""

import json
import os
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metaopt.core.errors import FileFormatError, InvalidConfig, LayoutMismatch, MetaoptError, TrajectoryError
from metaopt.generative import get_optimizer_model
from metaopt.generative.files import load_optimizer_file, optimizer_facts
from metaopt.metatraining.problem import InnerProblem
from metaopt.optimizers import build_optimizer
from metaopt.optimizers.state import check_optimizer_state
from metaopt.targets import get_target_model
from metaopt.trajectories import Recorder, Trajectory
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint
from metaopt.weights.files import kind_of, read_facts, read_tensors, write_tensors
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights, save_model_weights

SMALL = {"dim": 8, "num_latents": 4, "latent_dim": 8, "hidden": 8}
MLP = {"in_features": 64, "classes": 10, "widths": [4]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


@pytest.fixture
def quick():
    """Fail if a test uses more than 30 seconds of CPU, as it does where a header decides how much is done."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 30


def record(folder, model=None, run=None):
    model = model or nn.Linear(2, 3)
    recorder = Recorder(folder, run or {"seed": 0}, Layout.of(model))
    return [recorder.record(model, step, 0, {}) for step in (0, 5)]


def rewrite(path, kind, tensors=None, **facts):
    old, described = read_tensors(path, kind)
    old = {name: tensor.clone() for name, tensor in old.items()}
    write_tensors(path, {**old, **(tensors or {})}, kind, {**described, **facts})


@pytest.mark.parametrize("link", ["/dev/zero", "/dev/null", ".", "x.safetensors", "gone"])
def test_a_link_to_something_else_is_refused(path, link, quick):
    path.symlink_to(link)
    for read in (kind_of, load_optimizer_file, lambda path: load_model_weights(nn.Linear(2, 2), path), load_checkpoint):
        with pytest.raises(FileFormatError, match="cannot read"):
            read(path)


def test_a_pipe_is_refused_without_waiting(path, quick):
    os.mkfifo(path)
    with pytest.raises(FileFormatError, match="a pipe"):
        kind_of(path)


@pytest.mark.parametrize("link", ["/dev/zero", "task.json", "."])
def test_the_description_of_a_task_is_a_regular_file(tmp_path, link, quick):
    record(tmp_path)
    (tmp_path / "task.json").symlink_to(link)
    with pytest.raises(FileFormatError, match="cannot read"):
        _ = Trajectory.open(tmp_path).task


def test_a_link_to_a_file_is_read(path, tmp_path):
    save_model_weights(nn.Linear(2, 2), tmp_path / "real")
    path.symlink_to("real")
    load_model_weights(nn.Linear(2, 2), path)


def test_a_long_name_of_a_tensor_is_shortened(tmp_path, quick):
    first, _ = record(tmp_path)
    layout = [["x" * 100_000, [3, 2], "float32"], ["bias", [3], "float32"]]
    rewrite(first, "snapshot", layout=layout)
    rewrite(tmp_path / "step_00000005.safetensors", "snapshot", layout=layout)
    with pytest.raises(FileFormatError, match="not a valid snapshot") as caught:
        Trajectory.open(tmp_path)
    assert len(str(caught.value)) < 2000


def test_a_header_of_many_tensors_is_refused(path, quick):
    entries = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(200_000)}
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(FileFormatError, match="lists 200,000 tensors; expected at most 100,000"):
        kind_of(path)


def test_a_long_header_is_refused_before_it_is_read(path, quick):
    with path.open("wb") as file:
        file.write((2**33).to_bytes(8, "little"))
        file.truncate(2**34)  # sparse
    with pytest.raises(FileFormatError, match=r"header of 8,589,934,592 bytes"):
        kind_of(path)


@pytest.mark.parametrize("depth", [150, 900, 100_000])
def test_a_deep_header_is_refused(path, depth, quick):
    facts = '{"x":' + "[" * depth + "]" * depth + "}"
    text = f'{{"facts":{facts},"kind":"weights","schema":1,"sha256":"{"0" * 64}"}}'
    save_file({}, path, metadata={"metaopt": text})
    with pytest.raises(FileFormatError):
        read_facts(path, "weights")


def test_what_could_not_be_read_is_not_written(path):
    deep = json.loads("[" * 200 + "]" * 200)
    with pytest.raises(FileFormatError, match="cannot write"):
        write_tensors(path, {}, "weights", {"x": deep})
    assert not path.exists()


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (torch.tensor([0.0, float("nan"), 0.0]), "bias holds NaN or infinity"),
        (torch.tensor([1, 2, 3]), r"bias is torch\.int64; expected floating-point weights"),
        (torch.tensor([1 + 1j, 2, 3]), r"bias is torch\.complex64; expected floating-point weights"),
    ],
    ids=["NaN", "int64", "complex"],
)
def test_a_sealed_snapshot_of_wrong_weights_is_refused(tmp_path, bias, message):
    first, last = record(tmp_path)
    for path in (last, first):
        rewrite(path, "snapshot", {"bias": bias})
        with pytest.raises(FileFormatError, match=message):
            Trajectory.open(tmp_path).weights(-1 if path == last else 0)
    with pytest.raises(LayoutMismatch, match="bias"):
        load_model_weights(nn.Linear(2, 3), last)


def test_a_layout_larger_than_the_file_is_refused(tmp_path):
    for path in record(tmp_path):
        rewrite(path, "snapshot", layout=[["weight", [10**6, 10**6], "float32"]])
    with pytest.raises(FileFormatError, match=r"weight has shape \(3, 2\); expected \(1000000, 1000000\)"):
        Trajectory.open(tmp_path)


@pytest.mark.parametrize("fact", ["layout", "segment", "step", "epoch", "losses", "run"])
@pytest.mark.parametrize("value", [None, -1, 0.5, True, "x", [], [[]], {"averaging": "2"}, 10**30], ids=repr)
def test_a_fact_of_another_type_is_refused(tmp_path, fact, value):
    for path in record(tmp_path):
        rewrite(path, "snapshot", **{fact: value})
    with pytest.raises(MetaoptError, match=r"step_0000000"):
        Trajectory.open(tmp_path)


def test_frozen_weights_of_another_run_are_refused(tmp_path):
    for seed in (0, 1):
        model = nn.Linear(2, 3)
        model.bias.requires_grad_(False)
        record(tmp_path / str(seed), model, {"seed": seed})
    (tmp_path / "1" / "frozen.safetensors").replace(tmp_path / "0" / "frozen.safetensors")
    with pytest.raises(TrajectoryError, match="belongs to another run than the snapshots"):
        Trajectory.open(tmp_path / "0").frozen()


def test_a_checkpoint_is_not_weights(path):
    save_checkpoint(path, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, {})
    with pytest.raises(FileFormatError, match="is a 'checkpoint' file"):
        load_model_weights(nn.Linear(2, 2), path)


def test_a_tensor_is_used_once_in_a_checkpoint(path):
    twice = {"dict": [["a", {"tensor": "w"}], ["b", {"tensor": "w"}]]}
    for state in (twice, {"dict": []}, {"dict": [[1.5, {"tensor": "w"}]]}, {"tensor": "w"}):
        write_tensors(path, {"w": torch.ones(2)}, "checkpoint", {"state": state})
        with pytest.raises(FileFormatError, match="invalid description of its state"):
            load_checkpoint(path)


BOMBS = [
    *({"depth": 10**6}, {"history": 10**9}, {"num_latents": 10**7}, {"dim": 10**9}, {"hidden": float("inf")}),
    *({"heads": 10**8}, {"latent_dim": 10**30}, {"token_size": 10**12}, {"spacing": "doubling", "history": 10**12}),
]


@pytest.mark.parametrize("config", BOMBS, ids=str)
def test_a_configuration_that_does_not_fit_the_weights_is_refused_before_building(path, config, quick):
    optimizer = get_optimizer_model("PerceiverOptimizer", **SMALL)
    facts = optimizer_facts(optimizer)
    facts["config"] |= config
    write_tensors(path, optimizer.state_dict(), "optimizer", {"optimizer": facts})
    with pytest.raises(FileFormatError, match="cannot build"):
        load_optimizer_file(path)


@pytest.mark.parametrize(
    "value", [torch.full((8,), float("nan")), torch.ones(8, dtype=torch.int64)], ids=["NaN", "int"]
)
def test_an_optimizer_of_wrong_weights_is_refused(path, value):
    optimizer = get_optimizer_model("PerceiverOptimizer", **SMALL)
    tensors = {**optimizer.state_dict(), "embed_facts.bias": value}
    write_tensors(path, tensors, "optimizer", {"optimizer": optimizer_facts(optimizer)})
    with pytest.raises(FileFormatError, match=r"embed_facts\.bias"):
        load_optimizer_file(path)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("MLP", {"widths": [10**9, 10**9]}),
        ("MLP", {"widths": [4] * 10**5}),
        ("MLP", {"in_features": 10**9}),
        ("MLP", {"widths": "x"}),
        ("GPT", {"layers": 10**6}),
        ("TargetCNN", {"image_size": 10**9}),
        (["MLP"], {}),
        ("MLP", []),
    ],
    ids=str,
)
def test_a_target_that_does_not_fit_its_snapshots_is_refused_before_building(tmp_path, target, options, quick):
    config = options if isinstance(options, list) else {**MLP, **options}
    run = {"task": "digits", "task_config": {}, "target_model": target, "target_config": config}
    record(tmp_path, get_target_model("MLP", **MLP), run)
    with pytest.raises(MetaoptError, match="cannot measure the loss"):
        InnerProblem.from_trajectory(Trajectory.open(tmp_path))


def stepped(name):
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(name, model.parameters(), 1e-3, {})
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", ["Adam", "SGD", "Adafactor", "AdamWScheduleFree", "DMGD", "M3", "DeltaMomentum"])
def test_the_state_of_a_base_optimizer_fits_itself(name):
    check_optimizer_state(stepped(name), stepped(name).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["param_groups"][0].update(lr=float("nan")), "lr nan"),
        (lambda state: state["param_groups"][0].update(betas=[0.9]), "betas"),
        (lambda state: state["param_groups"][0].pop("eps"), "eps"),
        (lambda state: state["param_groups"][0].update(params=[0]), "the group"),
        (lambda state: state["param_groups"].append({}), "2 groups"),
        (lambda state: state.update(param_groups=3), "no valid param_groups"),
        (lambda state: state["state"][0].update(exp_avg=torch.ones(3)), r"'exp_avg' of shape \(3,\)"),
        (lambda state: state["state"].update({7: {}}), "parameter 7 of 2"),
        (lambda state: state["state"].update({"x": {}}), "parameter 'x'"),
    ],
)
def test_a_state_of_another_base_optimizer_is_refused(change, message):
    state = stepped("Adam").state_dict()
    change(state)
    with pytest.raises(MetaoptError, match=message):
        check_optimizer_state(stepped("Adam"), state)


def test_a_history_option_has_a_limit():
    with pytest.raises(InvalidConfig, match="history"):
        get_optimizer_model("Slopes", history=10**9)
