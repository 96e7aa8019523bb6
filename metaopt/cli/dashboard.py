"""`metaopt dashboard`: serves the page and the JSON API of a queue."""

import sys

import click

from ..core.dependencies import import_extra
from ..operations.dashboard import DashboardConfig
from .options import config_command
from .output import Result


def command(summary: str) -> click.Command:
    """The command."""

    def serve(config: DashboardConfig) -> None:
        for package in ("fastapi", "jinja2", "uvicorn"):
            import_extra(package, "operations")
        from ..operations.dashboard import serve

        def announce(address: str) -> None:
            click.echo(f"the dashboard listens at {address}", err=True)
            sys.stderr.flush()

        serve(config, announce)

    return config_command(
        "dashboard", summary, DashboardConfig, serve, lambda _, config: Result({}, {"dashboard": "ended"})
    )
