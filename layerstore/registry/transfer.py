"""Whole images between a registry and the store: pull, push, and asking what a name means.

Layers travel in parallel, in bounded memory, straight between disk and network. A pulled image keeps its manifest, so
that pushing it anywhere reproduces the manifest's digest.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from typing import Self, TypeVar

from layerstore.compress import Compression
from layerstore.digest import DiffId, Digest
from layerstore.errors import CorruptContent
from layerstore.images import Image
from layerstore.indexes import ImageIndex
from layerstore.manifests import index_document, kept_manifest, new_manifest, pack_layer
from layerstore.oci import (
    CONFIG_TYPES,
    OCI_CONFIG,
    Descriptor,
    Index,
    Manifest,
    ManifestError,
    config_platform,
    diff_ids,
    layer_compression,
    parse_config,
    parse_document,
)
from layerstore.platforms import Platform
from layerstore.reference import InvalidReference, Reference
from layerstore.registry.ahead import JOBS, Ahead
from layerstore.registry.client import Client, Document
from layerstore.registry.config import Endpoint
from layerstore.registry.errors import RegistryError, UnknownImage
from layerstore.store import Store

Progress = Callable[[str, int, int | None, bool], None]
"""Told of one transfer: `(id, current, total, done)`, in bytes, from several threads; the id is the blob's digest."""

_MAX_NESTING = 3
_MAX_MOUNT_SOURCES = 3
_A = TypeVar("_A")
_B = TypeVar("_B")


def resolve(reference: Reference, client: Client) -> Digest:
    """Return the digest that `reference` has in its registry now, of an index where it is one. RegistryError."""
    return client.resolve(reference)


def pull(
    store: Store,
    reference: Reference,
    platform: Platform,
    client: Client,
    *,
    progress: Progress | None = None,
    jobs: int = JOBS,
) -> Image:
    """Fetch an image for `platform` into the store and name it `reference.canonical` there.

    What that name meant for other platforms it goes on to mean.
    Blobs that are in the store are not fetched again. From an index the best fit for `platform` is taken; an image that
    is not in an index is taken as it is. Raises RegistryError, ManifestError, CorruptContent or another StoreError; the
    client is of no more use then, blobs that arrived whole are kept.
    """
    with store.lease():
        endpoint, document = client.fetch(reference)
        document, manifest = _choose(client, endpoint, document, reference, platform)
        config = client.read_blob(endpoint, manifest.config)
        parsed = parse_config(config)
        layers = diff_ids(parsed)
        if len(layers) != len(manifest.layers):
            raise ManifestError(
                f"{reference.familiar} has {len(manifest.layers)} layers but its config names {len(layers)}",
                hint="the image is malformed; push it again",
            )
        report = progress or _silent
        wanted = {layer.digest: layer for layer in manifest.layers}
        for layer in manifest.layers:
            layer_compression(layer.media_type)
        _parallel(lambda layer: _fetch(store, client, endpoint, layer, report), wanted.values(), jobs, client)
        for layer, diff_id in zip(manifest.layers, layers, strict=True):
            store.layers.adopt(layer.digest, layer.media_type, diff_id, layer.size)
        kept = store.blobs.put_bytes(document.data)
        image = store.images.put(config, layers=layers, manifest=kept)
        store.indexes.add(reference.canonical, config_platform(parsed), image)
        found = store.images.get(image.id)
        assert found is not None, "BUG: it was just put there"
        return found


def push(
    store: Store,
    image: Image,
    reference: Reference,
    client: Client,
    *,
    compression: Compression | None = None,
    level: int | None = None,
    progress: Progress | None = None,
    ahead: Ahead | None = None,
) -> Descriptor:
    """Send an image to a registry as `reference`, which needs a tag; return the descriptor of its manifest.

    Without `compression` layers go as they are, those that were never packed as gzip, and an image that came with a
    manifest goes with it, byte for byte. `level` is the compression's own. Blobs that the registry has are not sent,
    those that another repository of it is known to have are mounted. `ahead` has begun to send some before. Raises
    RegistryError or another StoreError; the client is of no more use then.
    """
    tag = _tag(reference)
    with _Sending.to(store, client, reference, compression, level, progress or _silent, ahead) as sending:
        return sending.image(image, tag)


