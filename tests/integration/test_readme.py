"""What README.md shows works: its commands, in its order and in small, and its Python."""

import re
import shlex
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from metaopt.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def shown() -> list[list[str]]:
    """The commands of README as arguments of `metaopt`, in its order."""
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [as_arguments(each) for each in words if each[:1] == ["metaopt"] or each[:2] == ["mlflow", "run"]]


def as_arguments(words: list[str]) -> list[str]:
    if words[0] == "metaopt":
        return words[1:]
    name = words[words.index("-e") + 1] if "-e" in words else "main"
    given = [words[index + 1].split("=", 1) for index, word in enumerate(words) if word == "-P"]
    assert {key for key, _ in given} <= ENTRY_POINTS[name]["parameters"].keys()
    return [name.replace("_", "-"), *(word for key, value in given for word in (f"--{key}", value))]


def test_it_shows_every_command_and_ends_with_the_tests_that_ci_runs():
    assert {arguments[0] for arguments in shown()} == set(COMMANDS)
    assert "python -m pytest -n 2 --dist loadfile\n" in blocks("bash")
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").endswith("\npython -m pytest -n 2 --dist loadfile\n")


@pytest.mark.parametrize("arguments", shown(), ids=" ".join)
def test_a_shown_command_has_only_flags_that_exist(arguments):
    command = cli.get_command(click.Context(cli), arguments[0])
    command.make_context(arguments[0], arguments[1:])


def make_data(folder: Path) -> None:
    """A little of each kind of data that README's commands name."""
    random = np.random.default_rng(0)
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (folder / "images" / place).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / place / f"{number}.jpg")
    (folder / "text.txt").write_text("Once upon a time there was a network that liked to learn.\n" * 200, "utf-8")
    rows = [f"{number % 7},{number % 5},{'cat' if number % 3 else 'dog'}" for number in range(80)]
    (folder / "table.csv").write_text("\n".join(["size,weight,species", *rows]), "utf-8")


@pytest.fixture(scope="module")
def walked(in_small):
    """The working directory of someone who ran README's commands one after the other."""
    make_data(Path("path/to"))
    shutil.copytree(ROOT / "benchmarks" / "mixtures", "benchmarks/mixtures")
    for arguments in shown():
        in_small([*map(in_this_place, arguments)])
    return Path.cwd()


def in_this_place(word: str) -> str:
    """A word with the newest run and the newest checkpoint in the place of those that README names."""
    if word == "$RUN_ID":
        query = "tags.`metaopt.phase` = 'optimizer'"
        return MlflowClient().search_runs(["1"], query, order_by=["attributes.start_time DESC"])[0].info.run_id
    if re.search(r"_epoch_\d+\.safetensors$", word):
        return str(max(Path(word).parent.glob("*_epoch_*.safetensors"), key=lambda path: path.stat().st_mtime_ns))
    return word


def test_its_commands_run_in_its_order(walked):
    assert (walked / "next.safetensors").is_file()
    assert len(list((walked / "checkpoints" / "cnn").glob("*_epoch_*"))) == 3


def test_its_python_runs_in_its_order(walked):
    names: dict[str, object] = {}
    for snippet in blocks("python"):
        exec(compile(snippet, "README.md", "exec"), names)


def test_the_files_that_it_names_are_there():
    for name in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / name).exists(), name
