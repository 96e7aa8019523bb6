"""Invalid input of the command line: one line with the value and the remedy, an exit code, no changed file, no run."""

import hashlib
import os
import pickle
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file, save_file

from metaopt.trajectories import Trajectory, claim_run_folder

QUICK = ["--target-model", "MLP", "--target-options", "widths=[8]", "--epochs", 2]
SMALL = "dim=16 num_latents=2 latent_dim=16 heads=2 cross_heads=1"
CHECKPOINT = "checkpoints/recorded/PerceiverOptimizer_epoch_0.safetensors"
LEARN = ["train-optimizer", "--run-name", "recorded", "--checkpoint-name", "new", "--epochs", 1]
GENERATE = ["generate", "--optimizer", CHECKPOINT, "--trajectory", "trajectories/recorded/seed_0"]
RECORD = ["train-target", "--run-name", "new", *QUICK]
MAIN = ["main", "--run-name", "new", "--runs", 2, "--target-epochs", 1, "--steps", 40]
EVALUATE = ["evaluate", "--optimizer", CHECKPOINT, "--target-model", "MLP", "--steps", 40]
REGISTER = ["register", CHECKPOINT]


@pytest.fixture(scope="module", autouse=True)
def workshop(command_line):
    """Four trajectories and a trained optimizer in the working directory; the IDs of the newest runs by phase."""
    recorded = command_line("train-target", "--run-name", "recorded", "--runs", 4, *QUICK)
    assert recorded.exit_code == 0, recorded.output
    trained = command_line("train-optimizer", "--run-name", "recorded", "--epochs", 1, "--optimizer-options", SMALL)
    assert trained.exit_code == 0, trained.output
    make_damaged_things()
    return {run.data.tags["metaopt.phase"]: run.info.run_id for run in all_runs() if "metaopt.phase" in run.data.tags}


def all_runs():
    return MlflowClient().search_runs(["1"], order_by=["attributes.start_time ASC"])


def make_damaged_things() -> None:
    for name in ("single", "flipped", "truncated", "wrong-shape"):
        shutil.copytree("trajectories/recorded/seed_0", f"trajectories/{name}/seed_0")
    *_, second, last = sorted(Path("trajectories/single/seed_0").glob("step_*"))
    second.unlink()
    last.unlink()
    Path("trajectories/single/seed_0/task.json").unlink()  # which states how many there were
    flipped = Path("trajectories/flipped/seed_0", last.name)
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"?")
    truncated = Path("trajectories/truncated/seed_0", last.name)
    truncated.write_bytes(truncated.read_bytes()[:-100])
    reshaped = Path("trajectories/wrong-shape/seed_0", last.name)
    save_file({name: value.reshape(-1) for name, value in load_file(reshaped).items()}, reshaped)
    Path("pickle.safetensors").write_bytes(pickle.dumps(_Trap()))
    Path("flipped.safetensors").write_bytes(Path(CHECKPOINT).read_bytes()[:-1] + b"?")
    Path("list.yaml").write_text("- epochs\n", encoding="utf-8")
    Path("typo.yaml").write_text("epoch: 3\n", encoding="utf-8")
    Path("broken.yaml").write_text("epochs: [3\n", encoding="utf-8")
    Path("mixture.yaml").write_text("misfit: {target_options: {in_features: 3}}\n", encoding="utf-8")
    Path("case.yaml").write_text("target_model: MLP\ntarget_options: {classes: 3}\n", encoding="utf-8")
    shutil.copytree("trajectories/recorded/seed_0", "trajectories/broken/seed_0")
    Path("checkpoints/broken/seed_0").mkdir(parents=True)
    Path("checkpoints/broken/seed_0/checkpoint.safetensors").write_bytes(b"no checkpoint")
    shutil.copytree("checkpoints/recorded", "checkpoints/learned")


