"""Image archives as they are read: OCI layouts and docker archives, in directories and tars, whoever wrote them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from layerstore.compress import Compression, Decompressed, Readable, detect
from layerstore.digest import Digest
from layerstore.entry import Entry, Kind, Stream
from layerstore.errors import CorruptContent, StoreError, UnsafeLayer
from layerstore.images import Image
from layerstore.indexes import ImageIndex, Member
from layerstore.layout import blob_path
from layerstore.oci import (
    CONTAINERD_NAME,
    INDEX_TYPES,
    MANIFEST_TYPES,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    ManifestError,
    config_platform,
    diff_ids,
    from_json,
    layer_compression,
    parse_config,
)
from layerstore.platforms import Platform
from layerstore.reference import InvalidReference, Reference
from layerstore.store import Store

_METADATA_LIMIT = 8 << 20
_DEPTH = 4
_XZ = b"\xfd7zXZ\x00"
_BZIP2 = b"BZh"
_EXPECTED = "expected is an OCI layout (index.json) or a docker archive (manifest.json)"


class InvalidArchive(StoreError):
    """A file or directory that is no image archive of a known form."""


class _File(NamedTuple):
    """A file of an archive that is now a blob of the store."""

    digest: Digest
    size: int


class DirectoryFiles:
    """The files of an OCI layout directory, taken into the store when they are asked for."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._path = path
        self._kept: dict[str, _File] = {}

    def read(self, name: str) -> bytes | None:
        """Return a small file, None if it is not there."""
        try:
            with open(self._path / name, "rb") as file:
                return _limited(file.read(_METADATA_LIMIT + 1), name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InvalidArchive(f"cannot read {self._path / name}: {error.strerror}") from error

    def keep(self, name: str, expected: Digest | None) -> _File | None:
        """Take a file into the store as a blob, None if it is not there. CorruptContent if it is not `expected`."""
        if name not in self._kept:
            try:
                with open(self._path / name, "rb") as file:
                    if not _inside(self._path, file):
                        raise InvalidArchive(f"{name} lies outside of {self._path}")
                    self._kept[name] = _File(*self._store.blobs.put(file, expected=expected))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise InvalidArchive(f"cannot read {self._path / name}: {error.strerror}") from error
        return self._kept[name]


class TarFiles:
    """The files of a tar, read once: small ones are held in memory, the others go into the store as they come by."""

    _SMALL = frozenset({"index.json", "manifest.json", "oci-layout", "repositories"})

    def __init__(self, store: Store, stream: Readable) -> None:
        self._small: dict[str, bytes] = {}
        self._kept: dict[str, _File] = {}
        self._links: dict[str, str] = {}
        from layerstore.tarread import read_tar  # noqa: PLC0415 - only where a tar is read

        with decompressed(stream) as content:
            try:
                for entry in read_tar(content):
                    self._take(store, entry)
            except UnsafeLayer as error:
                raise InvalidArchive(f"this is no image archive: {error.message}", hint=_EXPECTED) from error

    def _take(self, store: Store, entry: Entry) -> None:
        name = os.fsdecode(entry.path)
        if entry.kind is Kind.SYMLINK:
            target = os.fsdecode(entry.target)
            self._links[name] = os.path.normpath(os.path.join(os.path.dirname(name), target))
        elif entry.kind is Kind.HARDLINK:
            self._links[name] = os.fsdecode(entry.target)
        elif entry.kind is Kind.FILE and isinstance(entry.source, Stream):
            if name in self._SMALL:
                self._small[name] = _limited(entry.source.file.read(_METADATA_LIMIT + 1), name)
            else:
                self._kept[name] = _File(*store.blobs.put(entry.source.file, expected=_named_digest(name)))

    def read(self, name: str) -> bytes | None:
        """Return a small file, None if it is not there."""
        return self._small.get(name)

    def keep(self, name: str, expected: Digest | None) -> _File | None:
        """Return a file that is a blob by now, None if it is not there. CorruptContent if it is not `expected`."""
        for _ in range(_DEPTH):
            if name not in self._links:
                break
            name = self._links[name]
        file = self._kept.get(name)
        if file is not None and expected is not None and file.digest != expected:
            raise CorruptContent(f"{name} should have been {expected} but is {file.digest}")
        return file


def _inside(root: Path, file: BinaryIO) -> bool:
    """Tell whether an open file lies below `root`: a layout is not to lead anywhere else through symlinks."""
    found = Path(os.path.realpath(f"/proc/self/fd/{file.fileno()}"))
    return found.is_relative_to(os.path.realpath(root))


def _named_digest(name: str) -> Digest | None:
    """Return what a file must have as its digest to be in the place where it is."""
    directory, _, digits = name.rpartition("/")
    if directory != "blobs/sha256":
        return None
    try:
        return Digest.parse(f"sha256:{digits}")
    except ValueError:
        raise InvalidArchive(f"{name} is not called by a digest") from None


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > _METADATA_LIMIT:
        raise InvalidArchive(f"{name} is larger than {_METADATA_LIMIT >> 20} MiB")
    return data


class Loader:
    """Makes images of an archive's files."""

    def __init__(self, store: Store, files: DirectoryFiles | TarFiles, platform: Platform | None) -> None:
        self._store = store
        self._files = files
        self._platform = platform

    def load(self) -> list[Image | ImageIndex]:
        """Load everything; errors as `archive.load`."""
        docker = self._docker_entries()
        index = self._files.read("index.json")
        if index is None and docker is None:
            hint = _EXPECTED
            if self._files.read("repositories") is not None:
                hint = "it was saved by a docker older than 1.10; save it again with a current one"
            raise InvalidArchive("this is no image archive", hint=hint)
        if index is None:
            images: list[Image | ImageIndex] = [self._docker(entry) for entry in docker or []]
        else:
            images = self._oci(Index.from_json(index), docker or [])
        if not images:
            raise InvalidArchive("the archive holds no image")
        return images

    def _oci(self, index: Index, docker: list[dict[str, Any]]) -> list[Image | ImageIndex]:
        """Load what index.json lists; names that only docker's manifest.json has are taken from there."""
        tags = {entry["Config"].rpartition("/")[2].removesuffix(".json"): entry["RepoTags"] for entry in docker}
        groups: dict[tuple[str, ...], list[Descriptor]] = {}
        for n, entry in enumerate(index.manifests):
            if entry.platform is not None and entry.platform.os == "unknown":
                continue  # an attestation
            names = _names_of(entry)
            groups.setdefault(names or (f"#{n}",), []).append(entry)
        loaded: dict[Digest, Image | ImageIndex] = {}
        for group, entries in groups.items():
            names = () if group[0].startswith("#") else group
            found = self._load_group(Index(manifests=tuple(entries)), names)
            brought = [*loaded[found.id].names] if found.id in loaded else []
            brought += names
            if isinstance(found, Image):
                for name in (_canonical(tag) for tag in tags.get(found.id.hex, ())):
                    if name not in brought:
                        self._store.images.tag(found, name)
                        brought.append(name)
            loaded[found.id] = found._replace(names=tuple(brought))
        return list(loaded.values())

    def _load_group(self, index: Index, names: Sequence[str]) -> Image | ImageIndex:
        """Load what one name of index.json means."""
        if self._platform is not None:
            return self._image(*self._choose(index, self._platform), names)
        found = [(entry, self._image(data, manifest, ())) for entry, data, manifest in self._all(index, _DEPTH)]
        if not found:
            raise InvalidArchive("the archive holds none of the images that its index names")
        if len(found) == 1:
            ((_, image),) = found
            return self._store.images.put(image.config, layers=image.layers, names=names, manifest=image.manifest)
        members: list[Member] = []
        for entry, image in found:
            platform = entry.platform or config_platform(parse_config(image.config))
            if platform not in [member.platform for member in members]:
                members.append(Member(platform, image))
        return self._store.indexes.put(members, names=names)

    def _all(self, index: Index, depth: int) -> Iterator[tuple[Descriptor, bytes, Manifest]]:
        """Yield the manifests below an index that the archive holds: of an index of many, some may be left out."""
        if not depth:
            raise ManifestError("indexes within indexes within indexes")
        images = [one for one in index.manifests if one.media_type in MANIFEST_TYPES | INDEX_TYPES]
        for entry in images:
            if entry.platform is not None and entry.platform.os == "unknown":
                continue  # an attestation
            if len(images) > 1 and self._files.keep(blob_path(entry.digest), entry.digest) is None:
                continue
            data = self._document(entry)
            if entry.media_type in INDEX_TYPES:
                yield from self._all(Index.from_json(data), depth - 1)
            else:
                yield entry, data, Manifest.from_json(data)

    def _choose(self, index: Index, platform: Platform) -> tuple[bytes, Manifest]:
        """Follow an index down to the manifest for `platform`."""
        for _ in range(_DEPTH):
            images = [one for one in index.manifests if one.media_type in MANIFEST_TYPES | INDEX_TYPES]
            chosen = images[0] if len(images) == 1 else index.select(platform)
            if chosen is None:
                offered = ", ".join(dict.fromkeys(map(str, index.platforms))) or "no platform"
                raise InvalidArchive(f"the archive has no image for {platform}", hint=f"it has {offered}")
            data = self._document(chosen)
            if chosen.media_type in INDEX_TYPES:
                index = Index.from_json(data)
                continue
            return data, Manifest.from_json(data)
        raise ManifestError("indexes within indexes within indexes")

    def _document(self, descriptor: Descriptor) -> bytes:
        name = blob_path(descriptor.digest)
        if self._files.keep(name, descriptor.digest) is None:
            raise InvalidArchive(f"the archive lacks {name}, which its index names")
        return self._store.blobs.read(descriptor.digest)

    def _image(self, document: bytes, manifest: Manifest, names: Sequence[str]) -> Image:
        config = self._document(manifest.config)
        layers = diff_ids(parse_config(config))
        if len(layers) != len(manifest.layers):
            raise ManifestError(f"an image has {len(manifest.layers)} layers but its config names {len(layers)}")
        for layer, diff_id in zip(manifest.layers, layers, strict=True):
            layer_compression(layer.media_type)
            name = blob_path(layer.digest)
            file = self._files.keep(name, layer.digest)
            if file is None:
                raise InvalidArchive(f"the archive lacks {name}, a layer of the image {names[0] if names else ''}")
            self._store.layers.adopt(layer.digest, layer.media_type, diff_id, layer.size)
        return self._store.images.put(config, layers=layers, names=names, manifest=Digest.of(document))

    def _docker_entries(self) -> list[dict[str, Any]] | None:
        """Return docker's manifest.json, checked; None if there is none."""
        data = self._files.read("manifest.json")
        if data is None:
            return None
        entries = from_json(data, "manifest.json")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ManifestError("manifest.json is not a list of objects")
        checked = []
        for entry in entries:
            layers, tags = entry.get("Layers") or [], entry.get("RepoTags") or []
            if not isinstance(entry.get("Config"), str) or not _all_text(layers) or not _all_text(tags):
                raise ManifestError("manifest.json: an image lacks Config, Layers or RepoTags, or they are no text")
            checked.append({"Config": entry["Config"], "Layers": layers, "RepoTags": tags})
        return checked

    def _docker(self, entry: dict[str, Any]) -> Image:
        """Load one image of a docker archive without index.json."""
        config = self._store.blobs.read(self._member(entry["Config"]).digest)
        layers = diff_ids(parse_config(config))
        if len(layers) != len(entry["Layers"]):
            raise ManifestError(
                f"manifest.json names {len(entry['Layers'])} layers but {entry['Config']} {len(layers)}"
            )
        for name, diff_id in zip(entry["Layers"], layers, strict=True):
            file = self._member(name)
            with self._store.blobs.open(file.digest) as content:
                compression = detect(content.read(4))
            if compression is Compression.NONE and file.digest != diff_id:
                raise CorruptContent(f"the layer {name} should have been {diff_id} but is {file.digest}")
            self._store.layers.adopt(file.digest, compression.media_type, diff_id, file.size)
        names = [_canonical(tag) for tag in entry["RepoTags"]]
        return self._store.images.put(config, layers=layers, names=names)._replace(names=tuple(names))

    def _member(self, name: str) -> _File:
        file = self._files.keep(os.path.normpath(name), None)
        if file is None:
            raise InvalidArchive(f"the archive lacks {name}, which its manifest.json names")
        return file


def _all_text(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _names_of(entry: Descriptor) -> tuple[str, ...]:
    """Return the canonical name that an entry of index.json gives its image, if any; a bare tag names nothing."""
    full = entry.annotation(CONTAINERD_NAME)
    short = entry.annotation(REF_NAME)
    if full:
        return (_canonical(full),)
    if ":" in short or "/" in short:
        with contextlib.suppress(InvalidReference):
            return (Reference.parse(short).canonical,)
    return ()


def _canonical(name: str) -> str:
    return Reference.parse(name).canonical


class _Rewound:
    """A stream whose first bytes were looked at."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            data, self._head = self._head + self._rest.read(), b""
            return data
        data, self._head = self._head[:size], self._head[size:]
        return data


@contextlib.contextmanager
def decompressed(stream: Readable) -> Iterator[Readable]:
    """Give the content of a stream in any compression that tars come in: gzip, zstd, xz, bzip2 or none."""
    head = b""
    while len(head) < len(_XZ) and (more := stream.read(len(_XZ) - len(head))):
        head += more
    whole = _Rewound(head, stream)
    if head.startswith(_BZIP2):
        import bz2  # noqa: PLC0415 - rarely needed

        content: Any = bz2.BZ2File(whole)  # type: ignore[call-overload]  # asks for nothing but read()
    elif head == _XZ:
        import lzma  # noqa: PLC0415 - rarely needed

        content = lzma.LZMAFile(whole)  # type: ignore[arg-type]  # noqa: SIM115 - asks for nothing but read()
    else:
        yield Decompressed(whole)
        return
    try:
        yield content
    except (EOFError, ValueError, OSError) as error:
        raise CorruptContent(f"the compressed stream is damaged: {error}") from error
    except Exception as error:
        if type(error).__name__ == "LZMAError":
            raise CorruptContent(f"the compressed stream is damaged: {error}") from error
        raise
