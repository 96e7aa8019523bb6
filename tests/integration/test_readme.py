"""README.md: its length, its commands in their order at a small size, and its Python."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from metaopt.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 150
FIRST_SCREENS = 75
"""By which line the use in a training loop is shown."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The command lines of README, those in indented blocks included, as words."""
    indented = re.findall(r"^    (metaopt .*)$", README, re.MULTILINE)
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in [*lines, *indented]]


def calls_of_metaopt() -> list[list[str]]:
    return [words[1:] for words in commands() if words[:1] == ["metaopt"]]


def test_it_is_short_and_shows_the_use_in_a_training_loop_early():
    lines = README.splitlines()
    assert len(lines) <= MOST_LINES
    assert next(number for number, line in enumerate(lines) if "metaopt.Nowcast(" in line) < FIRST_SCREENS


def test_it_shows_the_main_job_and_the_command_that_ci_runs():
    assert ["mlflow", "run", ".", "--env-manager", "local"] in commands()
    assert "python -m pytest -n 2 --dist loadfile\n" in blocks("bash")
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").endswith("\npython -m pytest -n 2 --dist loadfile\n")


def test_it_shows_what_the_main_job_prints():
    shown = README[README.index("<!-- main: begin") : README.index("<!-- main: end -->")]
    (table,) = re.findall(r"^```text\n(.*?)^```", shown, re.DOTALL | re.MULTILINE)
    assert table.startswith("contender")
    for label in ("result:", "registered:", "report:", "next:"):
        assert f"\n{label}" in table


@pytest.mark.parametrize("arguments", calls_of_metaopt(), ids=" ".join)
def test_a_shown_command_has_only_flags_that_exist(arguments):
    command = cli.get_command(click.Context(cli), arguments[0])
    command.make_context(arguments[0], arguments[1:])


def test_its_commands_and_its_python_run(in_small):
    in_small(["main"])
    names: dict[str, Any] = {}
    for snippet in blocks("python"):
        exec(compile(snippet, "README.md", "exec"), names)
    assert any(event.accepted for event in names["optimizer"].events)


def test_the_files_and_headings_that_it_links_to_exist():
    for name, _, heading in (link.partition("#") for link in re.findall(r"\]\((?!http)([^)]+)\)", README)):
        assert (ROOT / name).exists(), name
        text = (ROOT / name).read_text(encoding="utf-8") if heading else ""
        headings = [line.strip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")]
        assert not heading or heading in headings, heading
