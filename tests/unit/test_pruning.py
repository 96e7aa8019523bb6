"""`metaopt prune` deletes what the plan says, index first, and nothing that is in use or that somebody needs."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from metaopt.core.errors import CheckpointError, StorageError
from metaopt.operations import pruning
from metaopt.operations.ledger import INDEX_FILE, Ledger, scan
from metaopt.operations.pruning import Elsewhere, PruneConfig, prune
from metaopt.trajectories import claim_run_folder
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.trajectories.ledger_entry import TrainingFacts, entry_of, sidecar_path
from metaopt.trajectories.origin import Generator, Origin

NOWHERE = Elsewhere({}, {}, frozenset())


def write(path: Path, step: int, loss: float, run_id: str | None = None) -> Path:
    origin = Origin(Generator("train-optimizer", "0.1.0", "0" * 32), ())
    facts = TrainingFacts("optimizer", path.parent.name, run_id, step, {"val_loss": loss}, origin)
    save_checkpoint(path, {"model": {"w": torch.full((4,), float(step))}}, {}, facts)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five checkpoints of a run; the second is the best. The tracking store has nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Elsewhere, "read", classmethod(lambda cls: NOWHERE))
    for step, loss in enumerate((0.5, 0.1, 0.4, 0.3, 0.2)):
        write(tmp_path / "checkpoints" / "run" / f"net_epoch_{step}.safetensors", step, loss)
    return tmp_path / "checkpoints"


def strict(**values):
    return PruneConfig(**{"keep_latest": 1, "keep_days": 0, **values})


def names(folder):
    return sorted(path.name for path in (folder / "run").glob("*.safetensors"))


KEPT = ["net_epoch_1.safetensors", "net_epoch_4.safetensors"]


def test_a_dry_run_deletes_nothing(folder):
    pruned = prune(strict())
    assert [each.path for each in pruned.decisions if each.keep] == [f"run/{name}" for name in KEPT]
    assert len(names(folder)) == 5
    assert (pruned.deleted, pruned.freed) == ((), 0)


def test_what_the_plan_does_not_keep_is_deleted_with_its_sidecar(folder):
    pruned = prune(strict(apply=True))
    assert names(folder) == KEPT
    assert len(pruned.deleted) == 3
    assert pruned.freed > 3 * 600
    assert len([*folder.glob("run/*.json")]) == 2
    assert [each.path for each in Ledger(folder).records()] == [f"run/{name}" for name in KEPT]
    assert prune(strict(apply=True)).deleted == ()


def test_registered_and_unsent_checkpoints_stay(folder, monkeypatch):
    registered = entry_of(folder / "run" / "net_epoch_0.safetensors").file.content_sha256
    unsent = frozenset({folder / "run" / "net_epoch_2.safetensors"})
    monkeypatch.setattr(Elsewhere, "read", lambda: Elsewhere({registered: "models:/m/1"}, {}, unsent))
    pruned = prune(strict(apply=True))
    assert pruned.deleted == ("run/net_epoch_3.safetensors",)
    reasons = {each.path: each.reason for each in pruned.decisions}
    assert reasons["run/net_epoch_0.safetensors"] == "registered as models:/m/1"
    assert "waits to be sent" in reasons["run/net_epoch_2.safetensors"]


def test_a_version_of_an_older_metaopt_protects_all_checkpoints_of_its_run(folder, monkeypatch):
    write(folder / "run" / "net_epoch_2.safetensors", 2, 0.4, run_id="a" * 32)
    monkeypatch.setattr(Elsewhere, "read", lambda: Elsewhere({}, {"a" * 32: "models:/m/1"}, frozenset()))
    prune(strict(apply=True))
    assert "net_epoch_2.safetensors" in names(folder)


@contextmanager
def training_in(folder: Path):
    """Another process that holds the lock of a folder."""
    (ready, started), (wait, done) = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        with claim_run_folder(folder, "x_*"):
            os.write(started, b"x")
            os.read(wait, 1)
        os._exit(0)
    os.read(ready, 1)
    try:
        yield
    finally:
        os.write(done, b"x")
        os.waitpid(child, 0)


@pytest.mark.parametrize("locked", ["checkpoints/run", "trajectories/run"])
def test_the_folder_of_a_training_is_left_alone(folder, locked):
    with training_in(folder.parent / locked):
        pruned = prune(strict(apply=True))
        assert {each.reason for each in pruned.decisions} == {"a training uses the folder of its run"}
    assert len(names(folder)) == 5
    assert len(prune(strict(apply=True)).deleted) == 3


def test_a_training_that_begins_after_the_plan_is_noticed(folder):
    decisions = prune(strict()).decisions
    with training_in(folder / "run"):
        assert pruning.delete(Ledger(folder), decisions, Path("trajectories")) == []
    assert len(names(folder)) == 5


def test_a_pin_that_is_set_after_the_plan_is_noticed(folder):
    decisions = prune(strict()).decisions
    prune(strict(pin=("run/net_epoch_0.safetensors",)))
    deleted = pruning.delete(Ledger(folder), decisions, Path("trajectories"))
    assert [each.path for each in deleted] == ["run/net_epoch_2.safetensors", "run/net_epoch_3.safetensors"]


def test_pins_are_files_beside_the_checkpoint(folder):
    prune(strict(pin=("run/net_epoch_0.safetensors", "checkpoints/run/net_epoch_2.safetensors")))
    assert prune(strict(apply=True)).deleted == ("run/net_epoch_3.safetensors",)
    prune(strict(apply=True, unpin=("run/net_epoch_0.safetensors",)))
    assert names(folder) == [KEPT[0], "net_epoch_2.safetensors", KEPT[1]]
    assert [each.is_pinned for each in scan(folder).records] == [False, True, False]


def test_a_mistyped_pin_is_an_error_before_anything_is_deleted(folder):
    with pytest.raises(CheckpointError, match=r"no checkpoint 'run/net_epoch_9\.safetensors' in .*did you mean"):
        prune(strict(apply=True, pin=("run/net_epoch_9.safetensors",)))
    assert len(names(folder)) == 5


@pytest.mark.parametrize("after", range(4))
def test_a_kill_leaves_at_worst_files_that_the_next_run_finds(folder, monkeypatch, after):
    """The process ends after so many removed files; the index names no missing file, and the next run goes on."""
    removed = []
    unlink = Path.unlink

    def killed(path, missing_ok=False):
        if path.parent.name == "run" and not path.name.startswith(".") and path.exists():
            if len(removed) == after:
                raise KeyboardInterrupt
            removed.append(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(strict(apply=True))
    monkeypatch.setattr(Path, "unlink", unlink)
    assert all((folder / each.path).exists() for each in Ledger(folder).records())
    prune(strict(apply=True))
    assert names(folder) == KEPT
    assert sorted(path.name for path in folder.glob("run/*.json")) == [f"{name}.json" for name in KEPT]


def test_checkpoints_without_a_sidecar_or_with_another_stay(folder):
    for number in (0, 2):
        sidecar_path(folder / "run" / f"net_epoch_{number}.safetensors").unlink()
    other = sidecar_path(folder / "run" / "net_epoch_4.safetensors").read_text()
    sidecar_path(folder / "run" / "net_epoch_2.safetensors").write_text(other)
    pruned = prune(strict(apply=True))
    assert pruned.deleted == ("run/net_epoch_3.safetensors",)
    reasons = [each.reason for each in pruned.decisions]
    assert "unknown to the ledger: cannot read" in reasons[0]
    assert "is the sidecar of another file" in reasons[2]


def test_a_json_file_of_somebody_else_stays(folder):
    other = folder / "run" / "mine.safetensors.json"
    other.write_text("{}")
    prune(strict(apply=True))
    assert other.exists()


def test_other_files_of_weights_are_not_the_ledgers(folder):
    from metaopt.weights.files import write_tensors

    write_tensors(folder / "run" / "policy.safetensors", {}, "weights", {})
    found = scan(folder)
    assert (len(found.records), found.problems, found.leftovers) == (5, {}, [])


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + bytes(4000)])
def test_a_damaged_index_is_built_again(folder, damage, caplog):
    Ledger(folder).sync()
    rows = Ledger(folder).records()
    (folder / INDEX_FILE).write_bytes(damage)
    for _ in range(2):
        Ledger(folder).sync()
    assert Ledger(folder).records() == rows
    assert "is removed" in caplog.text


def test_an_index_of_another_version_is_built_again(folder):
    import sqlite3

    Ledger(folder).sync()
    with sqlite3.connect(folder / INDEX_FILE) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    Ledger(folder).sync()
    assert len(Ledger(folder).records()) == 5


def test_a_full_disk_does_not_keep_prune_from_deleting(folder, monkeypatch):
    """Where the index cannot be changed it is removed, so that it names no missing file."""
    from sqlalchemy.exc import OperationalError

    from metaopt.operations import ledger

    def full(connection, paths):
        raise OperationalError("DELETE", {}, Exception("database or disk is full"))

    monkeypatch.setattr(ledger, "_delete", full)
    prune(strict(apply=True))
    assert names(folder) == KEPT
    assert not (folder / INDEX_FILE).exists()


def test_an_index_in_use_is_said(folder, monkeypatch):
    from sqlalchemy.exc import OperationalError

    from metaopt.operations import ledger

    def locked(connection):
        raise OperationalError("SELECT", {}, Exception("database is locked"))

    monkeypatch.setattr(ledger, "_prepare", locked)
    with pytest.raises(StorageError, match=r"ledger\.db is in use by another process"):
        prune(strict())


def test_a_folder_that_does_not_exist_has_no_checkpoints(tmp_path):
    assert prune(PruneConfig(checkpoint_dir=tmp_path / "none")).decisions == []
    assert prune(PruneConfig(checkpoint_dir=tmp_path)).decisions == []
    assert [*tmp_path.iterdir()] == []


def test_the_facts_are_json(folder):
    from metaopt.cli.ledger import pruned_result

    config = strict(max_gigabytes=0)
    result = pruned_result(prune(config), config)
    assert json.loads(result.json())["decisions"][0]["keep"] is False
    assert "would be deleted" in result.text()
    assert "max_gigabytes is 0, but" in result.text()
