"""The documents of an image, from JSON and back: descriptors, manifests, indexes, configs (OCI, Docker schema 2).

Bytes in, values out: digests are checked by whoever read the bytes. An image that came from outside keeps its original
bytes; only documents made here are printed by `to_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from layerstore.compress import Compression
from layerstore.digest import DiffId, Digest
from layerstore.errors import StoreError
from layerstore.platforms import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_V1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_MANIFEST_V1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation of a descriptor in an OCI layout's index.json: its tag (OCI image-spec annotations.md)."""
CONTAINERD_NAME = "io.containerd.image.name"
"""Annotation of a descriptor in an OCI layout's index.json: its whole reference, as containerd writes it."""


class ManifestError(StoreError):
    """A manifest, index or config that is malformed or of a kind that is not understood."""


_LAYERS: dict[str, Compression] = {
    OCI_LAYER: Compression.NONE,
    OCI_LAYER_GZIP: Compression.GZIP,
    OCI_LAYER_ZSTD: Compression.ZSTD,
    DOCKER_LAYER: Compression.NONE,
    DOCKER_LAYER_GZIP: Compression.GZIP,
    DOCKER_LAYER_ZSTD: Compression.ZSTD,
    DOCKER_FOREIGN_LAYER_GZIP: Compression.GZIP,
    "application/vnd.docker.image.rootfs.foreign.diff.tar": Compression.NONE,
    "application/vnd.oci.image.layer.nondistributable.v1.tar": Compression.NONE,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": Compression.GZIP,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": Compression.ZSTD,
}


def layer_compression(media_type: str) -> Compression:
    """Return how a layer of this media type says it is compressed; ManifestError if it is no layer."""
    try:
        return _LAYERS[media_type]
    except KeyError:
        raise ManifestError(
            f"a layer has the media type {media_type!r}, which is no image layer",
            hint="this is an artifact rather than a container image, or its layers are encrypted",
        ) from None


