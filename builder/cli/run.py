"""`pybuild run`: an image as a container. Flags are named as in `docker run`, exit statuses are docker's."""

from __future__ import annotations

from typing import Any

import click

from builder.cli.clickwords import options
from builder.cli.context import Settings
from builder.cli.runwords import OPTIONS


class _RunCommand(click.Command):
    """A command whose wrong usage is docker's 125: any other status belongs to the container."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse `args`; a UsageError has exit status 125."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            vars(error)["exit_code"] = 125
            raise


@click.command(
    "run",
    cls=_RunCommand,
    context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]},
)
@options(OPTIONS)
@click.argument("image")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG]...")
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> int:
    """Run a command in a new container.

    The exit status is the command's; 128 + N if signal N killed it, 127 if it does not exist, 126 if it cannot be
    executed, 125 if the container cannot be made.
    """
    from builder.cli.running import run  # noqa: PLC0415 - not for --help

    return run(settings, given)
