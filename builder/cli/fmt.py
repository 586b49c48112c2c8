"""`pybuild fmt`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

import grammar
from builder.cli.context import Settings
from builder.cli.dockerfiles import read_dockerfile
from builder.cli.save import whole_file


@click.command("fmt")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file would change.")
@click.option("--diff", is_flag=True, help="Write nothing; print what would change.")
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.pass_obj
def command(settings: Settings, *, check: bool, diff: bool, files: tuple[str, ...]) -> None:
    """Tidy the layout of each Dockerfile FILE (default: Dockerfile), in place.

    - reads standard input and writes to standard output. Comments, heredocs and line breaks are kept, and so is the
    text of commands, indentation included, which belongs to the image. No file is written unless all can be parsed.
    """
    tidied = [(file, *_tidied(file)) for file in dict.fromkeys(files or ("Dockerfile",))]
    changed = [(file, before, after) for file, before, after in tidied if before != after]
    if diff:
        for file, before, after in changed:
            click.echo("".join(_difference(before, after, file)).encode("utf-8", "surrogateescape"), nl=False)
    if check:
        for file, _, _ in changed:
            click.echo(f"would format {file}", err=True)
        if changed:
            raise click.exceptions.Exit(1)
    if check or diff:
        return
    for file, before, after in tidied:
        if file == "-":
            click.echo(after, nl=False)
        elif before != after:
            _write(settings.path(file), after)
            click.echo(f"formatted {file}", err=True)


def _tidied(file: str) -> tuple[bytes, bytes]:
    data, name = read_dockerfile(file)
    return data, grammar.tidy(data, name=name)


def _write(path: Path, data: bytes) -> None:
    """Replace a file, or the one that a symbolic link leads to, by one of the same mode and owner."""
    path = path.resolve()
    status = path.stat()
    with whole_file(path, hint="look at the permissions of its directory") as out:
        # Only root may give a file away; the mode comes second because a change of the owner clears bits of it.
        with suppress(PermissionError):
            os.fchown(out.fileno(), status.st_uid, status.st_gid)
        os.fchmod(out.fileno(), stat.S_IMODE(status.st_mode))
        out.write(data)


def _difference(before: bytes, after: bytes, file: str) -> Iterator[str]:
    """The lines of a unified diff."""
    from difflib import unified_diff  # noqa: PLC0415 - only for --diff

    old, new = (_lines(data.decode("utf-8", "surrogateescape")) for data in (before, after))
    for line in unified_diff(old, new, fromfile=file, tofile=file):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """The lines with their newlines; nothing else ends a line."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
