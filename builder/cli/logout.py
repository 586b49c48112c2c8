"""`pybuild logout`."""

from __future__ import annotations

import click

from builder.cli.context import Settings


@click.command("logout")
@click.argument("server", default="docker.io")
@click.pass_obj
def command(settings: Settings, *, server: str) -> None:
    """Forget the name and password for the registry SERVER."""
    from builder.cli.login import registry_name  # noqa: PLC0415 - not for --help
    from builder.cli.registry import auth_files  # noqa: PLC0415

    registry = registry_name(server)
    if auth_files(settings).erase(registry):
        click.echo(f"Removed the credentials for {registry}")
    else:
        click.echo(f"Not logged in to {registry}")