def push_index(
    store: Store,
    index: ImageIndex,
    reference: Reference,
    client: Client,
    *,
    compression: Compression | None = None,
    level: int | None = None,
    progress: Progress | None = None,
    ahead: Ahead | None = None,
) -> Descriptor:
    """Send an index with all its images as `push` sends one; return the descriptor of its document.

    The images are there under their digests, the index alone under the tag of `reference`.
    """
    tag = _tag(reference)
    with _Sending.to(store, client, reference, compression, level, progress or _silent, ahead) as sending:
        data, descriptor = index_document(index, [sending.image(member.image) for member in index.members])
        client.put_manifest(sending.endpoint, tag, data, descriptor.media_type)
        if compression is None:
            store.indexes.set_manifest(index, store.blobs.put_bytes(data))
        return descriptor


def _tag(reference: Reference) -> str:
    if reference.tag is None or reference.digest is not None:
        raise InvalidReference(f"cannot push to {reference.familiar}: it has a digest", hint="push to a tag")
    return reference.tag


class _Sending:
    """What all images of one push share."""

    def __init__(
        self,
        store: Store,
        client: Client,
        reference: Reference,
        compression: Compression | None,
        level: int | None,
        report: Progress,
        ahead: Ahead,
    ) -> None:
        self.endpoint = client.destination(reference)
        self._store = store
        self._client = client
        self._compression = compression
        self._level = level
        self._report = report
        self._ahead = ahead
        self._sources = _mount_sources(store, reference)

    @classmethod
    @contextlib.contextmanager
    def to(
        cls,
        store: Store,
        client: Client,
        reference: Reference,
        compression: Compression | None,
        level: int | None,
        report: Progress,
        ahead: Ahead | None,
    ) -> Iterator[Self]:
        """Give what sends; layers that are packed meanwhile are sent while they are."""
        with contextlib.ExitStack() as stack:
            # What is made here can be made again: there is no need to wait for the disk.
            stack.enter_context(store.lease(sync=False))
            if ahead is None:
                ahead = stack.enter_context(Ahead(lambda: client, reference))
            ahead.report = report
            stack.enter_context(store.layers.watched(ahead.follow))
            yield cls(store, client, reference, compression, level, report, ahead)

    def image(self, image: Image, tag: str | None = None) -> Descriptor:
        """Send one image under `tag`, or its digest, and return the descriptor of its manifest."""
        known = None if self._compression is not None else kept_manifest(self._store, image)
        config = partial(self._send_config, image)
        if known is not None:
            data, manifest = known
            pairs = dict(zip(manifest.layers, image.layers, strict=True))
            self._together([config, *(partial(self._send, layer, diff_id) for layer, diff_id in pairs.items())])
        else:
            unique = list(dict.fromkeys(image.layers))
            _, *sent = self._together([config, *(partial(self._pack_and_send, diff_id) for diff_id in unique)])
            packed = dict(zip(unique, sent, strict=True))
            data, manifest = new_manifest(image, [packed[diff_id] for diff_id in image.layers])
        target = tag or Digest.of(data)
        digest = self._client.put_manifest(self.endpoint, target, data, manifest.media_type)
        # What somebody asked for once is not how the image is from now on.
        if known is None and self._compression is None:
            self._store.images.set_manifest(image, self._store.blobs.put_bytes(data))
        return Descriptor(media_type=manifest.media_type, digest=digest, size=len(data))

    def _together(self, jobs: Sequence[Callable[[], Descriptor]]) -> list[Descriptor]:
        return _parallel(lambda job: job(), jobs, JOBS, self._client)

    def _send_config(self, image: Image) -> Descriptor:
        config = Descriptor(media_type=OCI_CONFIG, digest=Digest(image.id), size=len(image.config))
        if not self._client.has_blob(self.endpoint, config.digest):
            self._client.upload(self.endpoint, config.digest, config.size, lambda: io.BytesIO(image.config))
        return config

    def _pack_and_send(self, diff_id: DiffId) -> Descriptor:
        layer = pack_layer(self._store, diff_id, self._compression, self._level)
        self._send(layer, diff_id)
        return layer

    def _send(self, layer: Descriptor, diff_id: DiffId) -> Descriptor:
        """Make sure the registry has one layer's blob."""
        client, endpoint = self._client, self.endpoint
        if (
            not self._ahead.arrived(layer.digest)
            and not client.has_blob(endpoint, layer.digest)
            and not any(client.mount_blob(endpoint, layer.digest, source) for source in self._sources.get(diff_id, ()))
        ):
            client.upload(
                endpoint,
                layer.digest,
                layer.size,
                lambda: self._store.blobs.open(layer.digest),
                count=_counter(self._report, layer),
            )
        self._report(str(layer.digest), layer.size, layer.size, True)  # noqa: FBT003 - the shape of Progress
        return layer


