"""`pybuild rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.each import for_each
from builder.cli.state import containers_of

if TYPE_CHECKING:
    from runner.container import Container, Containers


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill containers that run; one that is not there is no error.")
@click.option("-v", "--volumes", is_flag=True, help="Remove their anonymous volumes, too.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def command(settings: Settings, *, force: bool, volumes: bool, names: tuple[str, ...]) -> None:
    """Remove containers, with their logs and all that they changed."""
    from runner.container import ContainerNotFoundError  # noqa: PLC0415 - not for --help

    def remove(containers: Containers, container: Container) -> None:
        containers.remove(container, force=force)
        if volumes:
            containers.remove_volumes(container.config)

    if force:
        present = []
        for name in names:
            try:
                containers_of(settings).find(name)
            except ContainerNotFoundError:
                continue
            present.append(name)
        names = tuple(present)
    for_each(settings, names, remove)