class _Trap:
    """Leaves a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def everything() -> dict[str, str]:
    """Digests of all trajectories and checkpoints."""
    files = [path for folder in ("trajectories", "checkpoints") for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name != ".lock"}


INVALID = {
    "mistyped target": (["train-target", "--target-model", "TargetCN"], "did you mean TargetCNN?"),
    "mistyped task": (["train-target", "--task", "digit"], "did you mean digits?"),
    "mistyped base optimizer": ([*RECORD, "--base-optimizer", "Adan"], "did you mean Adam"),
    "mistyped optimizer": ([*LEARN, "--optimizer-model", "PerceiverOptimiser"], "did you mean PerceiverOptimizer"),
    "mistyped mode": ([*LEARN, "--training-mode", "permutations"], "did you mean permutation?"),
    "option that the target lacks": ([*RECORD, "--target-options", "width=8"], "did you mean widths?"),
    "no options": ([*RECORD, "--target-options", "widths"], 'expected names and values such as "hidden=64'),
    "name with a slash": ([*RECORD, "--run-name", "a/b"], "'a/b' cannot be a folder"),
    "name of the parent folder": ([*RECORD, "--run-name", ".."], "'..' cannot be a folder"),
    "name with a space in front": ([*RECORD, "--run-name", " a"], "' a' cannot be a folder"),
    "name with a slash, phase 2": ([*LEARN, "--run-name", "a/b"], "'a/b' cannot be a folder"),
    "no epochs": ([*RECORD, "--epochs", 0], "epochs is 0; expected 1 or more"),
    "fewer than no epochs": ([*LEARN, "--epochs", -1], "epochs is -1; expected 0 or more"),
    "half an epoch": ([*RECORD, "--epochs", 1.5], "epochs is '1.5'; expected a whole number"),
    "epochs in words": ([*RECORD, "--epochs", "ten"], "epochs is 'ten'; expected a whole number"),
    "no learning rate": ([*RECORD, "--lr", 0], "expected more than 0"),
    "negative learning rate": ([*LEARN, "--lr", -1e-3], "lr is -0.001; expected more than 0"),
    "learning rate that is no number": ([*RECORD, "--lr", "nan"], "expected a finite number"),
    "range upside down": ([*RECORD, "--lr", "1e-2:1e-3"], "expected low:high with low ≤ high"),
    "taken run name": ([*RECORD, "--run-name", "recorded"], "is taken"),
    "taken checkpoints": ([*LEARN, "--checkpoint-name", "recorded"], "is taken"),
    "nothing to resume": ([*RECORD, "--resume", "true"], "nothing to resume"),
    "resume and overwrite": (
        [*RECORD, "--resume", "true", "--overwrite", "true"],
        "resume and overwrite are both given",
    ),
    "other settings on resuming": (
        ["train-target", "--run-name", "recorded", *QUICK, "--resume", "true", "--epochs", 3, "--batch-size", 32],
        "batch_size is 64, expected 32",
    ),
    "no trajectory of that name": ([*LEARN, "--run-name", "record"], "no trajectory 'record' in trajectories"),
    "trajectory of one snapshot": ([*LEARN, "--run-name", "single"], "has one snapshot; a pair needs two"),
    "too many held out": ([*LEARN, "--held-out", 4], "cannot hold out 4 of 4 trajectories"),
    "flipped bit": ([*LEARN, "--run-name", "flipped"], "damaged"),
    "truncated": ([*LEARN, "--run-name", "truncated"], "step_"),
    "tensors of another shape": ([*LEARN, "--run-name", "wrong-shape"], "step_"),
    "pickle as checkpoint": ([*LEARN, "--resume-from", "pickle.safetensors"], "pickle"),
    "damaged checkpoint": ([*LEARN, "--resume-from", "flipped.safetensors"], "damaged"),
    "checkpoint of another architecture": ([*LEARN, "--resume-from", CHECKPOINT], "belongs to another training"),
    "checkpoint of another optimizer": (
        [*LEARN, "--optimizer-model", "Line", "--resume-from", CHECKPOINT],
        "optimizer.name is 'PerceiverOptimizer', expected 'Line'",
    ),
    "checkpoint of other settings": (
        [*LEARN, "--optimizer-options", SMALL, "--lr", 0.5, "--resume-from", CHECKPOINT],
        "settings.lr is 0.001, expected 0.5",
    ),
    "snapshot as checkpoint": (
        [*LEARN, "--resume-from", "trajectories/recorded/seed_0/step_00000000.safetensors"],
        "expected",
    ),
    "run that does not exist": ([*LEARN, "--resume-from", "0" * 32], "cannot read run"),
    "no run and no file": ([*LEARN, "--resume-from", "yesterday"], "expected an existing file, a run ID"),
    "no optimizer of that name": (["evaluate", "--optimizer", "models:/nobody@champion"], "models:/nobody@champion"),
    "no nowcast in the budget": (["evaluate", "--steps", 20], "no nowcast would take place"),
    "no snapshot at that step": (
        [
            *GENERATE,
            "--t-start",
            3,
            "--t-end",
            9,
        ],
        "the nearest are at [0, 15",
    ),
    "end before start": (
        [*GENERATE, "--t-end", 3],
        "before the snapshot at step",
    ),
    "output that exists": (
        [
            *GENERATE,
            "--t-end",
            99,
            "--output",
            CHECKPOINT,
        ],
        "exists; choose another --output",
    ),
    "no such file of parameters": (["train-target", "--config", "nowhere.yaml"], "cannot read the configuration"),
    "a list of parameters": (["train-target", "--config", "list.yaml"], "contains a list"),
    "mistyped parameter in a file": (["train-target", "--config", "typo.yaml"], "did you mean epochs"),
    "a file that is no YAML": (["train-target", "--config", "broken.yaml"], "broken.yaml is not YAML"),
    "no data there": (["train-target", "--task", "mnist", "--data-dir", "nowhere"], "nowhere"),
    "data for a task without files": ([*RECORD, "--data-dir", "somewhere"], "reads no files; leave it out"),
    "a network for other data": ([*RECORD, "--target-options", "in_features=3"], "MLP does not fit the data"),
    "a network for fewer classes": ([*RECORD, "--target-options", "classes=3"], "MLP does not fit the data"),
    "task option, phase 1": ([*RECORD, "--task-options", "shift=far"], "shift is 'far'"),
    "option that the base optimizer lacks": ([*RECORD, "--base-optimizer-options", "beta=0.9"], "does not take lr="),
    "device that is not here": ([*RECORD, "--device", "meta:7"], "device"),
    "damaged checkpoint, phase 1": (
        ["train-target", "--run-name", "broken", *QUICK, "--resume", "true"],
        "checkpoint.safetensors",
    ),
    "other settings of all runs": (
        ["train-target", "--run-name", "recorded", *QUICK, "--runs", 4, "--resume", "true", "--batch-size", 32],
        "4 of 4 runs failed",
    ),
    "option that the optimizer lacks": ([*LEARN, "--optimizer-options", "width=8"], "unknown parameter 'width'"),
    "no optimizer to start from": ([*LEARN, "--start-from", "nowhere.safetensors"], "no optimizer at"),
    "pickle to start from": ([*LEARN, "--start-from", "pickle.safetensors"], "pickle"),
    "no mixture": ([*LEARN, "--rounds", 1, "--mixture", "nowhere.yaml"], "cannot read the configuration"),
    "mixture of a network for other data": (
        [*LEARN, "--rounds", 1, "--mixture", "mixture.yaml"],
        "misfit in the mixture: MLP does not fit the data",
    ),
    "case of a network for other data": ([*LEARN, "--promote-on", "case.yaml"], "MLP does not fit the data"),
    "reserved characters in a model name": ([*LEARN, "--model-name", "a/b"], "MLflow refuses the model name"),
    "mistyped task, main": ([*MAIN, "--task", "digit"], "did you mean digits?"),
    "a network for other data, main": ([*MAIN, "--target-options", "in_features=3"], "MLP does not fit the data"),
    "task option, main": ([*MAIN, "--task-options", "shift=far"], "shift is 'far'"),
    "no nowcast in the budget, main": ([*MAIN, "--every", 60], "no nowcast would take place"),
    "taken run name, main": ([*MAIN, "--run-name", "recorded", "--overwrite", "false"], "is taken"),
    "taken checkpoints, main": ([*MAIN, "--run-name", "learned", "--overwrite", "false"], "is taken"),
    "mistyped base optimizer, evaluation": ([*EVALUATE, "--base-optimizer", "Adan"], "did you mean Adam"),
    "a network for other data, evaluation": ([*EVALUATE, "--target-options", "classes=3"], "does not fit the data"),
    "task option, evaluation": ([*EVALUATE, "--task-options", "shift=far"], "shift is 'far'"),
    "a network that grows, evaluation": (
        [*EVALUATE, "--controller", "heuristic"],
        "controller cannot be given: the runs",
    ),
    "no trajectories that were seen": ([*EVALUATE, "--seen", "nowhere"], "nowhere"),
    "pickle as optimizer": ([*EVALUATE, "--optimizer", "pickle.safetensors"], "pickle"),
    "damaged optimizer": ([*EVALUATE, "--optimizer", "flipped.safetensors"], "damaged"),
    "result that exists": ([*EVALUATE, "--output", "typo.yaml"], "exists; choose another --output"),
    "promotion of a file": ([*EVALUATE, "--promote", "true"], "is not a registered version"),
    "no checkpoint to register": (["register", "nowhere.safetensors"], "no checkpoint at"),
    "pickle to register": (["register", "pickle.safetensors"], "pickle"),
    "checkpoint of phase 1": (["register", "checkpoints/recorded/seed_0/checkpoint.safetensors"], "does not say what"),
    "reserved alias": ([*REGISTER, "--alias", "latest"], "'latest' alias name"),
    "alias with a space": ([*REGISTER, "--alias", "a b"], "MLflow refuses the alias"),
    "no trajectory to continue": ([*GENERATE, "--trajectory", "trajectories/nowhere"], "nowhere"),
    "damaged trajectory to continue": ([*GENERATE, "--trajectory", "trajectories/flipped/seed_0"], "damaged"),
    "a time beyond all numbers": ([*GENERATE, "--t-end", "1e39"], "are not finite"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_input_is_an_error_and_changes_nothing(command_line, case):
    arguments, message = INVALID[case]
    before, runs = everything(), len(all_runs())
    result = command_line(*arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert everything() == before
    assert not Path("unpickled").exists()
    assert len(all_runs()) == runs, "a refused command leaves no run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train-targe"], "did you mean train-target or"),
        (["train-target", "--epoch", "3"], "--epochs"),
        (["train-target", "--epochs"], "requires an argument"),
    ],
)
def test_a_mistyped_command_line_is_a_usage_error(command_line, arguments, message):
    result = command_line(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_run_without_a_checkpoint_is_an_error(command_line, workshop):
    result = command_line(*LEARN, "--resume-from", workshop["target"])
    assert result.exit_code == 1
    assert "has no checkpoint" in result.output


def test_an_unfinished_upload_is_an_error(command_line, workshop):
    run = MlflowClient().get_run(workshop["optimizer"])
    folder = Path(run.info.artifact_uri.removeprefix("file://"), "checkpoints", "epoch_0000")
    (folder / "manifest.json").rename("manifest.json")
    result = command_line(*LEARN, "--optimizer-options", SMALL, "--resume-from", workshop["optimizer"])
    Path("manifest.json").rename(folder / "manifest.json")
    assert result.exit_code == 1
    assert "only incomplete checkpoint uploads" in result.output


def test_a_name_that_another_process_uses_is_an_error(command_line):
    with claim_run_folder(Path("trajectories/busy"), "seed_*"):
        result = command_line(*RECORD, "--run-name", "busy")
    assert result.exit_code == 1
    assert "is in use" in result.output


def test_a_diverging_run_stops_with_its_last_good_snapshot(command_line):
    result = command_line(*RECORD, "--run-name", "wild", "--lr", 1e30, "--snapshot-every", 1)
    assert result.exit_code == 1
    assert "lower lr" in result.output
    kept = Trajectory.open(Path("trajectories/wild/seed_0"))
    assert kept.weights(-1).isfinite().all()
    assert all_runs()[-1].info.status == "FAILED"


def test_debug_shows_the_stack_trace(command_line):
    result = command_line("--debug", "train-target", "--target-model", "TargetCN")
    assert type(result.exception).__name__ == "UnknownName"
