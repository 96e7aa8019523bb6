"""Real workers with real trainings: paused, killed and resumed to the bytes of an undisturbed training."""

from dataclasses import replace
from pathlib import Path

import pytest

from metaopt.core.tracker import SilentTracker
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.operations.jobs import JobOptions, State
from metaopt.operations.queue import JobQueue
from metaopt.operations.resuming import resumed
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.reinforcement.config import TrainControllerConfig
from metaopt.reinforcement.training import train_controller

from ..growing import EPISODE
from ..working import WITHIN, WorkerProcess, kill_job, started, steps, wait_for

TRAINING = {"target_model": "MLP", "target_options": {"widths": [8]}, "epochs": 10, "batch_size": 16,
            "snapshot_every": 20, "checkpoint_every": 3}  # fmt: skip


@pytest.fixture(scope="module")
def queue(module_store):
    with JobQueue("queue.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(module_store):
    started_when_needed = WorkerProcess(module_store)
    yield started_when_needed
    started_when_needed.kill()


def same_bytes(expected, found, names):
    """Compare files of two folders by their contents."""
    assert names
    return all((expected / name).read_bytes() == (found / name).read_bytes() for name in names)


def test_a_job_survives_a_pause_and_kills_of_itself_and_of_its_worker(queue, worker, module_store):
    (undisturbed,) = train_targets(TrainTargetConfig(run_name="undisturbed", **TRAINING), SilentTracker())
    urgent = JobOptions(priority=1)
    bad_task = {"task": "text", "data_dir": "missing.txt", "target_model": "GPT"}
    queue.add("train-target", {"run_name": "bad", **bad_task}, urgent)
    queue.add("train-target", {"run_name": "code", "target_model": "somebody.elses:network"}, urgent)
    number = queue.add("train-target", {"run_name": "job", **TRAINING}, JobOptions(max_attempts=2)).id
    worker.start()
    worker.wait_for(lambda: steps(queue, number, 1))
    assert queue.pause(number).request == "pause"
    worker.wait_for(lambda: queue.get(number).state is State.PAUSED)
    bad, code = queue.jobs([State.FAILED])
    assert (bad.attempt, code.attempt) == (1, 1), "errors of the user fail at once"
    assert "missing.txt" in bad.error
    assert "sets target_model to 'somebody.elses:network', and a file must not run code" in code.error
    with started(module_store) as second:
        assert second.wait(WITHIN) == 1
        assert "slot 'default' of this machine has a worker" in second.stderr.read()
    assert queue.get(number).attempt == 1, "a paused job stays paused"

    queue.resume(number)
    worker.wait_for(lambda: steps(queue, number, 2))
    kill_job(queue, number)
    worker.wait_for(lambda: steps(queue, number, 3))
    assert queue.get(number).failures == 1
    worker.kill()
    given_back = wait_for(lambda: (job := queue.get(number)).state is State.QUEUED and job)
    assert (given_back.failures, given_back.attempt) == (1, 3), "the worker was killed, not the job"
    last = worker.start()
    worker.wait_for(lambda: steps(queue, number, 4))
    last.terminate()
    assert last.wait(WITHIN) == 0, last.stderr.read()
    job = queue.get(number)
    assert (job.state, job.attempt, job.failures, len(job.run_ids)) == (State.QUEUED, 4, 1, 4)
    assert queue.workers() == []
    log = module_store / "operations" / "logs" / str(number) / "4.log"
    assert "stops after step" in log.read_text(encoding="utf-8")

    train_targets(resumed(job.workflow, TrainTargetConfig.from_mapping(job.config)), SilentTracker())
    folder = module_store / "trajectories" / "job" / "seed_0"
    names = {path.name for path in undisturbed.glob("step_*")}
    assert names == {path.name for path in folder.glob("step_*")}
    assert same_bytes(undisturbed, folder, names)


SMALL = {"dim": 16, "num_latents": 4, "latent_dim": 16, "heads": 2, "depth": 1}
MIXTURE = """\
mlp: {task: digits, target_model: MLP, target_options: {widths: [8]}, lr: "1e-3:1e-2", rows: 2}
cnn: {task: digits, target_model: ConvNet, target_options: {widths: [4]}, lr: 1e-3, rows: 2}
"""
PHASES = {
    "offline": (
        "train-optimizer",
        {"run_name": "recorded", "optimizer_options": SMALL, "epochs": 8, "task_batch": 64},
        lambda config: train_optimizer(config, SilentTracker()),
        "PerceiverOptimizer_epoch_*.safetensors",
    ),
    "online": (
        "train-optimizer",
        {"rounds": 6, "mixture": "mixture.yaml", "inner_steps": 60, "every": 20, "stride": 10, "task_batch": 32,
         "optimizer_options": SMALL, "warm_up": 4},
        lambda config: train_optimizer(config, SilentTracker()),
        "PerceiverOptimizer_epoch_*.safetensors",
    ),
    "controller": (
        "train-controller",
        {**EPISODE, "episodes": 16, "n_envs": 2, "minibatch": 6, "ppo_epochs": 2, "imitate": "heuristic",
         "imitate_episodes": 2, "selection_episodes": 2},
        lambda config: train_controller(config, SilentTracker()),
        "controller_*.safetensors",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(module_store):
    (module_store / "mixture.yaml").write_text(MIXTURE, encoding="utf-8")
    config = TrainTargetConfig(run_name="recorded", target_model="MLP", target_options={"widths": [8]}, runs=4,
                               lr="1e-3:3e-3", epochs=2, snapshot_every=20)  # fmt: skip
    train_targets(config, SilentTracker())


@pytest.mark.parametrize("phase", PHASES)
def test_phases_2_and_3_survive_kills_and_a_pause(phase, queue, worker, recorded):
    workflow, values, train, _ = PHASES[phase]
    name = "run_name" if phase == "controller" else "checkpoint_name"
    config = queue_config = {**values, name: phase, "checkpoint_every": 1, "model_name": None}
    kind = TrainControllerConfig if phase == "controller" else TrainOptimizerConfig
    number = queue.add(workflow, queue_config).id
    config = kind.from_mapping(queue.get(number).config)
    folder = config.checkpoint_folder
    worker.start()

    def written(count):
        assert queue.get(number).state is not State.FAILED, queue.get(number).error
        return len(list(folder.glob("*_[0-9]*.safetensors"))) >= count

    worker.wait_for(lambda: written(1))
    kill_job(queue, number)
    worker.wait_for(lambda: written(3))
    queue.pause(number)
    worker.wait_for(lambda: queue.get(number).state is State.PAUSED)
    queue.resume(number)
    worker.wait_for(lambda: queue.get(number).state is State.DONE)
    job = queue.get(number)
    assert (job.attempt, job.failures) == (3, 1)

    whole = replace(config, checkpoint_dir=Path("whole"))
    train(whole)
    names = {path.name for path in whole.checkpoint_folder.glob("*.safetensors")}
    assert names == {path.name for path in folder.glob("*.safetensors") if not path.stem.endswith("stopped")}
    assert same_bytes(whole.checkpoint_folder, folder, names)


def test_a_worker_ends_when_nothing_is_left(tmp_path):
    with JobQueue(tmp_path / "queue.db") as queue:
        queue.pause(queue.add("train-target", {"run_name": "job"}).id)
    with started(tmp_path, "--until-empty", "true") as process:
        assert process.wait(WITHIN) == 0, process.stderr.read()