class Descriptor(NamedTuple):
    """What a blob is: `digest` and `size` (bytes) of its content under `media_type` (OCI image-spec descriptor.md).

    Annotations, here and below, are pairs sorted by name.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @classmethod
    def from_dict(cls, data: object, where: str = "descriptor") -> Self:
        """Take a decoded descriptor; `where` names it in the ManifestError that a malformed one raises."""
        fields = _object(data, where)
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ManifestError(f"{where}: size is {size!r}, not a number of bytes")
        return cls(
            media_type=_text(fields, "mediaType", where),
            digest=_digest(fields.get("digest"), where),
            size=size,
            platform=_platform(fields.get("platform"), where),
            annotations=_annotations(fields.get("annotations"), where),
            urls=tuple(_texts(fields.get("urls"), f"{where}: urls")),
            artifact_type=_text(fields, "artifactType", where, default=""),
        )

    def annotation(self, name: str) -> str:
        """Return the text of an annotation, empty if there is none of that name."""
        return dict(self.annotations).get(name, "")

    def to_dict(self) -> dict[str, Any]:
        """Return the form that JSON takes, keys in the specification's order, empty ones left out."""
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            data["urls"] = list(self.urls)
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        if self.platform is not None:
            data["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                data["platform"]["variant"] = self.platform.variant
        if self.artifact_type:
            data["artifactType"] = self.artifact_type
        return data


class Manifest(NamedTuple):
    """One image for one platform: its config and its layers, lowest first (OCI image-spec manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse and check a manifest; ManifestError says what is wrong with it."""
        fields = _document(data, "image manifest")
        media_type = _text(fields, "mediaType", "image manifest", default=OCI_MANIFEST)
        if media_type not in MANIFEST_TYPES or "config" not in fields or "manifests" in fields:
            raise ManifestError(f"a document of type {media_type!r} is no image manifest")
        _schema_2(fields, "image manifest")
        layers = _list(fields.get("layers"), "image manifest: layers")
        return cls(
            media_type=media_type,
            config=Descriptor.from_dict(fields["config"], "image manifest: config"),
            layers=tuple(
                Descriptor.from_dict(layer, f"image manifest: layer {n}") for n, layer in enumerate(layers, start=1)
            ),
            annotations=_annotations(fields.get("annotations"), "image manifest"),
        )

    def to_json(self) -> bytes:
        """Print as canonical JSON: no spaces, keys in the specification's order."""
        data: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        return to_json(data)


class Index(NamedTuple):
    """Several manifests, one per platform or name (OCI image-spec image-index.md, Docker manifest list)."""

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse and check an index; ManifestError says what is wrong with it."""
        fields = _document(data, "image index")
        media_type = _text(fields, "mediaType", "image index", default=OCI_INDEX)
        if media_type not in INDEX_TYPES or "manifests" not in fields or "config" in fields:
            raise ManifestError(f"a document of type {media_type!r} is no image index")
        _schema_2(fields, "image index")
        manifests = _list(fields.get("manifests"), "image index: manifests")
        return cls(
            media_type=media_type,
            manifests=tuple(
                Descriptor.from_dict(one, f"image index: manifest {n}") for n, one in enumerate(manifests, start=1)
            ),
            annotations=_annotations(fields.get("annotations"), "image index"),
        )

    def to_json(self) -> bytes:
        """Print as canonical JSON: no spaces, keys in the specification's order."""
        data: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [one.to_dict() for one in self.manifests],
        }
        if self.annotations:
            data["annotations"] = dict(self.annotations)
        return to_json(data)

    def select(self, platform: Platform) -> Descriptor | None:
        """Return the manifest that fits `platform` best, the first of equals; None if none does.

        A manifest that names no platform is taken when nothing else fits and it is the only one.
        """
        images = [one for one in self.manifests if one.media_type in MANIFEST_TYPES | INDEX_TYPES]
        ranked = [
            (rank, n)
            for n, one in enumerate(images)
            if one.platform is not None and (rank := platform.rank(one.platform)) is not None
        ]
        if ranked:
            return images[min(ranked)[1]]
        return images[0] if len(images) == 1 and images[0].platform is None else None

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What the index offers, without the attestations that BuildKit lists as platform unknown/unknown."""
        return tuple(
            one.platform for one in self.manifests if one.platform is not None and one.platform.os != "unknown"
        )


def parse_document(data: bytes, media_type: str = "") -> Manifest | Index:
    """Parse a manifest or an index, told apart by its content; `media_type` is what a registry called it, if it did.

    Raises ManifestError, also for a document that says it is something else than the registry does (CVE-2021-41190).
    """
    fields = _document(data, "manifest")
    named = _text(fields, "mediaType", "manifest", default="")
    called = media_type.partition(";")[0].strip()
    known = INDEX_TYPES | MANIFEST_TYPES
    if fields.get("schemaVersion") == 1 or called in (DOCKER_MANIFEST_V1, DOCKER_MANIFEST_V1_SIGNED):
        raise ManifestError(
            "the image has a Docker schema 1 manifest, which is not supported",
            hint="push the image again with a current tool",
        )
    if named and called in known and named != called:
        raise ManifestError(f"a manifest was sent as {called!r} but says it is {named!r}")
    kind = named or called
    if kind in INDEX_TYPES or (kind not in MANIFEST_TYPES and "manifests" in fields):
        return Index.from_json(data)
    return Manifest.from_json(data)


def parse_config(data: bytes) -> dict[str, Any]:
    """Parse an image config (OCI image-spec config.md) and check what is relied on; other keys are kept as they are.

    Checked: `os` and `architecture` are text, `rootfs.diff_ids` are digests, `config` is an object or absent and its
    fields have their types, `history` is a list of objects. Raises ManifestError.
    """
    fields = _document(data, "image config")
    for key in ("os", "architecture"):
        _text(fields, key, "image config")
    for key in ("variant", "author", "created"):
        if fields.get(key) is not None:
            _text(fields, key, "image config")
    diff_ids(fields)
    _list(fields.get("history") or [], "image config: history", of=dict)
    config = fields.get("config")
    if config is not None:
        _check_settings(_object(config, "image config: config"))
    return fields


def diff_ids(config: Mapping[str, Any]) -> tuple[DiffId, ...]:
    """Return the layers that an image config names, lowest first. Raises ManifestError."""
    rootfs = _object(config.get("rootfs"), "image config: rootfs")
    if rootfs.get("type", "layers") != "layers":
        raise ManifestError(f"image config: rootfs.type is {rootfs['type']!r}, not 'layers'")
    listed = _list(rootfs.get("diff_ids") or [], "image config: rootfs.diff_ids")
    return tuple(DiffId(_digest(one, "image config: rootfs.diff_ids")) for one in listed)


def config_platform(config: Mapping[str, Any]) -> Platform:
    """Return the platform that a parsed image config names."""
    return Platform.of(config["os"], config["architecture"], config.get("variant") or "")


def to_json(data: object) -> bytes:
    """Print as every document made here is printed: UTF-8, no spaces, keys as they come."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def from_json(data: bytes, where: str) -> Any:
    """Decode JSON text, whatever it is; `where` names it in the ManifestError that malformed text raises."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: not valid JSON: {error}") from None


def _check_settings(config: dict[str, Any]) -> None:
    """Check the types of the run settings in an image config, all of which may be null."""
    for key in ("User", "WorkingDir", "StopSignal"):
        if config.get(key) is not None:
            _text(config, key, "image config: config")
    for key in ("Env", "Entrypoint", "Cmd", "Shell", "OnBuild"):
        if config.get(key) is not None:
            _texts(config[key], f"image config: config.{key}")
    for key in ("ExposedPorts", "Volumes", "Healthcheck"):
        if config.get(key) is not None:
            _object(config[key], f"image config: config.{key}")
    _annotations(config.get("Labels"), "image config: config", key="Labels")


def _document(data: bytes, what: str) -> dict[str, Any]:
    return _object(from_json(data, what), what)


def _schema_2(fields: Mapping[str, Any], what: str) -> None:
    if fields.get("schemaVersion") != 2:
        raise ManifestError(f"{what}: schemaVersion is {fields.get('schemaVersion')!r}, not 2")


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected an object, found {_kind(value)}")
    return value


def _list(value: object, where: str, *, of: type | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise ManifestError(f"{where}: expected a list, found {_kind(value)}")
    if of is not None and not all(isinstance(one, of) for one in value):
        raise ManifestError(f"{where}: an element is not {'text' if of is str else 'an object'}")
    return value


def _texts(value: object, where: str) -> list[str]:
    return [] if value is None else _list(value, where, of=str)


def _text(fields: Mapping[str, Any], key: str, where: str, *, default: str | None = None) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise ManifestError(
            f"{where}: {key} is missing" if value is None else f"{where}: {key} is {_kind(value)}, not text"
        )
    return value


def _digest(value: object, where: str) -> Digest:
    try:
        return Digest.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise ManifestError(f"{where}: {value!r} is not a sha256 digest") from None


def _annotations(value: object, where: str, *, key: str = "annotations") -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    found = _object(value, f"{where}: {key}")
    if not all(isinstance(text, str) for text in found.values()):
        raise ManifestError(f"{where}: {key} has a value that is not text")
    return tuple(sorted(found.items()))


def _platform(value: object, where: str) -> Platform | None:
    if value is None:
        return None
    fields = _object(value, f"{where}: platform")
    return Platform.of(
        _text(fields, "os", f"{where}: platform", default=""),
        _text(fields, "architecture", f"{where}: platform", default=""),
        _text(fields, "variant", f"{where}: platform", default=""),
    )


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number")
