"""What the pages of docs/ show works: the blocks of a page in their order, in small, by someone who ran the README.

A block of code that begins with the name of a file (`# train.py`) is that file. One under `<!-- not run: why -->`
cannot run here; of its commands only the flags are checked.
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
import pytest

from metaopt.cli import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {
    "adding_a_plugin.md": "test_plugin_recipe.py",
    "nowcast.md": "test_nowcast_sources.py",
    "serving.md": "test_serving.py",
    "tracking_server.md": "test_remote_store.py",
}
"""Pages that a test of their own follows: with an installed package, a champion that is known, a server, a database."""

RUN = ("python", "bash", "yaml")
SHOWN = ("json", "text", "toml", "ini")
"""Kinds of blocks that are run, or written to be used by what is run, and kinds that only show how something looks."""

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n\s*)?"
    r"```(?P<language>\w*)\n(?:# (?P<path>[\w./]+\.\w+)\n)?(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code in a page; no path: it is no file, no why: it runs."""

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
    assert all(block.path or block.why for block in blocks(page) if block.language == "yaml"), "who reads it?"


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_a_page_that_is_followed_elsewhere_is_named_there(page, test):
    assert page in (Path(__file__).parent / test).read_text(encoding="utf-8")


def flags(command: click.Command) -> set[str]:
    return {name for option in [*command.params, *cli.params] for name in option.opts}


@pytest.mark.parametrize("page", pages())
def test_commands_that_are_not_run_have_only_flags_that_exist(page):
    shown = [words for block in blocks(page) if block.why and block.language == "bash" for words in block.commands]
    for _, name, *arguments in (words for words in shown if words[0] == "metaopt"):
        command = cli.get_command(click.Context(cli), name)
        assert {word for word in arguments if word.startswith("--")} <= flags(command)


@pytest.fixture(scope="module")
def folder(in_small):
    """The working directory of someone who ran the main job of the README."""
    shutil.copytree(ROOT / "benchmarks" / "cases", "benchmarks/cases")
    in_small(["train-target", "--run-name", "digits", "--target-model", "MLP", "--averaging", "0.98"])
    in_small(["train-optimizer", "--run-name", "digits"])
    return Path.cwd()


@pytest.mark.parametrize("page", runnable())
@pytest.mark.filterwarnings("ignore")  # pandas and MLflow warn of their own things
def test_what_a_page_shows_runs_in_its_order(page, folder, in_small, monkeypatch):
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


def run(words: list[str], page: str, in_small: Callable, patch: pytest.MonkeyPatch) -> None:
    """One line of a shell."""
    match words:
        case ["metaopt", *arguments]:
            in_small(arguments)
        case ["python", script, *arguments]:
            patch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
        case ["export", *variables]:
            for name, value in (variable.split("=", 1) for variable in variables):
                patch.setenv(name, value)
        case _:
            pytest.fail(f"{page} shows `{shlex.join(words)}`; write <!-- not run: why --> above the block")
