"""A checkpoint has the sidecar of itself, and a failure of the ledger does not stop a training."""

import json
import os
import resource
import signal
from dataclasses import replace

import pytest
import torch

from metaopt.core.config_digest import config_digest
from metaopt.core.errors import FileFormatError, StorageError
from metaopt.recording.config import TrainTargetConfig
from metaopt.trajectories import claim_run_folder
from metaopt.trajectories.checkpoint import load_checkpoint, save_checkpoint
from metaopt.trajectories.ledger_entry import (
    SidecarWriter,
    TrainingFacts,
    check_entry,
    entry_of,
    files_beside,
    read_entry,
    remove_checkpoint,
    sidecar_path,
)
from metaopt.trajectories.origin import Generator, Origin, Parent, data_set, read_origin, write_origin
from metaopt.weights.files import files_of, write_tensors

ORIGIN = Origin(Generator("train-target", "0.1.0", "0" * 32), (data_set("digits", {"size": 8}, "d" * 32),))
FACTS = TrainingFacts("target", "digits/seed_0", None, 15, {"val_loss": 0.5, "broken": float("nan")}, ORIGIN)
STATE = {"model": {"w": torch.arange(5.0)}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def test_a_checkpoint_has_a_sidecar_that_says_what_wrote_it(path):
    save_checkpoint(path, STATE, {}, FACTS)
    entry = check_entry(path)
    assert entry.facts == replace(FACTS, metrics={"val_loss": 0.5})
    assert entry.file.size == path.stat().st_size
    assert entry.versions["torch"] == torch.__version__.partition("+")[0]
    assert files_beside(path) == [sidecar_path(path)]


def test_without_facts_there_is_no_sidecar_and_none_of_an_older_file(path):
    save_checkpoint(path, STATE, {}, FACTS)
    save_checkpoint(path, {"model": {}}, {})
    assert list(path.parent.iterdir()) == [path]


def test_a_sidecar_is_there_before_the_checkpoint(path, monkeypatch):
    seen = []
    write = SidecarWriter.before_rename

    def observed(writer, temporary):
        write(writer, temporary)
        seen.append((sidecar_path(path).exists(), path.exists()))

    monkeypatch.setattr(SidecarWriter, "before_rename", observed)
    save_checkpoint(path, STATE, {}, FACTS)
    assert seen == [(True, False)]


def in_a_process(function) -> int:
    """Run a function in a copy of this process, which has imported torch; returns the exit status."""
    if (child := os.fork()) == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_after_a_kill_the_older_file_has_the_sidecar_of_another(path, monkeypatch):
    save_checkpoint(path, STATE, {}, FACTS)
    before = SidecarWriter.before_rename

    def kill(writer, temporary):
        before(writer, temporary)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(SidecarWriter, "before_rename", kill)
    assert in_a_process(lambda: save_checkpoint(path, {"model": {}}, {}, FACTS)) == -signal.SIGKILL
    monkeypatch.undo()
    assert torch.equal(load_checkpoint(path)[0]["model"]["w"], torch.arange(5.0))
    with pytest.raises(FileFormatError, match="is the sidecar of another file: it describes"):
        entry_of(path)
    assert files_beside(path) == []
    save_checkpoint(path, STATE, {}, FACTS)
    assert check_entry(path)


def test_the_sidecar_of_another_name_is_recognised(path):
    save_checkpoint(path, STATE, {}, FACTS)
    moved = path.with_name("moved.safetensors")
    path.rename(moved)
    sidecar_path(path).rename(sidecar_path(moved))
    with pytest.raises(FileFormatError, match=r"it describes 'checkpoint\.safetensors'"):
        entry_of(moved)


def test_a_changed_bit_of_a_tensor_is_found_by_the_check(path):
    save_checkpoint(path, STATE, {}, FACTS)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert entry_of(path)
    with pytest.raises(FileFormatError, match="is damaged: its sha256 is"):
        check_entry(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("digits", "digots"), "do not match its sha256"),
        (lambda text: "[]", "expected a JSON object"),
        (lambda text: "", "cannot read"),
    ],
)
def test_a_damaged_sidecar_is_refused(path, change, message):
    save_checkpoint(path, STATE, {}, FACTS)
    sidecar = sidecar_path(path)
    sidecar.write_text(change(sidecar.read_text()))
    with pytest.raises(FileFormatError, match=message):
        read_entry(path)
    assert load_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema", 2, "has schema 2; this metaopt reads schema 1"),
        ("step", -1, "its step is -1"),
        ("created", "today", "today"),
        ("file", {"name": "x"}, "it has no size"),
        ("origin", {}, "states no origin"),
        ("metrics", {"loss": "low"}, "its metrics is"),
    ],
)
def test_a_sealed_sidecar_of_another_form_is_refused(path, name, value, message):
    from metaopt.trajectories.sealed_json import read_sealed, write_sealed

    save_checkpoint(path, STATE, {}, FACTS)
    write_sealed(sidecar_path(path), {**read_sealed(sidecar_path(path)), name: value})
    with pytest.raises(FileFormatError, match=message):
        read_entry(path)


