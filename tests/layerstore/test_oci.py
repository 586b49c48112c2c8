"""Manifests, indexes and configs: what is understood, what is printed, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerstore.compress import Compression
from layerstore.digest import DiffId, Digest
from layerstore.oci import (
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
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

D = "sha256:" + "a" * 64
CONFIG = {"mediaType": OCI_CONFIG, "digest": D, "size": 7}
LAYER = {"mediaType": OCI_LAYER, "digest": D, "size": 9}
GOOD_MANIFEST: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
GOOD_INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
GOOD_CONFIG: dict[str, Any] = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [D]}}


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def test_a_manifest_round_trips() -> None:
    """What is printed has the specification's order, no spaces, and parses to the same value."""
    layer = Descriptor(
        media_type=OCI_LAYER_ZSTD, digest=Digest(D), size=3, annotations=(("a", "ä"),), urls=("http://u",)
    )
    config = Descriptor(media_type=OCI_CONFIG, digest=Digest(D), size=2)
    manifest = Manifest(config=config, layers=(layer,), annotations=(("k", "v"),))

    printed = manifest.to_json()

    expected = (
        f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"{OCI_CONFIG}","digest":"{D}","size":2}},'
        f'"layers":[{{"mediaType":"{OCI_LAYER_ZSTD}","digest":"{D}","size":3,"urls":["http://u"],"annotations":{{"a":"ä"}}}}],'
        '"annotations":{"k":"v"}}'
    )
    assert expected == printed.decode()
    assert manifest == Manifest.from_json(printed)


def test_an_index_round_trips() -> None:
    """Platforms and annotations of an index survive."""
    entry = Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest(D),
        size=1,
        platform=Platform("linux", "arm", "v7"),
        annotations=(("a", "1"), ("b", "2")),
        artifact_type="x/y",
    )
    index = Index(manifests=(entry,))

    assert index == Index.from_json(index.to_json())
    assert ("1", "") == (entry.annotation("a"), entry.annotation("z"))


def test_documents_are_told_apart() -> None:
    """By media type, by what the registry says, or by content where neither is there."""
    bare_manifest = {key: value for key, value in GOOD_MANIFEST.items() if key != "mediaType"}
    bare_index = {key: value for key, value in GOOD_INDEX.items() if key != "mediaType"}

    assert isinstance(parse_document(dump(GOOD_MANIFEST)), Manifest)
    assert isinstance(parse_document(dump(bare_manifest)), Manifest)
    assert isinstance(parse_document(dump(bare_index)), Index)
    assert isinstance(parse_document(dump(bare_index), OCI_INDEX + "; charset=utf-8"), Index)
    docker = parse_document(dump({**GOOD_MANIFEST, "mediaType": DOCKER_MANIFEST}), DOCKER_MANIFEST)
    assert DOCKER_MANIFEST == docker.media_type


@pytest.mark.parametrize(
    ("document", "called", "message"),
    [
        ({**GOOD_MANIFEST, "manifests": []}, "", "is no image manifest"),
        ({**GOOD_INDEX, "config": CONFIG}, "", "is no image index"),
        (GOOD_MANIFEST, OCI_INDEX, "was sent as"),
        (GOOD_INDEX, DOCKER_INDEX, "was sent as"),
        ({"schemaVersion": 1, "fsLayers": []}, "", "schema 1"),
        ({**GOOD_MANIFEST, "schemaVersion": 3}, "", "schemaVersion is 3"),
        ({**GOOD_MANIFEST, "mediaType": "text/html"}, "", "is no image manifest"),
        ({**GOOD_MANIFEST, "mediaType": 1}, "", "mediaType is a number, not text"),
        ({**GOOD_MANIFEST, "layers": None}, "", "layers: expected a list, found nothing"),
        ({**GOOD_MANIFEST, "layers": [7]}, "", "layer 1: expected an object, found a number"),
        ({**GOOD_MANIFEST, "layers": [{**LAYER, "size": -1}]}, "", "layer 1: size is -1"),
        ({**GOOD_MANIFEST, "layers": [{**LAYER, "size": True}]}, "", "size is True"),
        ({**GOOD_MANIFEST, "layers": [{**LAYER, "digest": "md5:x"}]}, "", "'md5:x' is not a sha256 digest"),
        ({**GOOD_MANIFEST, "layers": [{**LAYER, "digest": f"sha256:../{'a' * 61}"}]}, "", "is not a sha256 digest"),
        ({**GOOD_MANIFEST, "layers": [{"digest": D, "size": 1}]}, "", "mediaType is missing"),
        ({**GOOD_MANIFEST, "annotations": {"a": 1}}, "", "annotations has a value that is not text"),
        ({**GOOD_INDEX, "manifests": [{**LAYER, "platform": "x"}]}, "", "platform: expected an object, found text"),
        ([], "", "expected an object, found a list"),
    ],
)
def test_malformed_documents(document: object, called: str, message: str) -> None:
    """Whatever is wrong with a manifest is said with its place."""
    with pytest.raises(ManifestError) as caught:
        parse_document(dump(document), called)

    assert message in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json(data: bytes) -> None:
    """Bytes that are no JSON are refused, however nasty."""
    with pytest.raises(ManifestError, match="not valid JSON"):
        parse_document(data)


