"""Recording in the background writes the same files as synchronous recording and loses none after an error."""

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
from metaopt.weights.files import read_tensors, write_tensors
from metaopt.weights.layout import Layout
from metaopt.weights.model_files import load_model_weights

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
    """Record, and change every weight in place directly after each snapshot."""
    for step in steps:
        recorder.record(model, step, 0, {"train_loss": 1.0 / (step + 1)})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write_slowly(write, *arguments, **options) -> None:
    time.sleep(0.02)
    write(*arguments, **options)


@pytest.mark.parametrize(
    "delay", [lambda write: write, lambda write: partial(write_slowly, write)], ids=["fast", "slow"]
)
@pytest.mark.parametrize("dtype", SNAPSHOT_DTYPES)
def test_recording_in_the_background_writes_the_same_files(tmp_path, model, monkeypatch, delay, dtype):
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, Recorder(tmp_path / "synchronous", {}, Layout.of(model), dtype=dtype, keep_last=4))
    model.load_state_dict(start)
    monkeypatch.setattr(recorder, "write_tensors", delay(write_tensors))
    with Recorder(tmp_path / "background", {}, Layout.of(model), dtype=dtype, keep_last=4) as background:
        train(model, background)
    assert contents(tmp_path / "synchronous") == contents(tmp_path / "background")


def test_after_a_flush_all_snapshots_are_on_disk(tmp_path, model, monkeypatch):
    monkeypatch.setattr(recorder, "write_tensors", partial(write_slowly, write_tensors))
    with Recorder(tmp_path, {}, Layout.of(model)) as background:
        train(model, background, [0, 1])
        background.flush()
        assert Trajectory.open(tmp_path).steps == [0, 1]


def full_at(step: int):
    def write(path, *arguments, **options):
        if path.name == f"step_{step:08d}.safetensors":
            raise StorageError("the disk is full")
        write_tensors(path, *arguments, **options)

    return write


def keep_recording(model: nn.Module, background: Recorder) -> None:
    train(model, background, range(6, 20))


def flush(model: nn.Module, background: Recorder) -> None:
    background.flush()


def exit_block(model: nn.Module, background: Recorder) -> None:
    """The exit of the block raises the error."""


def fail(model: nn.Module, background: Recorder) -> None:
    raise KeyError("mine")


def diverge(model: nn.Module, background: Recorder) -> None:
    nn.init.constant_(model[0].weight, float("nan"))
    train(model, background, [15])


def record_and(then, folder, model: nn.Module, steps) -> None:
    with Recorder(folder, {}, Layout.of(model)) as background:
        train(model, background, steps)
        then(model, background)


@pytest.mark.parametrize("then", [keep_recording, flush, exit_block])
def test_a_full_disk_ends_the_training_with_its_error(tmp_path, model, monkeypatch, then):
    monkeypatch.setattr(recorder, "write_tensors", full_at(5))
    with pytest.raises(StorageError, match=r"^the disk is full$"):
        record_and(then, tmp_path, model, [0, 5])
    assert Trajectory.open(tmp_path).steps == [0]


def test_an_error_in_the_block_takes_precedence_and_loses_no_snapshot(tmp_path, model, monkeypatch, caplog):
    monkeypatch.setattr(recorder, "write_tensors", partial(write_slowly, full_at(10)))
    with pytest.raises(KeyError, match="mine"):
        record_and(fail, tmp_path, model, [0, 5, 10])
    assert Trajectory.open(tmp_path).steps == [0, 5]
    assert "the disk is full" in caplog.text


def test_weights_that_are_not_finite_are_not_queued(tmp_path, model):
    with pytest.raises(Diverged, match=r"0\.weight is no longer finite at step 15"):
        record_and(diverge, tmp_path, model, [0, 5, 10])
    assert Trajectory.open(tmp_path).steps == [0, 5, 10]


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_low_precision_rounds_weights_and_keeps_buffers(tmp_path, model, dtype, error):
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


def test_precision_is_never_increased_and_frozen_weights_keep_theirs(tmp_path, model):
    model[1].bfloat16().requires_grad_(False)
    model[0].bfloat16()
    Recorder(tmp_path, {}, Layout.of(model), dtype="float16").record(model, 0, 0, {})
    trajectory = Trajectory.open(tmp_path)
    assert read_tensors(trajectory.snapshots[0].path, "snapshot")[0]["0.weight"].dtype == torch.bfloat16
    assert trajectory.frozen()["1.weight"].dtype == torch.bfloat16


