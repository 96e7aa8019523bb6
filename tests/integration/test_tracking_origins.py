"""The store says which checkpoints are registered and which files wait; `prune` keeps both."""

import json
from pathlib import Path

import pytest

from metaopt.core.errors import TrackingError
from metaopt.tracking import origin_tag, registered_checkpoints, unsent_files, version_origin
from metaopt.tracking.operations import UploadFolder
from metaopt.tracking.tags import ORIGIN_TAG
from metaopt.tracking.unsent import save_unsent
from metaopt.trajectories.origin import Generator, Origin, Parent

ORIGIN = Origin(Generator("register", "0.2.0", "a" * 32), (Parent("checkpoint", "digits, step 4", "c" * 64),))


@pytest.fixture
def run_id(client):
    return client.create_run("0").info.run_id


@pytest.fixture
def register(client, run_id):
    """Registers versions of a model."""
    client.create_registered_model("m")
    return lambda **tags: client.create_model_version("m", f"runs:/{run_id}/x", run_id, tags=tags)


def test_versions_name_their_checkpoint_or_their_run(register, run_id):
    register(**origin_tag(ORIGIN))
    register()
    assert registered_checkpoints() == ({"c" * 64: "models:/m/1"}, {run_id: "models:/m/2"})


def test_a_version_states_its_origin(register, run_id):
    register(**origin_tag(ORIGIN))
    assert version_origin("models:/m/1") == ("models:/m/1", run_id, ORIGIN)


@pytest.mark.parametrize("tag", ["", "[]", "{}", "[" * 5000, json.dumps({"generator": 1})])
def test_a_damaged_origin_is_none(register, run_id, tag):
    register(**{ORIGIN_TAG: tag})
    assert version_origin("models:/m/1")[2] is None
    assert registered_checkpoints() == ({}, {run_id: "models:/m/1"})


def test_without_a_store_nothing_is_registered_and_none_is_created(store):
    Path("mlflow.db").unlink()
    assert registered_checkpoints() == ({}, {})
    assert not Path("mlflow.db").exists()


def test_a_store_that_does_not_respond_is_an_error(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError):
        registered_checkpoints()


def test_files_that_wait_to_be_sent_are_listed(store):
    assert unsent_files() == set()
    path = Path("checkpoints/net.safetensors").absolute()
    save_unsent([UploadFolder("run", [str(path)], "checkpoints/epoch_0000", "{}")], "run", "sqlite:///mlflow.db", {})
    assert unsent_files() == {path}
