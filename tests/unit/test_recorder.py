"""Recording in the background writes what recording at once writes, and loses nothing, whatever goes wrong."""

import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch
from torch import nn

from metaopt.core.errors import Diverged, InvalidConfig, StorageError
from metaopt.trajectories import SNAPSHOT_DTYPES, Recorder, Trajectory, recorder
from metaopt.trajectories.writer import BackgroundWriter
from metaopt.weights.files import load_model_weights, read_tensors, write_tensors
from metaopt.weights.layout import Layout

WRITERS = "metaopt-writer"


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(WRITERS)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def train(model: nn.Module, recorder: Recorder, steps=range(0, 30, 5)) -> None:
    """Record, and change every weight in place directly afterwards."""
    for step in steps:
        recorder.record(model, step, 0, {"train_loss": 1.0 / (step + 1)})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def slowly(write, *arguments, **options) -> None:
    time.sleep(0.02)
    write(*arguments, **options)


@pytest.mark.parametrize("pace", [lambda write: write, lambda write: partial(slowly, write)], ids=["fast", "slow"])
@pytest.mark.parametrize("dtype", SNAPSHOT_DTYPES)
def test_the_background_writes_what_the_foreground_writes(tmp_path, model, monkeypatch, pace, dtype):
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, Recorder(tmp_path / "at once", {}, Layout.of(model), dtype=dtype, keep_last=4))
    model.load_state_dict(start)
    monkeypatch.setattr(recorder, "write_tensors", pace(write_tensors))
    with Recorder(tmp_path / "behind", {}, Layout.of(model), dtype=dtype, keep_last=4) as behind:
        train(model, behind)
    assert contents(tmp_path / "at once") == contents(tmp_path / "behind")


def test_after_a_flush_everything_is_on_disk(tmp_path, model, monkeypatch):
    monkeypatch.setattr(recorder, "write_tensors", partial(slowly, write_tensors))
    with Recorder(tmp_path, {}, Layout.of(model)) as behind:
        train(model, behind, [0, 1])
        behind.flush()
        assert Trajectory.open(tmp_path).steps == [0, 1]


def full_at(step: int):
    def write(path, *arguments, **options):
        if path.name == f"step_{step:08d}.safetensors":
            raise StorageError("the disk is full")
        write_tensors(path, *arguments, **options)

    return write


def go_on(model: nn.Module, behind: Recorder) -> None:
    train(model, behind, range(6, 20))


def wait_for_it(model: nn.Module, behind: Recorder) -> None:
    behind.flush()


def leave(model: nn.Module, behind: Recorder) -> None:
    """Let the end of the block notice."""


def fail(model: nn.Module, behind: Recorder) -> None:
    raise KeyError("mine")


def diverge(model: nn.Module, behind: Recorder) -> None:
    nn.init.constant_(model[0].weight, float("nan"))
    train(model, behind, [15])


def record_and(then, folder, model: nn.Module, steps) -> None:
    with Recorder(folder, {}, Layout.of(model)) as behind:
        train(model, behind, steps)
        then(model, behind)


@pytest.mark.parametrize("then", [go_on, wait_for_it, leave])
def test_a_full_disk_ends_the_training_with_its_own_error(tmp_path, model, monkeypatch, then):
    monkeypatch.setattr(recorder, "write_tensors", full_at(5))
    with pytest.raises(StorageError, match=r"^the disk is full$"):
        record_and(then, tmp_path, model, [0, 5])
    assert Trajectory.open(tmp_path).steps == [0]


def test_an_error_in_the_block_wins_and_loses_no_snapshot(tmp_path, model, monkeypatch, caplog):
    monkeypatch.setattr(recorder, "write_tensors", partial(slowly, full_at(10)))
    with pytest.raises(KeyError, match="mine"):
        record_and(fail, tmp_path, model, [0, 5, 10])
    assert Trajectory.open(tmp_path).steps == [0, 5]
    assert "the disk is full" in caplog.text


def test_nothing_is_queued_once_a_weight_is_not_finite(tmp_path, model):
    with pytest.raises(Diverged, match=r"0\.weight is no longer finite at step 15"):
        record_and(diverge, tmp_path, model, [0, 5, 10])
    assert Trajectory.open(tmp_path).steps == [0, 5, 10]


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_narrow_snapshots_hold_rounded_weights_and_whole_buffers(tmp_path, model, dtype, error):
    layout = Layout.of(model)
    model[1].running_mean.fill_(0.1)
    path = Recorder(tmp_path, {}, layout, dtype=dtype).record(model, 0, 0, {})
    stored, _ = read_tensors(path, "snapshot")
    assert {str(stored[name].dtype) for name, _ in model.named_parameters()} == {f"torch.{dtype}"}
    assert torch.equal(stored["1.running_mean"], model[1].running_mean)
    assert stored["1.num_batches_tracked"].dtype == torch.int64
    trajectory = Trajectory.open(tmp_path)
    assert trajectory.layout == layout
    assert trajectory.weights(0).dtype == torch.float32
    torch.testing.assert_close(trajectory.weights(0), layout.read(model), rtol=error, atol=0)
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_model_weights(other, path)
    assert torch.equal(layout.read(other), trajectory.weights(0))


