"""Images in files: OCI layouts as directories and tars, docker archives, and tars of a root file system.

Written is what `docker save` of today writes: an OCI layout, with docker's manifest.json beside it where that is asked
for, so that old and new readers find their own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from layerstore.compress import Compression, Readable
from layerstore.digest import DiffId, Digest
from layerstore.errors import StoreError
from layerstore.images import Image
from layerstore.indexes import ImageIndex
from layerstore.layout import DirectorySink, Sink, TarSink, blob_path
from layerstore.loading import DirectoryFiles, InvalidArchive, Loader, TarFiles, decompressed
from layerstore.manifests import index_document, kept_manifest, new_manifest, pack_layer
from layerstore.oci import (
    CONTAINERD_NAME,
    REF_NAME,
    Descriptor,
    config_platform,
    layer_compression,
    parse_config,
    to_json,
)
from layerstore.platforms import Platform
from layerstore.reference import Reference
from layerstore.store import Store

OCI = "oci"
DOCKER = "docker"

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Saved(NamedTuple):
    """An image to be saved and the canonical references it gets; without any it is found by its ID only.

    An index is saved with all its images.
    """

    image: Image | ImageIndex
    names: Sequence[str]


def save(
    store: Store,
    images: Sequence[Saved],
    destination: Path | BinaryIO,
    *,
    format: str = DOCKER,  # noqa: A002 - docker's own word for it
    compression: Compression | None = None,
    level: int | None = None,
) -> list[Descriptor]:
    """Write images; return the descriptors of their manifests, or of the documents of indexes.

    A Path becomes an OCI layout directory, added to where there is one already; a stream becomes a tar: an OCI layout
    with `format` "oci", one that every docker loads with "docker", which knows no indexes. Without `compression` an
    image that came with a manifest keeps its layers as they are, any other has them as gzip or plain. Raises
    StoreError.
    """
    # Blobs that are packed here can be packed again: there is no need to wait for the disk to have them.
    with store.lease(sync=False):
        packed = [_entry(store, saved, format, compression, level) for saved in images]
        sink = DirectorySink(destination) if isinstance(destination, Path) else TarSink(destination)
        with sink:
            _write(store, packed, sink, docker=format == DOCKER)
        return [one.descriptor for one in packed]


def save_image(
    store: Store,
    image: Image | ImageIndex,
    names: Sequence[str],
    destination: Path | BinaryIO,
    *,
    format: str,  # noqa: A002 - docker's own word for it
    tar: bool = True,
    compression: str | None = None,
    level: int | None = None,
) -> Descriptor:
    """Write one image or index as `save` does and return its descriptor; `compression` is named as by buildx."""
    assert tar != isinstance(destination, Path), "BUG: a tar goes to a stream, a layout to a directory"
    chosen = None if compression is None else named_compression(compression)
    return save(store, [Saved(image, names)], destination, format=format, compression=chosen, level=level)[0]


def named_compression(name: str) -> Compression:
    """Return the compression that docker buildx and others call `name`. Raises StoreError."""
    try:
        return Compression(name) if name != "uncompressed" else Compression.NONE
    except ValueError:
        raise StoreError(f"unknown compression {name!r}", hint="choose one of uncompressed, gzip, zstd") from None


def load(store: Store, source: Path | Readable, *, platform: Platform | None = None) -> list[Image | ImageIndex]:
    """Read all images of an OCI layout directory, or of a tar (compressed or not): an OCI layout or a docker archive.

    `platform` chooses where an image is there for several; with None all that the archive holds become an index.
    Returns images and indexes in the archive's order; their `names` are those they brought. Raises InvalidArchive,
    ManifestError, CorruptContent.
    """
    with store.lease():
        if isinstance(source, Path):
            if source.is_dir():
                return Loader(store, DirectoryFiles(store, source), platform).load()
            try:
                file = open(source, "rb")  # noqa: SIM115 - closed below, where OSError means something else
            except OSError as error:
                raise InvalidArchive(f"cannot read {source}: {error.strerror}") from error
            with file:
                return Loader(store, TarFiles(store, file), platform).load()
        return Loader(store, TarFiles(store, source), platform).load()


def import_rootfs(
    store: Store, stream: Readable, *, config: Callable[[DiffId], bytes], names: Sequence[str] = ()
) -> Image:
    """Make an image of one layer from the tar of a root file system, compressed or not.

    `config` makes the image config for that layer; `names` are canonical references. StoreError if it is no tar.
    """
    from layerstore.tarread import read_tar  # noqa: PLC0415 - only where a tar is read

    with store.lease(), decompressed(stream) as content:
        layer = store.layers.write(read_tar(content))
        return store.images.put(config(layer.diff_id), layers=[layer.diff_id], names=names)


class _Packed(NamedTuple):
    """An image whose blobs are all in the store, ready to be written."""

    image: Image
    descriptor: Descriptor
    document: bytes
    layers: tuple[Descriptor, ...]


class _Entry(NamedTuple):
    """What names mean: `descriptor` is that of the one image, or of the index `document` over the images."""

    names: tuple[Reference, ...]
    images: tuple[_Packed, ...]
    descriptor: Descriptor
    document: bytes | None = None


def _entry(store: Store, saved: Saved, format: str, compression: Compression | None, level: int | None) -> _Entry:  # noqa: A002 - docker's own word for it
    names = tuple(map(Reference.parse, saved.names))
    if isinstance(saved.image, Image):
        packed = _pack(store, saved.image, format, compression, level)
        return _Entry(names, (packed,), packed.descriptor)
    if format == DOCKER:
        raise StoreError("a docker archive holds images for one platform", hint="write an OCI layout, or one platform")
    images = tuple(_pack(store, member.image, format, compression, level) for member in saved.image.members)
    data, descriptor = index_document(saved.image, [packed.descriptor for packed in images])
    if compression is None:
        store.indexes.set_manifest(saved.image, store.blobs.put_bytes(data))
    return _Entry(names, images, descriptor, data)


def _pack(store: Store, image: Image, format: str, compression: Compression | None, level: int | None) -> _Packed:  # noqa: A002 - docker's own word for it
    kept = kept_manifest(store, image) if compression is None else None
    # Docker before 23 loads no zstd, and neither do other readers of its time.
    if kept is None or (format == DOCKER and any(_is_zstd(layer) for layer in kept[1].layers)):
        layers = [pack_layer(store, diff_id, compression, level) for diff_id in image.layers]
        if compression is None:
            layers = [
                pack_layer(store, diff_id, Compression.GZIP) if _is_zstd(layer) else layer
                for diff_id, layer in zip(image.layers, layers, strict=True)
            ]
        kept = new_manifest(image, layers)
    document, manifest = kept
    descriptor = Descriptor(
        media_type=manifest.media_type,
        digest=Digest.of(document),
        size=len(document),
        platform=config_platform(parse_config(image.config)),
    )
    return _Packed(image, descriptor, document, manifest.layers)


def _is_zstd(layer: Descriptor) -> bool:
    return layer_compression(layer.media_type) is Compression.ZSTD


def _write(store: Store, entries: Sequence[_Entry], sink: Sink, *, docker: bool) -> None:
    """Write blobs first and what points to them last."""
    written: set[Digest] = set()

    def blob(digest: Digest, size: int, content: Callable[[], BinaryIO]) -> None:
        if digest not in written:
            written.add(digest)
            with content() as stream:
                sink.blob(digest, size, stream)

    for one in (packed for entry in entries for packed in entry.images):
        for layer in one.layers:
            blob(layer.digest, layer.size, lambda layer=layer: store.blobs.open(layer.digest))  # type: ignore[misc]  # bound now
        blob(Digest(one.image.id), len(one.image.config), lambda one=one: io.BytesIO(one.image.config))  # type: ignore[misc]
        blob(one.descriptor.digest, one.descriptor.size, lambda one=one: io.BytesIO(one.document))  # type: ignore[misc]
    for entry in entries:
        if (document := entry.document) is not None:
            blob(entry.descriptor.digest, entry.descriptor.size, lambda document=document: io.BytesIO(document))  # type: ignore[misc]
    sink.index([described for entry in entries for described in _index_entries(entry)])
    if docker:
        sink.file("manifest.json", to_json(_docker_manifest(entries)))
    sink.file("oci-layout", _LAYOUT)


def _index_entries(one: _Entry) -> list[Descriptor]:
    """Return the entries of index.json for one image or index: one per name, as buildx writes them."""
    named = [
        one.descriptor._replace(annotations=((CONTAINERD_NAME, name.canonical), (REF_NAME, name.tag)))
        for name in one.names
        if name.tag is not None
    ]
    return named or [one.descriptor]


def _docker_manifest(entries: Sequence[_Entry]) -> list[dict[str, Any]]:
    """Return docker's manifest.json: paths of configs and layers in the archive, and names."""
    by_image: dict[Digest, dict[str, Any]] = {}
    for one in entries:
        (packed,) = one.images
        entry = by_image.setdefault(
            packed.image.id,
            {
                "Config": blob_path(Digest(packed.image.id)),
                "RepoTags": [],
                "Layers": [blob_path(layer.digest) for layer in packed.layers],
            },
        )
        tags = [name.familiar for name in one.names if name.tag is not None and name.digest is None]
        entry["RepoTags"] += [tag for tag in tags if tag not in entry["RepoTags"]]
    return [{**entry, "RepoTags": entry["RepoTags"] or None} for entry in by_image.values()]
