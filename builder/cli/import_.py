"""`pybuild import`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import click

from builder.cli.context import Settings
from builder.cli.registry import platform_of
from builder.errors import SourceError, UsageError
from layerstore.platforms import Platform
from layerstore.reference import Reference

if TYPE_CHECKING:
    from builder.image import ImageConfig
    from builder.plan import Base
    from layerstore.digest import DiffId

_ALLOWED = frozenset(
    {"cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "shell", "stopsignal", "user", "volume"}
)


@click.command("import")
@click.option(
    "-c",
    "--change",
    "changes",
    multiple=True,
    metavar="INSTRUCTION",
    help='A Dockerfile instruction for the image, such as `CMD ["sh"]`; may be repeated.',
)
@click.option("-m", "--message", default="", metavar="TEXT", help="Say in the image's history where it comes from.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="What the image is for [default: this machine].")
@click.argument("file")
@click.argument("name", required=False)
@click.pass_obj
def command(
    settings: Settings, *, changes: tuple[str, ...], message: str, platform: str | None, file: str, name: str | None
) -> None:
    """Make an image of one layer from FILE, a tar of a root file system, compressed or not; `-` is standard input.

    It gets the name NAME, if given; the image's ID is printed.
    """
    reference = None if name is None else Reference.parse(name)
    if reference is not None and reference.digest is not None:
        raise UsageError(f"{name} has a digest, which follows from the content", hint="give a name and a tag only")
    wanted = platform_of(settings, platform)
    from builder.image import timestamp  # noqa: PLC0415 - not for --help
    from layerstore.archive import import_rootfs  # noqa: PLC0415
    from layerstore.oci import to_json  # noqa: PLC0415

    edited = _edited(changes, wanted)
    epoch = settings.source_date_epoch
    created = timestamp(int((settings.clock() if epoch is None else epoch) * 1_000_000_000))
    comment = message or f"imported from {'standard input' if file == '-' else file}"

    def config(layer: DiffId) -> bytes:
        document = {
            **edited.document,
            "created": created,
            "history": [{"created": created, "comment": comment}],
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        }
        return to_json(dict(sorted(document.items())))

    with settings.open_store() as store, _opened(settings, file) as stream:
        image = import_rootfs(store, stream, config=config, names=[] if reference is None else [reference.canonical])
    click.echo(image.id)


@contextlib.contextmanager
def _opened(settings: Settings, file: str) -> Iterator[BinaryIO]:
    if file == "-":
        if settings.stdin_tty:
            raise UsageError("a tar is not read from a terminal", hint="name a file, or redirect standard input")
        yield sys.stdin.buffer
        return
    if file.startswith(("http://", "https://")):
        raise UsageError(f"{file} is remote", hint=f"fetch it: curl -L {file} | pybuild import - NAME")
    try:
        stream = open(settings.path(file), "rb")  # noqa: SIM115 - only what opening it raises is meant
    except OSError as error:
        raise SourceError(f"cannot read {file}: {error.strerror}") from error
    with stream:
        yield stream


def _edited(changes: Sequence[str], platform: Platform) -> ImageConfig:
    """Return an empty image's config with `changes` made to it: a Dockerfile that is planned and never built."""
    import grammar  # noqa: PLC0415 - loads lark
    from builder.image import ImageConfig  # noqa: PLC0415
    from builder.plan import PlanOptions, plan  # noqa: PLC0415

    if not changes:
        return ImageConfig.scratch(platform)
    text = "\n".join(["FROM scratch", *changes, ""])
    ast = grammar.parse(text.encode("utf-8", "surrogateescape"), name="--change")
    for instruction in ast.instructions[1:]:
        if instruction.keyword.lower() not in _ALLOWED | {"workdir"}:
            raise UsageError(
                f"--change cannot do {instruction.keyword.upper()}",
                hint=f"it can do {', '.join(sorted(word.upper() for word in _ALLOWED | {'workdir'}))}",
            )
    options = PlanOptions(platform=platform, build_platform=platform)
    return plan(grammar.resolve(ast), options, _NoImages()).config


class _NoImages:
    """The resolver of a plan that is based on nothing."""

    def image(self, reference: Reference, platform: Platform) -> Base:  # noqa: ARG002 - a Resolver's signature
        """Refuse: no change refers to an image."""
        raise UsageError(f"--change refers to the image {reference}", hint="import the tar alone, then build on it")
