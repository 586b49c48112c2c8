"""`pybuild lsp`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import click

from builder.cli.context import Settings
from builder.errors import BuildError, UsageError

if TYPE_CHECKING:
    from builder.lsp.server import Config
    from layerstore import Store

_LARGEST_PORT = 65535


@click.command("lsp")
@click.option(
    "--stdio", is_flag=True, help="Talk over standard input and output, which is what happens without --tcp too."
)
@click.option("--tcp", metavar="HOST:PORT", help="Wait for one client on this address; port 0 takes a free one.")
@click.pass_obj
def command(settings: Settings, *, stdio: bool, tcp: str | None) -> None:
    """Serve an editor that edits Dockerfiles, by the Language Server Protocol.

    docs/editors.md says how to set up editors. It needs the Python package pygls, which comes with
    `pip install 'pybuild[lsp]'`. Base images are looked up in the store only, and no store is made.
    """
    if stdio and tcp is not None:
        raise UsageError("--stdio and --tcp exclude each other", hint="leave one of them out")
    address = _address(tcp) if tcp is not None else None
    config = _config(settings)
    from builder.lsp.server import serve_stdio, serve_tcp  # noqa: PLC0415 - it imports pygls, half a second

    if address is not None:
        try:
            ended_well = serve_tcp(config, *address, listening=_say_address)
        except OSError as error:
            message = f"cannot listen on {tcp}: {error.strerror or error}"
            raise BuildError(message, hint="choose another address, or port 0 for a free one") from error
    else:
        ended_well = serve_stdio(config, os.dup(0), _protected_output())
    if not ended_well:
        raise click.exceptions.Exit(1)


def _config(settings: Settings) -> Config:
    try:
        from builder.lsp.server import Config  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        hint = "install it with `pip install 'pybuild[lsp]'`"
        raise BuildError(
            "the language server needs the Python package pygls, which is not installed", hint=hint
        ) from error
    from layerstore.platforms import Platform  # noqa: PLC0415

    @contextmanager
    def open_store() -> Iterator[Store | None]:
        store = _open(settings)
        try:
            yield store
        finally:
            if store is not None:
                store.close()

    return Config(platform=Platform.host(settings.machine), cwd=settings.cwd, open_store=open_store)


def _open(settings: Settings) -> Store | None:
    """Open the store if there is one that can be; a server that only looks makes none."""
    if not os.access(settings.root / "store.db", os.R_OK | os.W_OK):
        return None
    from layerstore import Store, StoreError  # noqa: PLC0415

    try:
        return Store.open(settings.root)
    except StoreError:
        return None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > _LARGEST_PORT:
        raise UsageError(f"--tcp {text} is no address", hint="write HOST:PORT, such as 127.0.0.1:2087")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _say_address(host: str, port: int) -> None:
    click.echo(f"listening on {host}:{port}", err=True)


def _protected_output() -> BinaryIO:
    """Standard output for the protocol alone: whatever else is printed goes to standard error from here on."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return output
