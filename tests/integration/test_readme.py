"""README.md: its length, its commands in their order at a small size, and its Python."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from mlflow import MlflowClient

from metaopt.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 150
FIRST_SCREENS = 75
"""By which line the use in a training loop is shown."""


PRODUCTION = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
SMALL_NETWORK = ["--target-model", "ConvNet", "--target-options", "widths=[4]"]


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


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
    assert ["mlflow", "run", ".", "--env-manager", "local", "--experiment-name", "metaopt"] in commands()
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


def test_its_commands_and_its_python_run_in_their_order_and_then_both_phases(in_small):
    """Another network, recorded and trained in the same folder, does not replace the champion of the main job."""
    shutil.copytree(ROOT / "benchmarks" / "cases", "benchmarks/cases")
    names: dict[str, Any] = {}
    for words in commands():
        if words[:2] == ["mlflow", "run"]:
            in_small(["main"])
            for snippet in blocks("python"):
                exec(compile(snippet, "README.md", "exec"), names)
            assert any(event.accepted for event in names["optimizer"].events)
        elif words[0] == "metaopt":
            in_small([*words[1:], *SMALL_NETWORK, "--evaluate-every", "20"])
    in_small(["train-target", "--run-name", "other", *SMALL_NETWORK])
    in_small(["train-optimizer", "--run-name", "other"])
    (pyfunc,) = [block for block in blocks("python", PRODUCTION) if "mlflow.pyfunc" in block]
    exec(compile(pyfunc, "production.md", "exec"), names)
    champions = {model.name: int(model.aliases["champion"]) for model in MlflowClient().search_registered_models()}
    assert champions == {"metaopt-digits-MLP": 1, "metaopt-digits-ConvNet": 1}


def test_the_files_and_headings_that_it_links_to_exist():
    for name, _, heading in (link.partition("#") for link in re.findall(r"\]\((?!http)([^)]+)\)", README)):
        assert (ROOT / name).exists(), name
        text = (ROOT / name).read_text(encoding="utf-8") if heading else ""
        headings = [line.strip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")]
        assert not heading or heading in headings, heading
