"""What a job finds that begins again after a kill: no files of an earlier training, and no second version."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaopt import workflows
from metaopt.core.control import control
from metaopt.operations.resuming import resumed
from metaopt.operations.workflow_table import find_workflow
from metaopt.trajectories.checkpoint import save_checkpoint

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
