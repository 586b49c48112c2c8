"""What `pybuild push` does, and `build --push` at its end: an image or index sent to a registry."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from builder.cli.context import Settings

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.compress import Compression
    from layerstore.images import Image
    from layerstore.indexes import ImageIndex
    from layerstore.oci import Descriptor
    from layerstore.reference import Reference
    from layerstore.registry.ahead import Ahead


def push_image(
    settings: Settings,
    store: Store,
    image: Image | ImageIndex,
    reference: Reference,
    *,
    compression: str | None = None,
    level: int | None = None,
    quiet: bool = False,
    ahead: Ahead | None = None,
) -> Descriptor:
    """Send `image` to a registry as `reference` and return what it is there; `compression` is as for buildx.

    `ahead` has begun to send it, with a client of its own. Raises UsageError, RegistryError and other StoreErrors.
    """
    from builder.cli.registry import Transfers, client  # noqa: PLC0415 - not for --help
    from layerstore.images import Image  # noqa: PLC0415
    from layerstore.registry.transfer import push, push_index  # noqa: PLC0415

    chosen = None if compression is None else _named(compression)
    check_level(compression, level)
    opened = client(settings) if ahead is None else contextlib.nullcontext(ahead.client())
    with opened as registry, Transfers(settings, quiet=quiet, done="pushed") as progress:
        if isinstance(image, Image):
            return push(
                store, image, reference, registry, compression=chosen, level=level, progress=progress, ahead=ahead
            )
        return push_index(
            store, image, reference, registry, compression=chosen, level=level, progress=progress, ahead=ahead
        )


def check_level(compression: str | None, level: int | None) -> None:
    """Raise UsageError for a level that the compression does not have."""
    from builder.errors import UsageError  # noqa: PLC0415

    if level is None:
        return
    low, high = {"gzip": (0, 9), "zstd": (1, 22)}.get(compression or "", (1, 0))
    if not low <= level <= high:
        have = f"levels {low} to {high}" if low <= high else "no level"
        raise UsageError(
            f"--compression-level {level} means nothing with {compression or 'no --compression'}",
            hint=f"{compression} has {have}" if compression else "add --compression gzip or zstd",
        )


def _named(compression: str) -> Compression:
    from layerstore.archive import named_compression  # noqa: PLC0415 - few ask for one

    return named_compression(compression)
