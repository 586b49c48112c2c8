"""`pybuild logs`."""

from __future__ import annotations

import os

import click

from builder.cli.context import Settings
from builder.cli.state import containers_of


def _lines(_ctx: click.Context, _option: click.Parameter, text: str) -> int | None:
    """Return how many lines are wanted; None for all, as a negative number means it with docker."""
    if text == "all":
        return None
    try:
        number = int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor all") from None
    return number if number >= 0 else None


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-n", "--tail", callback=_lines, default="all", metavar="N", help="The last N lines only [all].")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.argument("name", metavar="CONTAINER")
@click.pass_obj
def command(settings: Settings, *, follow: bool, tail: int | None, timestamps: bool, name: str) -> None:
    """Show what a container wrote: its stdout on stdout, its stderr on stderr."""
    from runner.log import read_log  # noqa: PLC0415 - not for --help

    container = containers_of(settings).find(name)
    if not container.config.keeps_log:
        from runner.errors import RunnerError  # noqa: PLC0415

        raise RunnerError(
            f"the output of {container.config.name} is not kept: it runs in the foreground and with --rm",
            hint="leave --rm out, or run it with -d",
        )
    alive = container.supervised if follow else None
    for record in read_log(container.log, tail=tail, follow=alive):
        prefix = f"{record.time} ".encode() if timestamps else b""
        _write(1 if record.stream == "stdout" else 2, prefix + record.data)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