def test_a_weight_too_large_for_float16_is_rejected_by_name(tmp_path, model):
    nn.init.constant_(model[0].weight, -70_000.0)
    with pytest.raises(InvalidConfig, match=r"0\.weight holds 7e\+04 at step 3.*float16.*in bfloat16"):
        Recorder(tmp_path, {}, Layout.of(model), dtype="float16").record(model, 3, 0, {})
    Recorder(tmp_path, {}, Layout.of(model), dtype="bfloat16").record(model, 3, 0, {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_detected(tmp_path, dtype, value):
    for place in (0, 517, 999):
        model = nn.Linear(10, 100, bias=False, dtype=dtype)
        nn.init.ones_(model.weight)
        model.weight.data.view(-1)[place] = value
        with pytest.raises(Diverged):
            Recorder(tmp_path, {}, Layout.of(model), dtype="float16").record(model, 0, 0, {})


def test_invalid_arguments_are_rejected(tmp_path, model):
    with pytest.raises(InvalidConfig, match="did you mean bfloat16"):
        Recorder(tmp_path, {}, Layout.of(model), dtype="bfloat")
    with pytest.raises(InvalidConfig, match="keep_last is -1"):
        Recorder(tmp_path, {}, Layout.of(model), keep_last=-1)


@pytest.mark.parametrize("keep", [1, 2, 5, 9])
def test_only_the_last_snapshots_are_kept_with_their_shards(tmp_path, model, monkeypatch, keep):
    monkeypatch.setattr(recorder, "write_tensors", partial(write_tensors, shard_size=30))
    other_files = [tmp_path / "step_notes.txt", tmp_path / "shard_of_mine", tmp_path / "best_step_00000000.safetensors"]
    for path in other_files:
        path.write_text("mine", encoding="utf-8")
    with Recorder(tmp_path, {}, Layout.of(model), keep_last=keep) as background:
        train(model, background)
    trajectory = Trajectory.open(tmp_path)
    assert trajectory.steps == list(range(0, 30, 5))[-keep:]
    assert len(trajectory.files()) > 2 * len(trajectory)
    assert set(tmp_path.iterdir()) == {*trajectory.files(), *other_files}


def test_a_resumed_run_keeps_what_an_uninterrupted_one_keeps(tmp_path, model):
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, stops in (("whole", [range(0, 30, 5)]), ("killed", [range(0, 25, 5), range(0, 30, 5)])):
        for steps in stops:
            model.load_state_dict(start)
            train(model, Recorder(tmp_path / name, {}, Layout.of(model), keep_last=2), steps)
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_jobs_wait_until_the_queue_has_room():
    go, done = threading.Event(), []
    with BackgroundWriter(max_unfinished=2) as writer:
        writer.submit(lambda: done.append(go.wait(10)))
        writer.submit(lambda: done.append("second"))
        threading.Timer(0.05, go.set).start()
        writer.submit(lambda: done.append("third"))
        assert done[0] is True
    assert done == [True, "second", "third"]


def test_after_a_failure_later_jobs_are_skipped_and_every_call_raises_it():
    done, broken = [], OSError("broken")

    def fail_job() -> None:
        raise broken

    def submit_jobs() -> None:
        with BackgroundWriter() as writer:
            writer.submit(fail_job)
            for call in (writer.flush, writer.flush, partial(writer.submit, lambda: done.append(1))):
                with pytest.raises(OSError, match="broken"):
                    call()

    with pytest.raises(OSError, match="broken") as caught:
        submit_jobs()
    assert caught.value is broken
    assert not done


NOT_FLUSHED = """
import sys, time
from metaopt.trajectories.writer import BackgroundWriter
writer = BackgroundWriter()
writer.submit(lambda: time.sleep(0.2))
writer.submit(lambda: print("written"))
"""


def test_the_interpreter_waits_for_unfinished_jobs_at_exit():
    done = subprocess.run([sys.executable, "-c", NOT_FLUSHED], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("written\n", "", 0)
