"""`pybuild ps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.state import containers_of

if TYPE_CHECKING:
    from runner.container import Container, State

_COMMAND_WIDTH = 20


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Show containers that do not run, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show IDs only.")
@click.option("--no-trunc", is_flag=True, help="Show whole IDs and commands.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the list.")
@click.pass_obj
def command(settings: Settings, *, everything: bool, quiet: bool, no_trunc: bool, form: str) -> None:
    """List containers, newest first."""
    from runner.container import Status  # noqa: PLC0415 - not for --help

    listed = [(container, container.state()) for container in containers_of(settings).all()]
    if not everything:
        listed = [(container, state) for container, state in listed if state.status is Status.RUNNING]
    if quiet:
        for container, _ in listed:
            click.echo(container.id if no_trunc else container.config.short_id)
        return
    from builder.cli.table import echo_json_lines, echo_table  # noqa: PLC0415

    rows = [_row(container, state, settings.clock(), no_trunc=no_trunc) for container, state in listed]
    if form == "json":
        echo_json_lines(
            {**row, "State": str(state.status), "Labels": dict(container.config.labels), "ExitCode": state.exit_code}
            for row, (container, state) in zip(rows, listed, strict=True)
        )
        return
    header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    names = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
    echo_table(header, ([str(row[name]) for name in names] for row in rows))


def _row(container: Container, state: State, now: float, *, no_trunc: bool) -> dict[str, object]:
    from builder.cli.table import since  # noqa: PLC0415
    from runner.log import timestamp  # noqa: PLC0415

    config = container.config
    words = " ".join(config.command).replace("\n", " ")
    if not no_trunc and len(words) > _COMMAND_WIDTH:
        words = words[: _COMMAND_WIDTH - 1] + "…"
    return {
        "ID": config.id if no_trunc else config.short_id,
        "Image": config.image,
        "Command": f'"{words}"',
        "CreatedAt": timestamp(config.created),
        "RunningFor": since(now - config.created),
        "Status": _status(state, now),
        "Ports": ", ".join(state.ports),
        "Names": config.name,
    }


def _status(state: State, now: float) -> str:
    """What became of it, in docker's words: `Up 2 hours`, `Exited (0) 3 minutes ago`, `Created`."""
    from builder.cli.table import since  # noqa: PLC0415
    from runner.container import Status  # noqa: PLC0415

    match state.status:
        case Status.RUNNING:
            return "Up " + since(now - state.started).removesuffix(" ago")
        case Status.EXITED:
            return f"Exited ({state.exit_code}) {since(now - state.finished)}"
        case Status.CREATED:
            return "Created"
