"""What a job finds that begins again after a kill: no files of an earlier training, and no second version."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaopt import workflows
from metaopt.core.control import control
from metaopt.core.tracker import SilentTracker
from metaopt.metatraining.trainer import train_optimizer
from metaopt.operations.resuming import resumed
from metaopt.operations.workflow_table import find_workflow
from metaopt.tracking import CANDIDATE, CHAMPION, champion_version, connect, start_run
from metaopt.trajectories.checkpoint import save_checkpoint
from metaopt.workflows.register_optimizer import register_version

from ..growing import EPISODE

TARGET = workflows.TrainTargetConfig(
    run_name="old", target_model="MLP", target_options={"widths": [8]}, runs=4, epochs=1, batch_size=64
)
OPTIMIZER = workflows.TrainOptimizerConfig(run_name="old", optimizer_model="Line", epochs=1, pairs_per_epoch=8)
MAIN = workflows.MainConfig(
    run_name="old", target_options={"widths": [8]}, runs=4, target_epochs=1, optimizer_epochs=1, pairs_per_epoch=8,
    steps=40, seeds=1,
)  # fmt: skip
CONTROLLER = workflows.TrainControllerConfig(**EPISODE, run_name="old", episodes=2, n_envs=2, minibatch=6, ppo_epochs=1)


class Killed(BaseException):
    """What a test raises in place of a kill."""


@pytest.fixture
def noted():
    """Lets a test see each run when a queue would note it."""
    yield control
    control.on_run = None


@pytest.fixture
def recorded(module_store):
    """Recorded trajectories."""
    if not Path("trajectories/old").exists():
        workflows.record(TARGET)


@pytest.mark.parametrize(
    ("config", "old"),
    [
        pytest.param(OPTIMIZER, "checkpoints/old/Line_epoch_3.safetensors", id="train-optimizer"),
        pytest.param(CONTROLLER, "checkpoints/old/controller_rollout_3.safetensors", id="train-controller"),
        pytest.param(TARGET, "trajectories/old/seed_9/step_00000000.safetensors", id="train-target"),
        pytest.param(MAIN, "trajectories/old/seed_9/step_00000000.safetensors", id="main"),
    ],
)
def test_a_job_that_overwrites_never_takes_the_old_files_for_its_own(config, old, recorded, noted, request):
    workflow, config = request.node.callspec.id, replace(config, overwrite=True)
    Path(old).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(Path(old), {"w": torch.ones(1)}, {})

    def kill(run_id):
        raise Killed

    noted.on_run = kill
    with pytest.raises(Killed):
        find_workflow(workflow).run(config)
    assert not Path(old).exists(), "the next attempt would resume it"
    assert resumed(workflow, config) == config


@pytest.fixture
def attempt():
    """Runs an attempt of a job, which knows the runs of those before."""
    runs = []
    control.on_run = runs.append

    def run(workflow, config):
        control.earlier_runs = tuple(runs)
        return find_workflow(workflow).run(resumed(workflow, config) if runs else config)

    yield run
    control.on_run, control.earlier_runs = None, ()


def versions(name):
    """Each version of a name, with its tags and its description."""
    found = connect().search_model_versions(f"name = '{name}'")
    return {int(each.version): (each.tags, each.description) for each in found}


def undo_all_but_the_version(name):
    """Leave what a registration leaves that is killed as soon as it has a version."""
    client = connect()
    for number, (tags, _) in versions(name).items():
        for tag in tags:
            client.delete_model_version_tag(name, str(number), tag)
        client.update_model_version(name, str(number), "")
    for alias in (CANDIDATE, CHAMPION):
        client.delete_registered_model_alias(name, alias)


@pytest.mark.parametrize("workflow", ["train-optimizer", "train-controller"])
def test_a_job_that_is_killed_before_its_end_registers_once(workflow, recorded, attempt):
    name = f"once-{workflow}"
    config = CONTROLLER if workflow == "train-controller" else OPTIMIZER
    config = replace(config, overwrite=True, model_name=name)
    first = attempt(workflow, config)
    complete = versions(name)
    undo_all_but_the_version(name)
    again = attempt(workflow, config)
    assert first.model_uri == again.model_uri == f"models:/{name}/1"
    ((tags, card),) = versions(name).values()
    assert tags.keys() == complete[1][0].keys()
    assert [line for line in card.splitlines() if "Trained by" not in line] == [
        line for line in complete[1][1].splitlines() if "Trained by" not in line
    ]
    assert [champion_version(name, alias) for alias in (CANDIDATE, CHAMPION)] == [1, 1]


def test_only_the_same_weights_of_the_same_job_are_registered_once(recorded, attempt):
    hope = replace(OPTIMIZER, optimizer_model="HopeOptimizer", optimizer_options={"dim": 8, "history": 3})
    made = [
        train_optimizer(replace(hope, checkpoint_name=f"seed_{seed}", seed=seed), SilentTracker()) for seed in (0, 1)
    ]
    one, other = (workflows.RegisterConfig(checkpoint=str(each.checkpoint), model_name="weights") for each in made)
    run = workflows.register(one).run.run_id
    assert workflows.register(one).model_uri == "models:/weights/2", "another job, or no job"
    control.earlier_runs = (run, "0" * 32)  # the store has lost the second one
    assert workflows.register(one).model_uri == "models:/weights/1"
    assert champion_version("weights", CANDIDATE) == 2, "the newest version stays candidate"
    assert workflows.register(other).model_uri == "models:/weights/3"

    with start_run("main job", MAIN) as main, main.child("phase 2") as phase:
        assert register_version(made[1], "weights", phase).version == 4
    control.earlier_runs = (main.run_id,)
    assert workflows.register(other).model_uri == "models:/weights/4"


@pytest.mark.slow
def test_the_main_job_keeps_what_it_has_recorded_and_registers_once(module_store, attempt):
    config = replace(MAIN, run_name="main", overwrite=False)
    first = attempt("main", config)
    files = {path: path.stat().st_mtime_ns for folder in first.folders for path in folder.glob("step_*")}
    again = attempt("main", config)
    assert files == {path: path.stat().st_mtime_ns for folder in again.folders for path in folder.glob("step_*")}
    assert (first.version, again.version) == (1, 1)
    assert again.trained.checkpoint.read_bytes()
    assert again.comparison.candidate == first.comparison.candidate
