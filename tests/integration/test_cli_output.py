"""Output of the command line for scripts and shells: JSON, silence, exit codes, completions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from mlflow import MlflowClient

from metaopt.cli import COMMANDS, cli, completion

RECORD = ["train-target", "--target-model", "MLP", "--widths", "8", "--epochs", 1]
LEARN = ["train-optimizer", "--run-name", "recorded", "--epochs", 1, "--pairs-per-epoch", 8,
         "--optimizer-options", "dim=16 num_latents=2 latent_dim=16 heads=2"]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(command_line):
    """The JSON document of a phase 1 with two trajectories in the working directory."""
    result = command_line("--json", *RECORD, "--run-name", "recorded", "--runs", 2)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def trained(command_line, recorded):
    """The JSON document of a phase 2, with the flag after the command."""
    result = command_line(*LEARN, "--json", "--debug")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_json_has_trajectories_and_losses(recorded):
    assert recorded["command"] == "train-target"
    assert recorded["trajectories"] == ["trajectories/recorded/seed_0", "trajectories/recorded/seed_1"]
    assert len(recorded["val_loss"]) == 2
    assert MlflowClient().get_run(recorded["run_id"]).info.status == "FINISHED"


def test_json_has_the_version_the_checkpoint_and_the_figures(trained):
    assert trained["model_uri"] == f"models:/metaopt-digits-MLP/{trained['version']}"
    assert trained["promotion"] == "version 1 of metaopt-digits-MLP is now champion: there was no champion yet"
    assert Path(trained["checkpoint"]).is_file()
    assert trained["figures"]["train_relative_error"] > 0
    case = "--task digits --target-model MLP --target-options 'widths=[8]'"
    assert trained["next"] == [f"metaopt evaluate --optimizer {trained['model_uri']} {case}"]


def test_rounds_on_a_mixture_suggest_an_evaluation_with_the_data_and_options_of_its_first_component(command_line):
    Path("data").mkdir()
    Path("data/words.txt").write_text("What is written is learned. " * 200, encoding="utf-8")
    Path("texts.yaml").write_text(
        "small: {task: text, data_dir: words.txt, task_options: {tokenizer: bytes, block_size: 16}, "
        "target_model: GPT, target_options: {n_layer: 1, n_embd: 16, n_head: 2}, batch_size: 4, rows: 2}\n",
        encoding="utf-8",
    )
    rounds = ["--rounds", 1, "--mixture", "texts.yaml", "--data-dir", "data", "--inner-steps", 40, "--every", 20]
    result = command_line(*LEARN[:1], *rounds, *LEARN[-2:], "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    options = "--task-options 'tokenizer=bytes block_size=16' --target-options 'n_layer=1 n_embd=16 n_head=2'"
    case = f"--task text --target-model GPT --data-dir data/words.txt {options}"
    assert found["next"] == [f"metaopt evaluate --optimizer {found['model_uri']} {case}"]


def test_json_has_the_result_of_an_evaluation(command_line, trained):
    evaluate = ["evaluate", "--json", "--optimizer", trained["model_uri"], "--target-model", "MLP", "--widths", 8]
    result = command_line(*evaluate, "--steps", 40, "--every", 20, "--seeds", 1)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["judged"] == "perceiver"
    assert {"hold", "line", "perceiver"} <= {standing["contender"] for standing in found["standings"]}
    assert len(found["controls"]) == 4


def test_json_has_the_file_of_generated_weights(command_line, trained):
    checkpoint, trajectory = trained["checkpoint"], "trajectories/recorded/seed_0"
    result = command_line("generate", "--json", "--optimizer", checkpoint, "--trajectory", trajectory)
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["path"]).is_file()


def test_json_has_what_the_files_of_a_registered_version_contain(command_line, trained):
    result = command_line("inspect", "--json", trained["model_uri"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [network["name"] for network in found["networks"]] == ["artifacts/optimizer"]
    assert {Path(each["path"]) for each in json.loads(command_line("reports", "--json").stdout)["reports"]} == {
        Path(found["report"])
    }


@pytest.mark.parametrize("arguments", [["list"], ["list", "tasks"], ["list", "targets", "GPT"]])
def test_json_lists(command_line, arguments):
    listed = json.loads(command_line(*arguments, "--json").stdout)
    assert listed["command"] == "list"
    assert len(arguments) < 3 or {"name": "n_layer", "default": "4", "help": "Blocks [count]."} in listed["options"]


def test_quiet_prints_only_errors(command_line):
    said = command_line(*RECORD, "--run-name", "quiet", "--quiet")
    assert (said.exit_code, said.output) == (0, "")
    said = command_line("--quiet", *RECORD, "--run-name", "quiet")
    assert said.exit_code == 1
    assert said.output.startswith("Error: ")


def test_an_error_leaves_stdout_empty(command_line):
    result = command_line(*RECORD, "--json", "--run-name", "a/b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_the_summary_ends_with_commands_that_can_be_pasted(command_line):
    summary = command_line(*RECORD, "--run-name", "a name with spaces").stdout.splitlines()
    assert summary[-2:] == ["next:", "  metaopt train-optimizer --run-name 'a name with spaces'"]


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(command_line):
    Path("file").write_text("in the way", encoding="utf-8")
    result = command_line(*RECORD, "--run-name", "new", "--trajectory-dir", "file/below")
    assert result.exit_code == 1
    assert "file" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("address", "message"),
    [("nowhere://store", "nowhere"), ("sqlite:///file/mlflow.db", "file")],
)
def test_an_unusable_store_is_an_error_without_a_stack_trace(store, address, message):
    Path("file").write_text("in the way", encoding="utf-8")
    done = launched("train-target", MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the tracking store")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def launched(*arguments, **environment) -> subprocess.CompletedProcess:
    """Runs a command in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "metaopt.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def accept_interrupts():
    """A shell that runs the tests in the background makes its processes ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_has_its_own_exit_code(store, signum, code):
    endless = [*RECORD, "--run-name", "endless", "--epochs", 100_000]
    with subprocess.Popen(
        [sys.executable, "-m", "metaopt.cli", *map(str, endless)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=accept_interrupts,
    ) as process:
        while process.poll() is None and not list(Path("trajectories").glob("endless/seed_0/*.safetensors")):
            time.sleep(0.1)
        process.send_signal(signum)
        try:
            output, message = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, output) == (code, "")
    assert "resume with the same command" in message
    assert "Traceback" not in message


def test_the_table_of_completions_has_the_flags_of_the_commands():
    table = json.loads(completion.TABLE.read_text(encoding="utf-8"))
    assert list(table["flags"]) == list(COMMANDS)
    for name, flags in table["flags"].items():
        params = cli.get_command(click.Context(cli), name).params
        known = {flag for param in params for flag in param.opts if isinstance(param, click.Option)}
        assert {f"--{flag}" for flag in flags} == known, name


def completed(words: str) -> list[str]:
    """The completions of a line that ends at the cursor."""
    complete = click.shell_completion.BashComplete(cli, {}, "metaopt", "_METAOPT_COMPLETE")
    *before, incomplete = words.split(" ")[1:]
    return [item.value for item in complete.get_completions(before, incomplete)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("metaopt tr", ["train-target", "train-optimizer", "train-controller"]),
        ("metaopt train-target --ta", ["--task", "--task-options", "--target-model", "--target-options"]),
        ("metaopt evaluate --task di", ["digits"]),
        ("metaopt --quiet train-target --target-model res", ["ResNet18", "ResNet34"]),
        ("metaopt train-optimizer --optimizer-model P", ["PerceiverOptimizer"]),
        ("metaopt generate --js", ["--json"]),
        ("metaopt list o", ["optimizers"]),
        ("metaopt inspect --l", ["--layers"]),
        ("metaopt nonsense --ta", []),
    ],
)
def test_a_line_is_completed(words, expected):
    assert completed(words) == expected


def test_completing_imports_no_command():
    words = "metaopt train-target --target-model M"
    environment = {"_METAOPT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}
    code = (
        "import sys, metaopt.cli\n"
        "try:\n    metaopt.cli.cli(prog_name='metaopt')\n"
        "finally:\n    assert not {'torch', 'mlflow', 'metaopt.cli.commands'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True)
    assert done.stdout == b"plain,MLP\n", done.stderr


SCRIPT = Path(sys.executable).with_name("metaopt")
BASH = """
eval "$(_METAOPT_COMPLETE=bash_source metaopt)"
COMP_WORDS=(metaopt evaluate --target-model Res) COMP_CWORD=3
_metaopt_completion metaopt
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not (shutil.which("bash") and SCRIPT.exists()), reason="needs bash and the metaopt script")
def test_a_real_bash_completes():
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", BASH], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.stdout == "ResNet18 ResNet34\n", done.stderr
