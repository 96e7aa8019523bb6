"""Real workers with real trainings: paused, killed and resumed to the bytes of an undisturbed training."""

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from metaopt.core.errors import JobError
from metaopt.core.tracker import SilentTracker
from metaopt.metatraining.trainer import TrainOptimizerConfig, train_optimizer
from metaopt.operations.jobs import JobOptions, State
from metaopt.operations.queue import JobQueue
from metaopt.operations.resuming import resumed
from metaopt.operations.worker import WorkerConfig, work
from metaopt.recording.record import TrainTargetConfig, train_targets
from metaopt.reinforcement.config import TrainControllerConfig
from metaopt.reinforcement.training import train_controller

from ..growing import EPISODE
from ..working import WITHIN, WorkerProcess, steps, wait_for

TRAINING = {"target_model": "MLP", "target_options": {"widths": [8]}, "epochs": 10, "batch_size": 16,
            "snapshot_every": 20, "checkpoint_every": 3}  # fmt: skip


@pytest.fixture(scope="module")
def queue(module_store):
    with JobQueue("queue.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(module_store, cache_home):
    """One worker for all tests, because its start takes longer than their jobs."""
    started_when_needed = WorkerProcess(module_store)
    yield started_when_needed
    started_when_needed.kill()


def same_bytes(expected, found, names):
    """Compare files of two folders by their contents."""
    assert names
    return all((expected / name).read_bytes() == (found / name).read_bytes() for name in names)


SMALL = {"dim": 16, "num_latents": 2, "latent_dim": 16, "heads": 2, "depth": 1}
MIXTURE = """\
mlp: {task: digits, target_model: MLP, target_options: {widths: [8]}, lr: "1e-3:1e-2", rows: 2}
"""
ONCE_PER_EPOCH = {"checkpoint_every": 1, "model_name": None, "optimizer_options": SMALL, "task_batch": 32}
PHASES = {
    "offline": (
        "train-optimizer",
        TrainOptimizerConfig(run_name="recorded", checkpoint_name="offline", epochs=8, **ONCE_PER_EPOCH),
        train_optimizer,
    ),
    "online": (
        "train-optimizer",
        TrainOptimizerConfig(
            rounds=6, mixture=Path("mixture.yaml"), checkpoint_name="online", inner_steps=60, every=20, stride=10,
            warm_up=4, **ONCE_PER_EPOCH,
        ),
        train_optimizer,
    ),
    "controller": (
        "train-controller",
        TrainControllerConfig(
            **EPISODE, run_name="controller", episodes=20, n_envs=2, minibatch=6, ppo_epochs=2, imitate="heuristic",
            imitate_episodes=1, selection_episodes=1, checkpoint_every=1, model_name=None,
        ),
        train_controller,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(module_store):
    """What phase 2 learns from."""
    (module_store / "mixture.yaml").write_text(MIXTURE, encoding="utf-8")
    train_targets(TrainTargetConfig(run_name="recorded", runs=4, lr="1e-3:3e-3", **{**TRAINING, "epochs": 1}),
                  SilentTracker())  # fmt: skip


@pytest.fixture
def disturbed(queue, worker, recorded):
    """Runs a job of a phase and disturbs it; checks that its checkpoints are those of an undisturbed training."""

    def run(phase, disturb):
        workflow, config, train = PHASES[phase]
        config = replace(config, checkpoint_dir=Path("jobs"), overwrite=True)
        number = queue.add(workflow, config.to_mapping(), JobOptions(max_attempts=100)).id
        worker.start()
        disturb(number, config.checkpoint_folder)
        worker.wait_for(lambda: queue.get(number).state in (State.DONE, State.FAILED))
        job = queue.get(number)
        assert job.state is State.DONE, job.error

        whole = replace(config, checkpoint_dir=Path("whole"))
        train(whole, SilentTracker())
        names = {path.name for path in whole.checkpoint_folder.glob("*.safetensors")}
        found = {path.name for path in config.checkpoint_folder.glob("*.safetensors")}
        assert names == {name for name in found if not name.endswith("_stopped.safetensors")}
        assert same_bytes(whole.checkpoint_folder, config.checkpoint_folder, names)
        return job

    return run


def checkpoints(folder):
    """Number of checkpoints of phase 2 or 3 [count]."""
    return len([*folder.glob("*_[0-9]*.safetensors")])


@pytest.mark.parametrize(
    "phase", ["offline", *(pytest.param(name, marks=pytest.mark.slow) for name in ("online", "controller"))]
)
def test_phases_2_and_3_survive_a_kill_and_a_pause(phase, queue, worker, disturbed):
    def disturb(number, folder):
        worker.wait_for(lambda: checkpoints(folder))
        assert worker.kill_job(queue, number)
        worker.wait_for(lambda: checkpoints(folder) > 2)
        queue.pause(number)
        worker.wait_for(lambda: queue.get(number).state is not State.RUNNING)
        queue.resume(number)

    job = disturbed(phase, disturb)
    assert (job.attempt, job.failures) == (3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_phases_2_and_3_survive_kills_at_any_moment_of_the_job_and_of_its_worker(phase, queue, worker, disturbed):
    draw = random.Random(phase)

    def disturb(number, folder):
        for attempt in (1, 2, 3):
            worker.wait_for(lambda now=attempt: steps(queue, number, now) or queue.get(number).state is State.DONE)
            time.sleep(draw.uniform(0, 0.3))
            if attempt != 2:
                worker.kill_job(queue, number)
            else:
                worker.kill()
                wait_for(lambda: queue.get(number).state is not State.RUNNING)
                worker.start()

    job = disturbed(phase, disturb)
    assert job.attempt > 2, "it ended before it was killed twice"


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
    with pytest.raises(JobError, match="slot 'default' of this machine has a worker"):
        work(WorkerConfig())
    assert queue.get(number).attempt == 1, "a paused job stays paused"

    queue.resume(number)
    worker.wait_for(lambda: steps(queue, number, 2))
    assert worker.kill_job(queue, number)
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


def test_a_worker_ends_when_nothing_is_left(tmp_path, cache_home):
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    with JobQueue(url) as queue:
        queue.pause(queue.add("train-target", {"run_name": "job"}).id)
    assert work(WorkerConfig(queue=url, until_empty=True)) == 0
