"""`pybuild save`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from builder.cli.context import Settings
from builder.errors import ExportError, UsageError

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.archive import Saved
    from layerstore.platforms import Platform

_FORMATS = ("docker-archive", "oci-archive", "oci-dir")


@click.command("save")
@click.option("-o", "--output", metavar="PATH", help="Write to this file, or directory with --format oci-dir.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*_FORMATS, "oci"]),
    default="docker-archive",
    show_default=True,
    help="An archive that `docker load` reads, or an OCI layout as archive (oci is short for it) or directory.",
)
@click.option(
    "--compression", type=click.Choice(["uncompressed", "gzip", "zstd"]), help="Compress all layers this way."
)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of images for several platforms, write only this one.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def command(
    settings: Settings,
    *,
    output: str | None,
    form: str,
    compression: str | None,
    platform: str | None,
    names: tuple[str, ...],
) -> None:
    """Write images with all their layers to an archive, by default on standard output.

    An OCI layout directory that is there already keeps its other images. An image for several platforms is written with
    all of them to an OCI layout, and with this machine's to a docker archive.
    """
    if form == "oci-dir" and output is None:
        raise UsageError("--format oci-dir writes a directory", hint="name it with -o DIRECTORY")
    if output is None and settings.stdout_tty:
        raise UsageError("an archive is not written to a terminal", hint="give -o FILE, or redirect standard output")
    from builder.cli.registry import platform_of  # noqa: PLC0415
    from layerstore.archive import DOCKER, OCI, named_compression, save  # noqa: PLC0415 - not for --help

    chosen = None if compression is None else named_compression(compression)
    with settings.open_store() as store:
        one = None if platform is None and form != "docker-archive" else platform_of(settings, platform)
        images = _images(store, names, one)
        if form == "oci-dir":
            assert output is not None
            save(store, images, settings.path(output), format=OCI, compression=chosen)
            return
        with whole_file(None if output is None else settings.path(output)) as out:
            save(store, images, out, format=DOCKER if form == "docker-archive" else OCI, compression=chosen)


def _images(store: Store, names: Sequence[str], platform: Platform | None) -> list[Saved]:
    """Return what `names` mean, each image once with all the names it was asked by; of indexes that for `platform`."""
    from builder.cli.lookup import find_any, one_of  # noqa: PLC0415 - who only writes a file needs no store
    from layerstore.archive import Saved  # noqa: PLC0415

    found: dict[str, Saved] = {}
    for text in names:
        image, name = find_any(store, text)
        if platform is not None:
            image = one_of(image, text, platform)
        saved = found.setdefault(image.id, Saved(image, ()))
        if name is not None and name not in saved.names:
            found[image.id] = Saved(image, (*saved.names, name))
    return list(found.values())


@contextlib.contextmanager
def whole_file(path: Path | None, *, hint: str = "choose another place with -o") -> Iterator[BinaryIO]:
    """Open a file that is there whole and on disk afterwards, or not at all; standard output for None.

    ExportError, with `hint`, where it cannot be written.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        if path.exists() and not path.is_file():
            raise ExportError(f"{path} is no file", hint="choose another name")
        part.replace(path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}", hint=hint) from error
    finally:
        part.unlink(missing_ok=True)
