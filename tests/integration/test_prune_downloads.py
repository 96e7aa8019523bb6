"""Fetched checkpoints are deleted when they are old, nothing reads them, and the tracking store has them."""

import os
import time
from pathlib import Path

import pytest

from metaopt.core.errors import StorageError, TrackingError
from metaopt.operations.downloads import downloads, remove_download
from metaopt.operations.pruning import PruneConfig, prune
from metaopt.tracking import connect, has_checkpoint, resolve_checkpoint, start_run

CACHE = Path("checkpoints/.downloads")
DAY = 86_400


@pytest.fixture
def fetched(store, config):
    """The folders of two checkpoints of a run that were fetched; the first was used ten days ago."""
    with start_run("meta", config) as tracker:
        for epoch in (0, 1):
            path = Path(f"net_epoch_{epoch}.safetensors")
            path.write_text(f"epoch {epoch}")
            tracker.files([path], f"checkpoints/epoch_{epoch:04d}")
    run_id = tracker.run_id
    for epoch in (0, 1):
        resolve_checkpoint(f"runs:/{run_id}/checkpoints/epoch_{epoch:04d}", CACHE)
    folders = sorted((CACHE / run_id).iterdir())
    age(folders[0])
    return folders


def age(folder, days=10.0):
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - days * DAY,) * 2)


def reasons(**values):
    return {Path(each.path).name: each.reason for each in prune(PruneConfig(keep_days=0, **values)).decisions}


def test_a_dry_run_says_what_would_be_deleted(fetched):
    found = reasons()
    assert found == {
        "epoch_0000": f"a copy of runs:/{fetched[0].parent.name}/checkpoints/epoch_0000, not used for 10 days",
        "epoch_0001": "a training may read it: it was used within the last day",
    }
    assert all(folder.exists() for folder in fetched)


def test_an_old_copy_is_deleted_and_can_be_fetched_again(fetched):
    pruned = prune(PruneConfig(keep_days=0, apply=True))
    assert [Path(each).name for each in pruned.deleted] == ["epoch_0000"]
    assert (pruned.freed, [folder.exists() for folder in fetched]) == (7, [False, True])
    resolve_checkpoint(f"runs:/{fetched[0].parent.name}/checkpoints/epoch_0000", CACHE)
    assert fetched[0].is_dir()
    for folder in fetched:
        age(folder)
    prune(PruneConfig(apply=True))
    assert [*CACHE.iterdir()] == []


def test_an_age_and_names_keep_a_copy(fetched):
    assert prune(PruneConfig(keep_days=20, apply=True)).deleted == ()
    assert reasons(apply=True, keep_names=(".downloads/*",))["epoch_0000"] == "keep_names has .downloads/*"
    assert fetched[0].exists()


def test_a_use_makes_a_copy_young_again(fetched):
    resolve_checkpoint(f"runs:/{fetched[0].parent.name}/checkpoints/epoch_0000", CACHE)
    assert prune(PruneConfig(keep_days=0, apply=True)).deleted == ()
    age(fetched[0])
    assert [each.path for each in downloads(Path("checkpoints"))] == [
        folder.relative_to("checkpoints").as_posix() for folder in fetched
    ]
    resolve_checkpoint(f"runs:/{fetched[0].parent.name}/checkpoints/epoch_0000", CACHE)
    assert not remove_download(Path("checkpoints"), fetched[0].relative_to("checkpoints").as_posix())


def test_the_limit_of_the_size_counts_copies(fetched):
    age(fetched[1], days=3)
    assert len(prune(PruneConfig(keep_days=20)).deleted) == 0
    pruned = prune(PruneConfig(keep_days=20, max_gigabytes=8e-9, apply=True))
    assert [Path(each).name for each in pruned.deleted] == ["epoch_0000"]


def test_what_may_be_the_only_copy_stays(fetched, store):
    manifest = next(store.glob("mlruns/*/*/artifacts/checkpoints/epoch_0000/manifest.json"))
    text = manifest.read_text()
    manifest.unlink()
    only = "the tracking store does not have it: this may be the only copy"
    assert reasons(apply=True)["epoch_0000"] == only
    manifest.write_text(text)
    assert not has_checkpoint("0" * 32, "epoch_0000")
    Path("mlflow.db").rename("elsewhere.db")
    assert reasons(apply=True)["epoch_0000"] == only
    assert not Path("mlflow.db").exists()


def test_nothing_is_deleted_while_the_store_does_not_respond(fetched, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError):
        prune(PruneConfig(keep_days=0, apply=True))
    with pytest.raises(TrackingError):
        has_checkpoint(fetched[0].parent.name, "epoch_0000")
    assert fetched[0].exists()


def test_links_and_other_folders_are_left_alone(fetched, store):
    (CACHE / "notes" / "mine").mkdir(parents=True)
    target = store / "elsewhere"
    target.mkdir()
    link = fetched[0].with_name("linked")
    link.symlink_to(target)
    assert len([*downloads(Path("checkpoints"))]) == 2
    fetched[0].parent.rename(store / "moved")
    fetched[0].parent.symlink_to(store / "moved")
    assert [*downloads(Path("checkpoints"))] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_a_copy_that_cannot_be_removed_is_an_error(fetched):
    fetched[0].chmod(0o500)
    try:
        with pytest.raises(StorageError, match="could not remove"):
            prune(PruneConfig(keep_days=0, apply=True))
    finally:
        fetched[0].chmod(0o700)


def test_a_copy_of_a_deleted_run_stays(fetched):
    assert has_checkpoint(fetched[0].parent.name, "epoch_0000")
    connect().delete_run(fetched[0].parent.name)
    assert not has_checkpoint(fetched[0].parent.name, "epoch_0000")
