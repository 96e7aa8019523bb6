"""Every phase on a GPU, by the command line. They need MLflow and are skipped without it."""

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

import metaopt
from metaopt.core.devices import find_device
from metaopt.tasks.measure import measure

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed"),
]

SMALL = "dim=16 num_latents=2 latent_dim=16 heads=2 hidden=16"
RECORD = ["train-target", "--target-model", "MLP", "--target-options", "widths=[8]", "--epochs", 2, "--runs", 4]
LEARN = ["train-optimizer", "--optimizer-options", SMALL, "--epochs", 1, "--pairs-per-epoch", 16,
         "--model-name", "none"]  # fmt: skip
EVALUATE = ["evaluate", "--steps", 80, "--seeds", 1, "--baselines", "all", "--cache-dir", "none"]


@pytest.fixture(scope="module")
def succeed(device, command_line):
    """Runs a command, on the device unless told otherwise."""

    def run(*arguments, on=device):
        result = command_line(*arguments, "--device", on)
        assert result.exit_code == 0, result.output

    return run


@pytest.fixture(scope="module")
def recorded(succeed):
    """Four trajectories from the device and the same from the CPU."""
    succeed(*RECORD, "--run-name", "device")
    succeed(*RECORD, "--run-name", "cpu", on="cpu")
    return metaopt.Trajectory.open("trajectories/device/seed_0"), metaopt.Trajectory.open("trajectories/cpu/seed_0")


@pytest.fixture(scope="module")
def checkpoint(succeed, recorded):
    succeed(*LEARN, "--run-name", "device", "--checkpoint-name", "learned")
    return Path("checkpoints/learned/PerceiverOptimizer_epoch_0.safetensors")


def test_a_random_seed_gives_the_same_training_up_to_rounding(recorded):
    on_device, on_cpu = recorded
    assert torch.equal(on_device.weights(0), on_cpu.weights(0))
    torch.testing.assert_close(on_device.weights(-1), on_cpu.weights(-1), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("flags", [("--vectorize", 4), ("--workers", 2)])
def test_several_networks_at_a_time(succeed, flags):
    succeed(*RECORD, "--run-name", flags[0].strip("-"), *flags)


def test_a_recording_of_the_device_is_resumed_on_the_cpu(succeed, recorded):
    longer = [*RECORD, "--run-name", "device", "--resume", "true"]
    longer[longer.index("--epochs") + 1] = 3
    succeed(*longer, on="cpu")
    assert metaopt.Trajectory.open("trajectories/device/seed_0").run == recorded[0].run


@pytest.mark.parametrize("device_first", [True, False])
def test_a_meta_training_is_resumed_on_another_device(succeed, recorded, device, device_first):
    first, second = (device, "cpu") if device_first else ("cpu", device)
    folder = Path("checkpoints", f"device first {device_first}")
    learn = [*LEARN, "--run-name", "cpu", "--checkpoint-name", folder.name]
    succeed(*learn, on=first)
    succeed(*learn, "--resume-from", folder / "PerceiverOptimizer_epoch_0.safetensors", on=second)
    assert (folder / "PerceiverOptimizer_epoch_1.safetensors").exists()


def test_live_rounds(succeed):
    mixture = 'mlp: {target_options: {widths: [8]}, lr: "1e-3:1e-2", rows: 2}'
    Path("mixture.yaml").write_text(f"{mixture}\n", encoding="utf-8")
    rounds = ["--rounds", 2, "--mixture", "mixture.yaml", "--inner-steps", 80, "--warm-up", 2, "--checkpoint-every", 1]
    succeed(*LEARN, "--checkpoint-name", "live", *rounds)


@pytest.mark.parametrize("target", ["MLP", "ConvNet"])
def test_an_evaluation_with_its_diagnostics(succeed, checkpoint, target):
    succeed(*EVALUATE, "--optimizer", checkpoint, "--target-model", target)


def test_weights_are_generated(succeed, checkpoint, device):
    generate = ["generate", "--optimizer", checkpoint, "--trajectory", "trajectories/device/seed_0", "--t-end", 100]
    succeed(*generate, "--output", "next.safetensors")
    task = metaopt.load_task("digits")
    model = metaopt.get_target_model("MLP", task.model_facts, widths=(8,))
    metaopt.load_model_weights(model, "next.safetensors")
    batches = task.splits["validation"].in_order(500)
    assert measure(model.to(device), task, batches)["loss"] < 10


@pytest.mark.parametrize("named", [None, "cpu"])
def test_a_served_model_predicts_on_the_device_that_the_environment_names(
    command_line, checkpoint, recorded, monkeypatch, named
):
    assert command_line("register", checkpoint, "--model-name", f"served-on-{named}").exit_code == 0
    if named:
        monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", named)
    served = importlib.import_module("mlflow.pyfunc").load_model(f"models:/served-on-{named}/1")
    history = torch.stack([recorded[1].weights(index) for index in range(3)]).numpy()
    assert served.predict(history, params={"t_history": recorded[1].steps[:3], "t_end": 60}).shape == (
        1,
        len(history[0]),
    )
    found = {parameter.device.type for parameter in served.unwrap_python_model().optimizer.parameters()}
    assert found == {named or find_device("auto").type}


def test_a_controller_is_trained_and_compared(succeed):
    small = ["--target-options", "widths=[4,6,8]", "--steps", 60, "--episodes", 2, "--n-envs", 2, "--train-seeds", 2]
    succeed("train-controller", *small)
    succeed("evaluate-controller", "checkpoints/controller/controller_policy.safetensors", "--seeds", 1)


def test_the_main_job(succeed):
    succeed("main", "--runs", 4, "--target-epochs", 2, "--optimizer-epochs", 1, "--pairs-per-epoch", 16, "--steps", 40)
