"""The code of docs/adding_a_plugin.md works as an installed package, in a new process."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import metaopt

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?:# (?P<path>[\w./]+)\n)?(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer((ROOT / "docs" / "adding_a_plugin.md").read_text(encoding="utf-8")))


def commands() -> list[list[str]]:
    (shell,) = [block["code"] for block in blocks() if block["language"] == "bash"]
    return [shlex.split(line) for line in shell.splitlines()]


@pytest.fixture
def site(tmp_path):
    """A folder for `sys.path` with the files of `pip install .`."""
    site = tmp_path / "site"
    for block in blocks():
        if block["path"]:
            place = site / block["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block["code"], encoding="utf-8")
    project = tomllib.loads((site / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


LAUNCH = """
import sys
sys.path[:0] = {paths!r}
from metaopt.cli import cli
for arguments in {commands!r}:
    cli(arguments, standalone_mode=False)
"""


def run(commands, site, folder):
    """Run several commands in a new process that has the package installed, and return what they print."""
    code = LAUNCH.format(paths=[str(site), str(ROOT)], commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_a_plugin_of_each_kind(site):
    groups = tomllib.loads((site / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert groups.keys() == {
        "metaopt.targets",
        "metaopt.tasks",
        "metaopt.base_optimizers",
        "metaopt.generative",
        "metaopt.probes",
        "metaopt.checks",
    }


@pytest.mark.usefixtures("store")
def test_the_recipe_trains(site, tmp_path):
    install, *trainings = commands()
    assert install == ["pip", "install", "."]
    assert [command[:2] for command in trainings] == [["metaopt", "train-target"], ["metaopt", "train-optimizer"]]
    checkpoint, folder = "checkpoints/circles/Momentum_epoch_0.safetensors", "trajectories/circles/seed_0"
    generate = ["generate", "--optimizer", checkpoint, "--trajectory", folder, "--t-end", "20"]
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So " * 200}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"schema": "chat_sft_v1", "messages": messages}), "utf-8")
    printed = run([*(command[1:] for command in trainings), generate, ["validate", "chat.jsonl"]], site, tmp_path)
    assert "chat.jsonl, short-answers:\n  line 1: an answer has more than 500 characters" in printed
    assert len(list((tmp_path / "trajectories" / "circles").glob("seed_*"))) == 4
    assert (tmp_path / checkpoint).is_file()
    assert (tmp_path / "next.safetensors").is_file()
    run_facts = metaopt.Trajectory.open(tmp_path / folder).run
    assert run_facts["base_optimizer"] == "SignSGD"