def test_a_sharded_checkpoint_has_one_sidecar(path):
    writer = SidecarWriter(path, FACTS)
    tensors = {name: torch.ones(100) for name in "abc"}
    write_tensors(path, tensors, "checkpoint", {"state": {}}, shard_size=400, before_rename=writer.before_rename)
    entry = check_entry(path)
    shards = files_of(path)[1:]
    assert len(shards) == 3
    assert entry.file.shards_size == sum(shard.stat().st_size for shard in shards)
    assert len([*path.parent.glob("*.json")]) == 1
    remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


def test_a_disk_that_is_full_while_the_ledger_is_written_is_a_warning(path, caplog):
    save_checkpoint(path, {"model": {}}, {}, FACTS)

    def save_with_little_room():  # the checkpoint takes 600 bytes, the sidecar 1,200
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        save_checkpoint(path, STATE, {}, FACTS)
        assert "gets no ledger entry, and the training goes on: could not write" in caplog.text

    assert in_a_process(save_with_little_room) == 0
    assert torch.equal(load_checkpoint(path)[0]["model"]["w"], torch.arange(5.0))
    assert list(path.parent.iterdir()) == [path]


def test_an_overwritten_run_removes_its_sidecars_pins_and_shards(tmp_path):
    folder = tmp_path / "run"
    with claim_run_folder(folder, "net_*"):
        save_checkpoint(folder / "net_1.safetensors", STATE, {}, FACTS)
        save_checkpoint(folder / "other.safetensors", STATE, {}, FACTS)
        (folder / "net_1.safetensors.pinned").touch()
        (folder / "shard_00000000_00001_of_00001_net_1.safetensors").touch()
    with claim_run_folder(folder, "net_*", overwrite=True) as claimed:
        assert claimed.replaced == (folder / "net_1.safetensors",)
        claimed.clear()
    assert {each.name for each in folder.glob("[!.]*")} == {"other.safetensors", "other.safetensors.json"}


def test_a_sidecar_without_a_checkpoint_does_not_take_the_run_name(tmp_path):
    folder = tmp_path / "run"
    with claim_run_folder(folder, "net_*"):
        sidecar_path(folder / "net_1.safetensors").write_text("{}")
    with claim_run_folder(folder, "net_*"):
        assert [*folder.glob("net_*")] == []


def test_a_trajectory_states_its_origin(tmp_path):
    origin = Origin(ORIGIN.generator, (Parent("trajectory", "a/seed_0", "1" * 32, "2" * 32),))
    assert read_origin(tmp_path) is None
    write_origin(tmp_path, origin)
    assert read_origin(tmp_path) == origin


def test_an_origin_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    write_origin(tmp_path / "file", ORIGIN)
    assert "the origin of" in caplog.text


@pytest.mark.parametrize(
    "change",
    [{"parents": 3}, {"parents": [{"kind": "dream"}]}, {"generator": None}, {"parents": [{}]}],
)
def test_an_invalid_origin_is_refused(change):
    with pytest.raises(FileFormatError, match="states no origin that this metaopt can read"):
        Origin.from_mapping({**ORIGIN.to_mapping(), **change}, "the file")


def test_an_origin_has_the_digest_of_the_configuration_that_runs_and_jobs_have():
    config = TrainTargetConfig(lr="0.1", checkpoint_dir="a")
    made = Generator.of("train-target", config)
    assert made.config == config_digest(config)
    assert Generator.of("train-target", replace(config, checkpoint_dir="b", resume=True, device="cpu")) == made
    assert Generator.of("train-target", replace(config, lr="0.2")) != made


def test_a_checkpoint_that_cannot_be_removed_is_an_error(path):
    path.mkdir()
    with pytest.raises(StorageError, match="could not remove"):
        remove_checkpoint(path)


def test_the_sidecar_is_plain_json(path):
    save_checkpoint(path, STATE, {}, FACTS)
    assert json.loads(sidecar_path(path).read_text())["run_name"] == "digits/seed_0"
