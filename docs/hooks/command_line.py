"""Generates the reference of the command line from the commands."""

from collections.abc import Iterator

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

PLACE = "<!-- the commands -->"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert all commands at the placeholder of the page."""
    return markdown.replace(PLACE, reference()) if PLACE in markdown else markdown


def reference() -> str:
    """Return a section for each command, in Markdown."""
    from metaopt.cli import COMMANDS, cli

    context = click.Context(cli, info_name="metaopt")
    return "\n".join(line for name in COMMANDS for line in _section(name, cli.get_command(context, name)))


def _section(name: str, command: click.Command | None) -> Iterator[str]:
    assert command is not None, f"metaopt has no command {name}"
    yield from (f"## metaopt {name}", "", command.help or "", "")
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    if arguments:
        yield from (f"`metaopt {name} {' '.join(f'[{each.human_readable_name}]' for each in arguments)}`", "")
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _section(f"{name} {each.name}", each)
    options = [each for each in command.params if isinstance(each, click.Option)]
    if options:
        yield from ("| flag | default | meaning |", "|---|---|---|", *map(_row, options), "")


def _row(option: click.Option) -> str:
    default = "" if option.default is None else f"`{option.default}`"
    return f"| `{option.opts[0]}` | {default} | {option.help or ''} |"
