"""`pybuild kill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.each import for_each

if TYPE_CHECKING:
    from runner.container import Container, Containers


@click.command("kill")
@click.option("-s", "--signal", "name", default="KILL", metavar="SIGNAL", help="The signal to send (default: KILL).")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def command(settings: Settings, *, name: str, names: tuple[str, ...]) -> None:
    """Send a signal to containers; SIGKILL returns when they have ended."""
    import signal  # noqa: PLC0415 - not for --help

    from runner.container import ContainerRunningError  # noqa: PLC0415
    from runner.signals import parse_signal  # noqa: PLC0415

    signum = parse_signal(name)

    def kill(containers: Containers, container: Container) -> None:
        if not container.signal(signum):
            raise ContainerRunningError(
                f"container {container.config.name} is not running", hint="`pybuild ps` lists those that are"
            )
        if signum == signal.SIGKILL:
            containers.kill(container)

    for_each(settings, names, kill)
