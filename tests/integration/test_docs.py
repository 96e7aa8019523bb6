"""The blocks of code in docs/ run, page by page and in their order, at a small size, in a folder with a main job.

A block of code that begins with the name of a file (`# train.py`) is that file. A block under `<!-- not run: why -->`
cannot run in a test; only the flags of its commands are checked.
"""

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from metaopt.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {
    "adding_a_plugin.md": "test_plugin_recipe.py",
    "nowcast.md": "test_nowcast_sources.py",
    "serving.md": "test_serving.py",
    "tracking_server.md": "test_remote_store.py",
}
"""Pages that another test runs: with an installed package, a known champion, a server, a database."""

RUN = ("python", "bash", "yaml")
SHOWN = ("json", "text", "toml", "ini", "bibtex")
"""Languages of blocks that are run, or written to files that are used, and languages of blocks that are only shown."""

RESULTS = {
    "phases.md": ("checkpoints/digits_cnn/*_epoch_2.safetensors", "next.safetensors"),
    "data.md": ("trajectories/images/seed_0", "trajectories/text/seed_0", "trajectories/table/seed_0"),
}
"""Files that a page leaves behind, as patterns."""

ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n\s*)?"
    r"```(?P<language>\w*)\n(?:# (?P<path>[\w./]+\.\w+)\n)?(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code in a page. Without a path it is not a file; without a `why` it runs."""

    why: str
    language: str
    path: str
    code: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line of a shell, without comments."""
        return [words for line in self.code.splitlines() if (words := shlex.split(line, comments=True))]


def pages() -> list[str]:
    return sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))]


def runnable() -> list[str]:
    """The pages with anything to run."""
    wanted = [page for page in pages() if page not in ELSEWHERE]
    return [page for page in wanted if any(block.language in RUN and not block.why for block in blocks(page))]


@pytest.mark.parametrize("page", pages())
def test_each_block_is_of_a_kind_that_is_checked(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(blocks(page)), "a block that is not closed, or is indented"
    assert {block.language for block in blocks(page)} <= {*RUN, *SHOWN}
    assert all(block.path or block.why for block in blocks(page) if block.language == "yaml"), "nothing reads it"


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_a_page_that_another_test_runs_is_named_there(page, test):
    assert page in (Path(__file__).parent / test).read_text(encoding="utf-8")


def as_arguments(words: list[str]) -> list[str]:
    """The arguments of `metaopt` for a command line with `metaopt` or with `mlflow run`."""
    if words[0] == "metaopt":
        return words[1:]
    name = words[words.index("-e") + 1] if "-e" in words else "main"
    given = [words[index + 1].split("=", 1) for index, word in enumerate(words) if word == "-P"]
    assert {key for key, _ in given} <= ENTRY_POINTS[name]["parameters"].keys()
    return [name.replace("_", "-"), *(word for key, value in given for word in (f"--{key}", value))]


def starts_metaopt(words: list[str]) -> bool:
    return words[:1] == ["metaopt"] or words[:2] == ["mlflow", "run"]


def test_the_pages_show_every_command():
    shown = [
        words for page in pages() for block in blocks(page) if block.language == "bash" for words in block.commands
    ]
    assert {as_arguments(words)[0] for words in shown if starts_metaopt(words)} >= set(COMMANDS) - {"main"}


def flags(command: click.Command) -> set[str]:
    return {name for option in [*command.params, *cli.params] for name in option.opts}


@pytest.mark.parametrize("page", pages())
def test_commands_that_are_not_run_have_only_flags_that_exist(page):
    shown = [words for block in blocks(page) if block.why and block.language == "bash" for words in block.commands]
    for _, name, *arguments in (words for words in shown if words[0] == "metaopt"):
        command = cli.get_command(click.Context(cli), name)
        assert {word for word in arguments if word.startswith("--")} <= flags(command)


def make_data(folder: Path) -> None:
    """Write a few examples of each kind of data that the pages name."""
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
def folder(in_small):
    """A working directory after a main job, with the files that the pages name."""
    for name in ("cases", "mixtures"):
        shutil.copytree(ROOT / "benchmarks" / name, f"benchmarks/{name}")
    make_data(Path("path/to"))
    in_small(["train-target", "--run-name", "digits", "--target-model", "MLP", "--averaging", "0.98"])
    in_small(["train-optimizer", "--run-name", "digits"])
    return Path.cwd()


@pytest.mark.parametrize("page", runnable())
@pytest.mark.filterwarnings("ignore")  # pandas and MLflow warn of their own things
@pytest.mark.usefixtures("decorated_blueprints")
def test_the_blocks_of_a_page_run_in_their_order(page, folder, in_small, monkeypatch):
    names: dict = {}
    monkeypatch.syspath_prepend(folder)
    for block in blocks(page):
        if block.why:
            continue
        if block.path:
            Path(block.path).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.code, page, "exec"), names)
        elif block.language == "bash":
            for words in block.commands:
                run(words, page, in_small, monkeypatch)
    for path in RESULTS.get(page, ()):
        assert list(folder.glob(path)), path


def run(words: list[str], page: str, in_small: Callable, patch: pytest.MonkeyPatch) -> None:
    """One line of a shell."""
    match words:
        case ["metaopt", *_] | ["mlflow", "run", *_]:
            in_small([*map(newest, as_arguments(words))])
        case ["python", script, *arguments]:
            patch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
        case ["export", *variables]:
            for name, value in (variable.split("=", 1) for variable in variables):
                patch.setenv(name, value)
        case _:
            pytest.fail(f"{page} shows `{shlex.join(words)}`; write <!-- not run: why --> above the block")


def newest(word: str) -> str:
    """A word with the newest run or checkpoint in place of the one that a page names."""
    if word == "$RUN_ID":
        query = "tags.`metaopt.phase` = 'optimizer'"
        return MlflowClient().search_runs(["1"], query, order_by=["attributes.start_time DESC"])[0].info.run_id
    if re.search(r"_epoch_\d+\.safetensors$", word):
        return str(max(Path(word).parent.glob("*_epoch_*.safetensors"), key=lambda path: path.stat().st_mtime_ns))
    return word
