"""`pybuild login`."""

from __future__ import annotations

import sys

import click

from builder.cli.context import Settings
from builder.errors import UsageError


@click.command("login")
@click.option("-u", "--username", metavar="NAME", help="Who you are there.")
@click.option("-p", "--password", metavar="PASSWORD", help="The password; others see it in the list of processes.")
@click.option("--password-stdin", "from_stdin", is_flag=True, help="Read the password from standard input.")
@click.argument("server", default="docker.io")
@click.pass_obj
def command(settings: Settings, *, username: str | None, password: str | None, from_stdin: bool, server: str) -> None:
    """Store a name and a password for the registry SERVER, once it has accepted them.

    They go to a credential helper if docker's config.json names one, else into that file, where only you can read them.
    Without options they are asked for.
    """
    if password is not None and from_stdin:
        raise UsageError("--password and --password-stdin exclude each other", hint="prefer --password-stdin")
    if from_stdin and username is None:
        raise UsageError("--password-stdin needs --username", hint="add -u NAME")
    if username is None:
        username = _ask(settings, "Username", hide=False)
    if from_stdin:
        password = sys.stdin.read().rstrip("\r\n")
    elif password is None:
        password = _ask(settings, "Password", hide=True)
    if not username or not password:
        raise UsageError(f"the {'password' if username else 'user name'} is empty")
    from builder.cli.registry import auth_files, client  # noqa: PLC0415 - not for --help
    from layerstore.registry.auth import Credentials  # noqa: PLC0415
    from layerstore.registry.client import GivenCredentials  # noqa: PLC0415

    registry = registry_name(server)
    credentials = Credentials(username=username, password=password)
    with client(settings, GivenCredentials(registry, credentials)) as asked:
        asked.login(registry)
    where = auth_files(settings).store(registry, credentials)
    click.echo(f"Login Succeeded; the credentials are in {where}")


def registry_name(server: str) -> str:
    """Return the registry that is meant by `server`: a host, perhaps written as a URL. UsageError if it is none."""
    name = server.partition("://")[2] if "://" in server else server
    name = name.partition("/")[0]
    if not name or name.startswith("-") or any(character.isspace() for character in name):
        raise UsageError(f"{server!r} is no registry", hint="write HOST[:PORT], for example example.com:5000")
    return "docker.io" if name in ("index.docker.io", "registry-1.docker.io") else name


def _ask(settings: Settings, what: str, *, hide: bool) -> str:
    if not settings.stdin_tty:
        raise UsageError(
            f"there is no terminal to ask for the {what.lower()}", hint="give -u NAME and --password-stdin"
        )
    answer: str = click.prompt(what, hide_input=hide, err=True)
    return answer