def _choose(
    client: Client, endpoint: Endpoint, document: Document, reference: Reference, platform: Platform
) -> tuple[Document, Manifest]:
    """Follow indexes down to the manifest for `platform`."""
    for _ in range(_MAX_NESTING):
        parsed = parse_document(document.data, document.media_type)
        if isinstance(parsed, Manifest):
            if parsed.config.media_type not in CONFIG_TYPES:
                raise ManifestError(
                    f"{reference.familiar} is no container image: its config is of type {parsed.config.media_type!r}"
                )
            return document, parsed
        chosen = parsed.select(platform)
        if chosen is None:
            raise UnknownImage(
                f"{reference.familiar} is not offered for {platform}",
                hint=f"choose with --platform: {_offered(parsed)}",
            )
        document = client.manifest(endpoint, chosen.digest)
    raise ManifestError(f"{reference.familiar}: indexes within indexes within indexes")


def _offered(index: Index) -> str:
    return ", ".join(dict.fromkeys(str(platform) for platform in index.platforms)) or "it lists no platform"


def _fetch(store: Store, client: Client, endpoint: Endpoint, layer: Descriptor, report: Progress) -> None:
    """Put one layer's blob into the store, its size and digest verified on the way."""
    # Other processes that want the same blob wait here and then find it.
    with store.lock(f"blob-{layer.digest.hex}"):
        if store.blobs.size(layer.digest) != layer.size:
            stream = client.open_blob(endpoint, layer, count=_counter(report, layer))
            with contextlib.closing(stream):
                try:
                    store.blobs.put(stream, expected=layer.digest)
                except CorruptContent as error:
                    raise RegistryError(
                        f"{endpoint} sent wrong content for the layer {layer.digest}: {error.message}",
                        hint="a proxy or the registry damages content; nothing of it was kept",
                    ) from error
    report(str(layer.digest), layer.size, layer.size, True)  # noqa: FBT003 - the shape of Progress


def _mount_sources(store: Store, reference: Reference) -> dict[DiffId, tuple[str, ...]]:
    """Return for each layer the other repositories of the same registry that images with it came from or went to."""
    found: dict[DiffId, list[str]] = {}
    named = [(image.names, image.layers) for image in store.images.list()]
    named += [(index.names, member.image.layers) for index in store.indexes.list() for member in index.members]
    for names, layers in named:
        for name in names:
            with contextlib.suppress(InvalidReference):
                other = Reference.parse(name)
                if other.registry == reference.registry and other.repository != reference.repository:
                    for diff_id in layers:
                        found.setdefault(diff_id, []).append(other.repository)
    return {diff_id: tuple(dict.fromkeys(names))[:_MAX_MOUNT_SOURCES] for diff_id, names in found.items()}


def _parallel(work: Callable[[_A], _B], items: Iterable[_A], jobs: int, client: Client) -> list[_B]:
    """Return what `work` makes of each item, in order; after the first failure the others are given up."""
    todo = list(items)
    if not todo:
        return []
    with ThreadPoolExecutor(max_workers=min(jobs, len(todo)), thread_name_prefix="transfer") as pool:
        futures = [pool.submit(work, item) for item in todo]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future in done:
                    future.result()
            return [future.result() for future in futures]
        except BaseException:
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _counter(report: Progress, layer: Descriptor) -> Callable[[int], None]:
    """Return what a transfer of `layer` tells its progress to."""
    name = str(layer.digest)
    return lambda done: report(name, done, layer.size, False)  # noqa: FBT003 - the shape of Progress


def _silent(_id: str, _current: int, _total: int | None, _done: bool, /) -> None:  # noqa: FBT001 - the shape of Progress
    """Report nothing."""