def test_selection_by_platform() -> None:
    """The best fit wins, the first of equals; attestations are never chosen; a single unlabelled image is taken."""

    def entry(text: str, size: int) -> Descriptor:
        platform = Platform(*text.split("/")) if text else None
        return Descriptor(media_type=OCI_MANIFEST, digest=Digest(D), size=size, platform=platform)

    def chosen(texts: str, wanted: str) -> int | None:
        index = Index(manifests=tuple(entry(text, n) for n, text in enumerate(texts.split(","))))
        found = index.select(Platform(*wanted.split("/")))
        return None if found is None else found.size

    assert 1 == chosen("unknown/unknown,linux/amd64,linux/amd64", "linux/amd64")
    assert 2 == chosen("linux/arm/v5,linux/arm/v6,linux/arm/v7", "linux/arm64")
    assert 1 == chosen("linux/arm/v7,linux/arm64", "linux/arm64")
    assert 0 == chosen("linux/386", "linux/amd64")
    assert 0 == chosen("", "linux/amd64")
    assert chosen(",", "linux/amd64") is None
    assert chosen("linux/amd64,unknown/unknown", "linux/arm64") is None


def test_a_config_is_kept_whole() -> None:
    """Known parts are checked, unknown ones stay."""
    config = {
        **GOOD_CONFIG,
        "variant": "v8",
        "x-other": [1],
        "config": {"Env": None, "Cmd": ["a"], "Labels": {"a": "b"}},
    }

    parsed = parse_config(dump(config))

    assert config == parsed
    assert (DiffId(D),) == diff_ids(parsed)
    assert Platform("linux", "arm64") == config_platform({**parsed, "architecture": "arm64"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"os": None}, "os is missing"),
        ({"architecture": 5}, "architecture is a number"),
        ({"rootfs": None}, "rootfs: expected an object, found nothing"),
        ({"rootfs": {"type": "other", "diff_ids": []}}, "rootfs.type is 'other'"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "'x' is not a sha256 digest"),
        ({"history": [1]}, "history: an element is not an object"),
        ({"config": []}, "config: expected an object, found a list"),
        ({"config": {"Env": [1]}}, "config.Env: an element is not text"),
        ({"config": {"Cmd": "sh"}}, "config.Cmd: expected a list, found text"),
        ({"config": {"Labels": {"a": 1}}}, "Labels has a value that is not text"),
        ({"config": {"User": 0}}, "User is a number"),
        ({"config": {"Volumes": []}}, "config.Volumes: expected an object"),
    ],
)
def test_malformed_configs(change: dict[str, Any], message: str) -> None:
    """Whatever is wrong with a config is said with its place."""
    with pytest.raises(ManifestError) as caught:
        parse_config(dump({**GOOD_CONFIG, **change}))

    assert message in caught.value.message


def test_layer_types() -> None:
    """A layer's media type says how it is compressed; what is no layer is refused."""
    assert [Compression.NONE, Compression.GZIP, Compression.ZSTD] == [
        layer_compression(one) for one in (OCI_LAYER, DOCKER_LAYER_GZIP, OCI_LAYER_ZSTD)
    ]
    with pytest.raises(ManifestError, match="which is no image layer"):
        layer_compression("application/vnd.in-toto+json")
