"""`metaopt hosts`: the machines that a file names, and whether they can be used."""

from pathlib import Path

import click

from ..core.text import aligned, counted
from ..operations.hosts import HOSTS, read_hosts
from .options import EPILOG
from .output import Result, show


@click.command("hosts", epilog=EPILOG)
@click.option("--hosts", type=click.Path(path_type=Path), default=HOSTS, show_default=True, help="File of machines.")
@click.option("--probe", is_flag=True, help="Check that servers and databases answer, and that folders have room.")
@click.option(
    "--time-limit",
    type=click.FloatRange(0, 3600, min_open=True),
    default=5.0,
    show_default=True,
    help="Longest wait for an answer [s].",
)
def command(hosts: Path, probe: bool, time_limit: float) -> None:
    """List the machines of a file: what each is for, its addresses and its devices.

    With --probe, the exit status is 1 if anything cannot be used.
    """
    found = read_hosts(hosts)
    rows = [
        [name, ", ".join(host.roles), ", ".join(host.devices), ", ".join(host.addresses.values()) or "–"]
        for name, host in found.items()
    ]
    facts = [
        {"name": name, "roles": host.roles, "devices": host.devices, "addresses": host.addresses}
        for name, host in found.items()
    ]
    if not probe:
        show(Result({"hosts": facts}, {}, table=_table(["machine", "roles", "devices", "addresses"], rows)), "hosts")
        return
    from ..operations.probe import probe_hosts  # it imports SQLAlchemy, which takes seconds

    health = probe_hosts(found, time_limit)
    unhealthy = sum(not each.healthy for each in health)
    table = [[each.machine, each.role, "healthy" if each.healthy else "NOT HEALTHY", each.detail] for each in health]
    lines = {"result": f"{counted(len(health), 'probe')}, {unhealthy} not healthy"}
    shown = _table(["machine", "role", "health", "detail"], table)
    show(Result({"hosts": facts, "health": [each._asdict() for each in health]}, lines, table=shown), "hosts")
    if unhealthy:
        click.get_current_context().exit(1)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(aligned([heads, *rows]))
