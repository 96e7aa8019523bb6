"""The help shows the type and the rule of each flag."""

import dataclasses
import re

import click
import pytest
from click.testing import CliRunner

from metaopt.cli import cli
from metaopt.cli.flags import config_flags
from metaopt.cli.project import CONFIGS
from metaopt.core.config import Config, Options, Range, option


class Settings(Config):
    epochs: int = option(default=3, help="Whole.", at_least=1)
    share: float | None = option(default=None, help="Number.", at_least=0.0, below=1.0)
    rate: float = option(default=0.1, help="Positive.", above=0.0)
    free: int = option(default=0, help="Any.")
    lr: Range = option(default=Range(1e-3, 1e-3), help="Drawn.")
    widths: tuple[int, ...] = option(default=(1,), help="Several.")
    further: Options = option(default={}, help="Options.")
    mode: str = option(default="a", help="Mode.", choices=("a", "b"))
    name: str = option(default="x", help="Text.")
    on: bool = option(default=False, help="Switch.")


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ("epochs", "--epochs INTEGER Whole. [default: 3; x>=1]"),
        ("share", "--share FLOAT Number. [default: none; 0.0<=x<1.0]"),
        ("rate", "--rate FLOAT Positive. [default: 0.1; x>0.0]"),
        ("free", "--free INTEGER Any. [default: 0]"),
        ("lr", "--lr FLOAT|LOW:HIGH Drawn. [default: 0.001]"),
        ("widths", "--widths INTEGER,… Several. [default: 1]"),
        ("further", "--further NAME=VALUE… Options. [default: none]"),
        ("mode", "--mode [a|b] Mode. [default: a]"),
        ("name", "--name TEXT Text. [default: x]"),
        ("on", "--on [true|false] Switch. [default: false]"),
        ("config", "--config PATH YAML or JSON file"),
    ],
)
def test_the_help_states_the_type_and_the_rule(flag, shown):
    command = click.Command("x", params=list(config_flags(Settings)), context_settings={"show_default": True})
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert shown in text, flag


@pytest.mark.parametrize("command", CONFIGS)
def test_no_number_of_a_command_is_shown_as_text(command):
    text = CliRunner().invoke(cli, [command, "--help"]).output
    for field in dataclasses.fields(CONFIGS[command]):
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert re.search(rf"--{field.name.replace('_', '-')} (INTEGER|FLOAT)", text), field.name
