"""`pybuild base busybox|host|debian`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.lookup import familiar
from builder.cli.table import age
from builder.errors import UsageError
from layerstore.platforms import Platform
from layerstore.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerstore import Store
    from layerstore.entry import Entry
    from layerstore.images import Image

TAG = click.option("-t", "--tag", "tags", multiple=True, metavar="NAME", help="Name of the image; may be repeated.")


@click.group("base")
def command() -> None:
    """Make a base image from what this machine has.

    For places where no registry can be reached: what a Dockerfile names in FROM is looked for in the store first.
    """


@command.command("busybox")
@TAG
@click.option("--program", default="busybox", metavar="PATH", help="The static busybox to take.")
@click.pass_obj
def busybox(settings: Settings, *, tags: tuple[str, ...], program: str) -> None:
    """Make an image with a static busybox and a link for each of its applets (2 MB).

    The name is busybox:latest unless --tag says otherwise. The same busybox makes the same image.
    """
    from builder import base  # noqa: PLC0415

    entries, seconds = base.busybox(program)
    _keep(settings, entries, seconds, names=_names(tags, "busybox"), created_by="pybuild base busybox")


@command.command("host")
@TAG
@click.argument("programs", nargs=-1, metavar="[PROGRAM|PATH]...")
@click.pass_obj
def host(settings: Settings, *, tags: tuple[str, ...], programs: tuple[str, ...]) -> None:
    """Make an image with programs of this machine, the libraries they need and nothing else.

    PROGRAM is a name or a path; a directory is taken with everything below it. Without any, the image has a shell and
    the commands that scripts use. The name is host:latest unless --tag says otherwise. What programs open while they
    run, such as plugins, has to be named.
    """
    from builder import base  # noqa: PLC0415

    paths = [str(settings.path(name)) if "/" in name else name for name in programs]
    entries, seconds = base.host(paths)
    names = _names(tags, "host")
    _keep(settings, entries, seconds, names=names, created_by=" ".join(["pybuild base host", *programs]))


@command.command("debian")
@TAG
@click.option("--suite", default="", metavar="NAME", help="Such as bookworm [default: this machine's, else stable].")
@click.option("--include", multiple=True, metavar="PACKAGE[,PACKAGE]...", help="Install more packages.")
@click.option("--mirror", default="", metavar="URL", help="Where packages come from [default: deb.debian.org].")
@click.option("--no-cache", is_flag=True, help="Install again even if the same image was made before.")
@click.pass_obj
def debian(
    settings: Settings, *, tags: tuple[str, ...], suite: str, include: tuple[str, ...], mirror: str, no_cache: bool
) -> None:
    """Make a minimal Debian with debootstrap or mmdebstrap (needs root and a mirror).

    The name is debian:SUITE unless --tag says otherwise. An image that was made in the same way before is taken again.
    """
    from builder.debian import MIRROR, Debian, default_suite  # noqa: PLC0415

    if not suite:
        suite = default_suite(_os_release())
    packages = tuple(name for part in include for name in part.split(",") if name)
    wish = Debian(suite=suite, include=packages, mirror=mirror or MIRROR)
    wish.check()
    names = _names(tags, f"debian:{suite}")
    with settings.open_store() as store:
        known = None if no_cache else _made_before(store, wish.description)
        if known is not None:
            for name in names:
                known = store.images.tag(known, name)
            made = age(json.loads(known.config).get("created"), settings.clock())
            click.echo(f"Packages as of {made}; --no-cache installs again.", err=True)
            _tell(known, names)
            return
        with store.lock(f"base {wish.description}"):
            _tell(_install(settings, store, wish, names), names)


def _install(settings: Settings, store: Store, wish: object, names: Sequence[str]) -> Image:
    from builder.base import put_image  # noqa: PLC0415
    from builder.debian import Debian, install  # noqa: PLC0415

    assert isinstance(wish, Debian)
    with store.lease():
        upper = store.layers.prepare()
        try:
            epoch = install(
                wish, str(upper.path), environ=settings.environ, say=lambda line: click.echo(line, err=True)
            )
        except BaseException:
            store.layers.discard(upper)
            raise
        layer = store.layers.commit(upper, store.layers.view([]))
        return put_image(
            store,
            layer.diff_id,
            names,
            platform=Platform.host(settings.machine),
            command="bash",
            created=epoch,
            created_by=wish.description,
        )


def _made_before(store: Store, description: str) -> Image | None:
    for image in store.images.list():
        history = json.loads(image.config).get("history") or []
        if len(history) == 1 and history[0].get("created_by") == description:
            return image
    return None


def _keep(settings: Settings, entries: list[Entry], seconds: int, *, names: Sequence[str], created_by: str) -> None:
    """Make a layer of `entries` and an image of the layer."""
    from builder.base import put_image  # noqa: PLC0415
    from builder.reproducible import clamped  # noqa: PLC0415

    epoch = settings.source_date_epoch
    with settings.open_store() as store, store.lease():
        layer = store.layers.write(clamped(entries, None if epoch is None else epoch * 1_000_000_000))
        image = put_image(
            store,
            layer.diff_id,
            names,
            platform=Platform.host(settings.machine),
            command="sh",
            created=seconds if epoch is None else min(seconds, epoch),
            created_by=created_by,
        )
    _tell(image, names)


def _names(tags: Sequence[str], default: str) -> list[str]:
    names: list[str] = []
    for tag in tags or (default,):
        reference = Reference.parse(tag)
        if reference.digest is not None:
            raise UsageError(f"{tag} has a digest, which follows from the content", hint="give a name and a tag only")
        names.append(reference.canonical)
    return names


def _tell(image: Image, names: Sequence[str]) -> None:
    """Print the ID and, for people, the names."""
    click.echo(f"Made {' '.join(map(familiar, names))}", err=True)
    click.echo(image.id)


def _os_release() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
