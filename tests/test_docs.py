"""docs/cli.md is what `--help` says; `python -m tests.test_docs` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from builder.cli.app import COMMANDS, app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = 100


def commands(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    """Every command below `group`, once, as the context in which its help is shown."""
    seen = set()
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if id(command) in seen:
            continue
        seen.add(id(command))
        inner = click.Context(command, info_name=name, parent=context, terminal_width=WIDTH, max_content_width=WIDTH)
        yield inner
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def every() -> list[click.Context]:
    """pybuild itself and all its commands."""
    root = click.Context(
        app, info_name="pybuild", terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return [root, *commands(app, root)]


def page() -> str:
    """The whole of docs/cli.md."""
    parts = ["# Commands\n\nWritten by `make docs` from what each command says of itself.\n"]
    for context in every():
        depth = min(context.command_path.count(" ") + 2, 4)
        text = context.get_help()
        parts.append(f"{'#' * depth} {context.command_path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def test_page_is_current() -> None:
    """The page says what the commands say; `make docs` brings it up to date."""
    assert page() == PAGE.read_text()


@pytest.mark.parametrize("context", every(), ids=lambda context: context.command_path)
def test_everything_has_help(context: click.Context) -> None:
    """Every command and every option says what it is for."""
    assert context.command.help
    silent = [
        option.opts
        for option in context.command.params
        if isinstance(option, click.Option) and not option.help and not option.hidden
    ]

    assert [] == silent


@pytest.mark.parametrize("name", COMMANDS)
def test_summaries_begin_like_the_help(name: str) -> None:
    """The list of commands is written down so that nothing is imported for it; here it meets the commands."""
    command = app.get_command(click.Context(app), name)

    assert command is not None
    assert command.name in (name, None)
    assert COMMANDS[name].summary
    assert not COMMANDS[name].summary.endswith(".")


if __name__ == "__main__":
    PAGE.write_text(page())
