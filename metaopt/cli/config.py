"""`metaopt config explain`: the value of each parameter of a command, and where it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..core.config import Config
from ..core.errors import InvalidConfig
from ..core.text import aligned, counted
from ..operations.campaign_folder import CAMPAIGNS, CampaignFolder
from ..operations.heroes import read_hero
from ..operations.hosts import HOSTS, machine_layer
from ..operations.layers import Layer, Resolved, flag_layer, resolve
from ..operations.workflow_table import find_workflow
from .options import EPILOG, first_word, flag_values, with_plugin_flags
from .output import Result, show


@click.group("config")
def command() -> None:
    """Show which value each parameter of a command has, and where it comes from."""


@command.command("explain", epilog=EPILOG, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("workflow", required=False)
@click.option("--config", type=click.Path(path_type=Path), help="Hero, or file with parameters of the command.")
@click.option("--campaign", help="Campaign whose job to explain, in place of --config.")
@click.option("--job", help="Job of the campaign; needed if several have the command.")
@click.option("--campaign-dir", type=click.Path(path_type=Path), default=CAMPAIGNS, show_default=True)
@click.option("--machine", help="Machine whose parameters to add.")
@click.option("--hosts", type=click.Path(path_type=Path), default=HOSTS, show_default=True, help="File of machines.")
@click.option("--changed", is_flag=True, help="Leave out parameters that have their defaults.")
@click.pass_context
def explain(
    context: click.Context,
    workflow: str | None,
    config: Path | None,
    campaign: str | None,
    job: str | None,
    campaign_dir: Path,
    machine: str | None,
    hosts: Path,
    changed: bool,
) -> None:
    """Show the value of each parameter of a command, and where it comes from.

    WORKFLOW is a command, such as `train-target`; further flags are its own. Later ones hold: defaults, the hero, the
    campaign, the machine, flags.
    """
    if config is not None and campaign is not None:
        raise InvalidConfig("--config and --campaign are given, and a campaign names its hero; give one of them")
    layers: list[Layer] = []
    workflow, words = first_word(workflow, context.args)
    if campaign is not None:
        found = CampaignFolder(campaign_dir).read(campaign)
        chosen = found.find(workflow, job)
        workflow = chosen.workflow
        layers += found.layers(chosen)
    elif workflow is None:
        raise click.UsageError("name a command, such as train-target, or give --campaign and --job")
    find_workflow(workflow)
    if config is not None:
        layers.append(read_hero(config, workflow))
    if machine is not None:
        layers.append(machine_layer(hosts, machine, workflow))
    resolved = resolve_with_flags(workflow, layers, words)
    show(_result(resolved, changed), "config explain")


def resolve_with_flags(workflow: str, layers: Sequence[Layer], words: Sequence[str]) -> Resolved:
    """Merge layers with the rest of a command line, also with options of the task, the target or the optimizer.

    Raises:
        click.UsageError: an unknown flag; the message lists the nearest flags.
        MetaoptError: the configuration is refused.
    """
    kind = find_workflow(workflow).config_class
    given = flag_values(words)
    own = {name: value for name, value in given.items() if name in kind.names() or name in kind.renamed}
    merged = [*layers, flag_layer(own)]
    rest = [word for name, value in given.items() if name not in own for word in (f"--{name}", value)]
    if not rest:
        return resolve(workflow, merged)
    values = resolve(workflow, merged).config.to_mapping()
    return resolve(workflow, [*merged, flag_layer(_changes(kind, values, rest))])


def _changes(kind: type[Config], values: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    found = with_plugin_flags(kind, values, words)
    return {name: value for name, value in found.items() if value != values.get(name)}


def _result(resolved: Resolved, changed: bool) -> Result:
    values, origins = resolved.config.to_mapping(), resolved.origins
    names = [name for name in values if not changed or origins[name].layer != "default"]
    facts = {
        "workflow": resolved.workflow,
        "digest": resolved.digest,
        "parameters": [
            {"name": name, "value": values[name], **origins[name]._asdict()} for name in names
        ],
    }  # fmt: skip
    rows = [[name, _text(values[name]), str(origins[name])] for name in names]
    table = "\n".join(aligned([["parameter", "value", "from"], *rows]))
    lines = {"command": resolved.workflow, "digest": f"{resolved.digest} of {counted(len(values), 'parameter')}"}
    return Result(facts, lines, table=table)


def _text(value: Any) -> str:
    """A value as a user types it."""
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
