"""A recording is what it consists of: which trajectories are downloaded, linked and learned from."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metaopt import Trajectory, workflows
from metaopt.core.errors import FileFormatError, TrackingError
from metaopt.tracking import fetch_trajectories, find_recordings, start_run
from metaopt.trajectories.recording_file import read_run_id

HERE = Path("trajectories")
PERCEIVER = {"dim": 16, "num_latents": 2, "latent_dim": 16, "heads": 2}


def record(width, **options):
    """Record tiny trainings with the run name `cnn`."""
    small = {"run_name": "cnn", "target_model": "MLP", "target_options": {"widths": [width]}, "epochs": 1}
    return workflows.record(workflows.TrainTargetConfig(**{**small, **options}))


def learn(**options):
    config = workflows.TrainOptimizerConfig(
        run_name="cnn", epochs=1, pairs_per_epoch=4, objective="weights", optimizer_options=PERCEIVER, model_name=None
    )
    return workflows.train(config)


def run_ids(folder=HERE / "cnn"):
    return {path.name: read_run_id(path) for path in sorted(folder.glob("seed_*"))}


def widths(folder=HERE / "cnn"):
    return {path.name: Trajectory.open(path).run["target_config"]["widths"] for path in folder.glob("seed_*")}


def test_overwritten_trajectories_do_not_come_back(store, client):
    record(4, runs=2)
    old = run_ids()
    record(8, runs=1, overwrite=True)
    made = learn()
    assert widths() == {"seed_0": [8]}
    linked = client.get_run(made.run.run_id).data.tags["metaopt.trajectory_runs"].split(",")
    assert set(linked) == set(run_ids().values())
    assert not set(linked) & set(old.values())


def test_a_deleted_local_folder_is_downloaded_again(store):
    record(4, runs=3)
    ids = run_ids()
    shutil.rmtree(HERE / "cnn" / "seed_1")
    assert fetch_trajectories("cnn", HERE) == [HERE / "cnn" / "seed_1"]
    assert run_ids() == ids
    shutil.rmtree(HERE)
    assert len(fetch_trajectories("cnn", HERE)) == 3
    assert run_ids() == ids
    assert fetch_trajectories("cnn", HERE) == []


def test_a_local_folder_is_completed_from_its_own_recording_only(store):
    record(4, runs=2)
    old = run_ids()
    shutil.copytree(HERE / "cnn" / "seed_0", "kept")
    record(8, runs=2, overwrite=True)
    shutil.rmtree(HERE / "cnn")
    shutil.move("kept", HERE / "cnn" / "seed_0")
    assert fetch_trajectories("cnn", HERE) == [HERE / "cnn" / "seed_1"]
    assert run_ids() == old


def test_trajectories_without_a_known_run_are_left_as_they_are(store):
    record(4, runs=2)
    shutil.rmtree(HERE / "cnn" / "seed_1")
    (HERE / "cnn" / "seed_0" / "run.json").unlink()
    assert fetch_trajectories("cnn", HERE) == []


def test_a_resumed_recording_includes_the_trajectories_that_were_complete(store):
    record(4, runs=2)
    first = run_ids()
    record(4, runs=3, resume=True)
    newest = next(find_recordings("cnn"))
    assert newest.trajectories == run_ids()
    assert newest.trajectories.items() >= first.items()
    assert len(newest.trajectories) == 3


def test_recordings_of_other_experiments_are_not_used(store, client, monkeypatch):
    record(4, runs=2)
    shutil.rmtree(HERE)
    other = client.create_experiment("of somebody else")
    assert fetch_trajectories("cnn", HERE, other) == []
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "not made yet")
    assert fetch_trajectories("cnn", HERE) == []
    assert not HERE.exists()


def test_several_processes_can_download_at_the_same_time(store):
    record(4, runs=4)
    ids = run_ids()
    shutil.rmtree(HERE)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch_trajectories("cnn", HERE), range(4)))
    assert run_ids() == ids
    assert sorted(path.name for path in (HERE / "cnn").iterdir()) == list(ids)


@pytest.mark.parametrize("runs", [1, 2])
def test_a_recording_killed_during_its_upload_is_uploaded_when_it_is_resumed(store, client, runs):
    record(4, runs=runs)
    killed = run_ids()["seed_0"]
    next(store.glob(f"mlruns/*/{killed}/artifacts/trajectory/manifest.json")).unlink()
    (HERE / "cnn" / "seed_0" / "run.json").unlink()
    record(4, runs=runs, resume=True)
    ids = run_ids()
    assert ids["seed_0"] not in (None, killed)
    described = client.get_run(ids["seed_0"]).data.tags["mlflow.note.content"]
    assert "validation loss **" in described
    shutil.rmtree(HERE)
    assert len(fetch_trajectories("cnn", HERE)) == runs
    assert run_ids() == ids


def test_a_complete_recording_is_not_uploaded_twice(store):
    record(4)
    ids = run_ids()
    record(4, resume=True)
    assert run_ids() == ids


@pytest.fixture
def old_run(store, config):
    """Create a phase-1 run as metaopt 0.1 did: without a list of the recording."""

    def make(seed, content="w", *, run_name="cnn", phase="target", finish_upload=True, parent=None, fail=False):
        try:
            with start_run(f"{run_name}-{seed}", config, parent=parent) as tracker:
                tracker.tags({"metaopt.run_name": run_name, "metaopt.phase": phase, "metaopt.seed": seed})
                Path("step_0.safetensors").write_text(content)
                if phase == "target" and finish_upload:
                    tracker.files([Path("step_0.safetensors")], "trajectory")
                if fail:
                    raise RuntimeError("diverged")
        except RuntimeError:
            pass
        return tracker.run_id

    return make


def test_recordings_of_old_versions_are_found_by_their_parent(old_run):
    single = old_run(0)
    parent = old_run("", phase="targets")
    first, second = old_run(0, parent=parent), old_run(1, parent=parent)
    old_run(2, parent=parent, fail=True)
    old_run(3, parent=parent, finish_upload=False)
    old_run(0, run_name="mlp")
    found = {each.run_id: each.trajectories for each in find_recordings("cnn")}
    assert found == {parent: {"seed_0": first, "seed_1": second}, single: {"seed_0": single}}


def test_a_name_with_an_apostrophe(old_run):
    run_id = old_run(0, "downloaded", run_name="it's")
    (folder,) = fetch_trajectories("it's", HERE)
    assert (folder / "step_0.safetensors").read_text() == "downloaded"
    assert read_run_id(folder) == run_id
    assert list(find_recordings("none")) == []


def test_a_damaged_trajectory_leaves_no_folder(old_run, store):
    run_id = old_run(0)
    next(store.glob(f"mlruns/*/{run_id}/artifacts/trajectory/step_0.safetensors")).write_text("x")
    with pytest.raises(TrackingError, match="is damaged"):
        fetch_trajectories("cnn", HERE)
    assert not list((HERE / "cnn").iterdir())


def test_a_pipe_in_place_of_the_run_of_a_trajectory_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    assert read_run_id(tmp_path) is None


@pytest.mark.parametrize("seed", ["../up", "-1", "one"])
def test_a_seed_that_is_not_an_integer_is_an_error(old_run, seed):
    old_run(seed)
    with pytest.raises(TrackingError, match=r"metaopt\.seed"):
        list(find_recordings("cnn"))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"schema": 9, "trajectories": {}},
        {"schema": 1, "trajectories": 3},
        {"schema": 1, "trajectories": {"../up": "0" * 32}},
        {"schema": 1, "trajectories": {"seed_0": "../up"}},
    ],
)
def test_a_damaged_list_of_a_recording_is_an_error(store, config, document):
    with start_run("recorded", config) as tracker:
        tracker.tags({"metaopt.run_name": "cnn", "metaopt.phase": "targets", "metaopt.recording": 1})
        tracker.text(json.dumps(document), "recording.json")
    with pytest.raises(FileFormatError, match="record again"):
        fetch_trajectories("cnn", HERE)
