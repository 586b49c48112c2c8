"""`pybuild stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.each import for_each

if TYPE_CHECKING:
    from runner.container import Container, Containers


@click.command("stop")
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Wait that long before SIGKILL; -1 is for ever.")
@click.option("-s", "--signal", "name", metavar="SIGNAL", help="The signal to send first (default: the container's).")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def command(settings: Settings, *, seconds: int | None, name: str | None, names: tuple[str, ...]) -> None:
    """Stop containers: the stop signal, then SIGKILL for those that are still there.

    The signal is that of --stop-signal or the image's STOPSIGNAL, else SIGTERM; the time is that of --stop-timeout,
    else ten seconds.
    """
    from runner.signals import parse_signal  # noqa: PLC0415 - not for --help

    signum = None if name is None else parse_signal(name)

    def stop(containers: Containers, container: Container) -> None:
        timeout = container.config.stop_timeout if seconds is None else seconds
        container.signal(container.config.stop_signal if signum is None else signum)
        if not container.wait(timeout if timeout >= 0 else None):
            containers.kill(container)

    for_each(settings, names, stop)
