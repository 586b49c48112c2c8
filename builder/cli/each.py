"""Doing one thing to several containers: those that can be done are, and the first that cannot is told at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.state import containers_of

if TYPE_CHECKING:
    from runner.container import Container, Containers


def for_each(settings: Settings, names: Sequence[str], act: Callable[[Containers, Container], None]) -> None:
    """Call `act` with every container that `names` mean and print each name; raise the last error, show the others."""
    from runner.errors import RunnerError  # noqa: PLC0415 - not for --help

    containers = containers_of(settings)
    failed: RunnerError | None = None
    for name in names:
        try:
            act(containers, containers.find(name))
        except RunnerError as error:
            if failed is not None:
                click.echo(f"error: {failed.message}", err=True)
            failed = error
        else:
            click.echo(name)
    if failed is not None:
        raise failed
