"""`pybuild fmt`."""

from __future__ import annotations

import click

import grammar
from builder.cli.context import Settings
from builder.cli.dockerfiles import read_dockerfile
from builder.cli.rewrite import difference, replace_file


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
            click.echo(difference(before, after, file), nl=False)
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
            replace_file(settings.path(file), after)
            click.echo(f"formatted {file}", err=True)


def _tidied(file: str) -> tuple[bytes, bytes]:
    data, name = read_dockerfile(file)
    return data, grammar.tidy(data, name=name)