def test_weights_are_never_widened_and_frozen_ones_stay_as_they_are(tmp_path, model):
    model[1].bfloat16().requires_grad_(False)
    model[0].bfloat16()
    Recorder(tmp_path, {}, Layout.of(model), dtype="float16").record(model, 0, 0, {})
    trajectory = Trajectory.open(tmp_path)
    assert read_tensors(trajectory.snapshots[0].path, "snapshot")[0]["0.weight"].dtype == torch.bfloat16
    assert trajectory.frozen()["1.weight"].dtype == torch.bfloat16


def test_a_weight_too_large_for_float16_is_refused_by_name(tmp_path, model):
    nn.init.constant_(model[0].weight, -70_000.0)
    with pytest.raises(InvalidConfig, match=r"0\.weight holds 7e\+04 at step 3.*float16.*in bfloat16"):
        Recorder(tmp_path, {}, Layout.of(model), dtype="float16").record(model, 3, 0, {})
    Recorder(tmp_path, {}, Layout.of(model), dtype="bfloat16").record(model, 3, 0, {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_found_anywhere(tmp_path, dtype, value):
    for place in (0, 517, 999):
        model = nn.Linear(10, 100, bias=False, dtype=dtype)
        nn.init.ones_(model.weight)
        model.weight.data.view(-1)[place] = value
        with pytest.raises(Diverged):
            Recorder(tmp_path, {}, Layout.of(model), dtype="float16").record(model, 0, 0, {})


def test_bad_arguments_are_refused(tmp_path, model):
    with pytest.raises(InvalidConfig, match="did you mean bfloat16"):
        Recorder(tmp_path, {}, Layout.of(model), dtype="bfloat")
    with pytest.raises(InvalidConfig, match="keep_last is -1"):
        Recorder(tmp_path, {}, Layout.of(model), keep_last=-1)


@pytest.mark.parametrize("keep", [1, 2, 5, 9])
def test_only_the_last_snapshots_are_kept_with_their_shards(tmp_path, model, monkeypatch, keep):
    monkeypatch.setattr(recorder, "write_tensors", partial(write_tensors, shard_size=30))
    beside = [tmp_path / "step_notes.txt", tmp_path / "shard_of_mine", tmp_path / "best_step_00000000.safetensors"]
    for path in beside:
        path.write_text("mine", encoding="utf-8")
    with Recorder(tmp_path, {}, Layout.of(model), keep_last=keep) as behind:
        train(model, behind)
    trajectory = Trajectory.open(tmp_path)
    assert trajectory.steps == list(range(0, 30, 5))[-keep:]
    assert len(trajectory.files()) > 2 * len(trajectory)
    assert set(tmp_path.iterdir()) == {*trajectory.files(), *beside}


def test_a_resumed_run_keeps_what_an_uninterrupted_one_keeps(tmp_path, model):
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, stops in (("whole", [range(0, 30, 5)]), ("killed", [range(0, 25, 5), range(0, 30, 5)])):
        for steps in stops:
            model.load_state_dict(start)
            train(model, Recorder(tmp_path / name, {}, Layout.of(model), keep_last=2), steps)
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_pieces_of_work_wait_until_there_is_room():
    go, done = threading.Event(), []
    with BackgroundWriter(most=2) as writer:
        writer.submit(lambda: done.append(go.wait(10)))
        writer.submit(lambda: done.append("second"))
        threading.Timer(0.05, go.set).start()
        writer.submit(lambda: done.append("third"))
        assert done[0] is True
    assert done == [True, "second", "third"]


def test_after_a_failure_nothing_more_is_done_and_every_call_raises_it():
    done, broken = [], OSError("broken")

    def breaks() -> None:
        raise broken

    def hand_over() -> None:
        with BackgroundWriter() as writer:
            writer.submit(breaks)
            for call in (writer.flush, writer.flush, partial(writer.submit, lambda: done.append(1))):
                with pytest.raises(OSError, match="broken"):
                    call()

    with pytest.raises(OSError, match="broken") as caught:
        hand_over()
    assert caught.value is broken
    assert not done


ABANDONED = """
import sys, time
from metaopt.trajectories.writer import BackgroundWriter
writer = BackgroundWriter()
writer.submit(lambda: time.sleep(0.2))
writer.submit(lambda: print("written"))
"""


def test_an_interpreter_that_ends_waits_for_what_was_handed_over():
    done = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("written\n", "", 0)
