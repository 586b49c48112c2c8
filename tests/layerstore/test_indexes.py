"""Indexes in the store: names that mean images for several platforms, and what keeps or forgets their images."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from layerstore import AmbiguousName, Image, ImageIndex, Member, NotFound, Store, StoreError
from layerstore.entry import Entry, Inline, Kind
from layerstore.layers import Forms
from layerstore.platforms import Platform

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
ARM7 = Platform("linux", "arm", "v7")
NAME = "docker.io/library/app:1"


def index_of(store: Store, name: str) -> ImageIndex:
    """The index of that name."""
    index = store.indexes.get(name)
    assert index is not None
    return index


def image_of(store: Store, name: str) -> Image:
    """The image of that name."""
    image = store.images.get(name)
    assert image is not None
    return image


def made(store: Store, platform: Platform, text: str = "", *names: str) -> Image:
    """An image for `platform` with one file."""
    data = f"{platform} {text}".encode()
    layer = store.layers.write([Entry(b"file", Kind.FILE, size=len(data), source=Inline(data))], forms=Forms.TREE)
    config = {"os": platform.os, "architecture": platform.architecture, "rootfs": {"diff_ids": [layer.diff_id]}}
    if platform.variant:
        config["variant"] = platform.variant
    return store.images.put(json.dumps(config).encode(), layers=[layer.diff_id], names=names)


def both(store: Store, *names: str) -> list[Member]:
    """An index of two images."""
    members = [Member(platform, made(store, platform)) for platform in (ARM64, AMD64)]
    store.indexes.put(members, names=names)
    return members


def test_a_name_means_an_image_per_platform(store: Store) -> None:
    """By name, ID and prefix the index is found, and from it the image that fits; the first where nobody asks."""
    arm, amd = (member.image for member in both(store, NAME))
    index = index_of(store, NAME)

    assert ((NAME,), [ARM64, AMD64]) == (index.names, [member.platform for member in index.members])
    assert index == store.indexes.get(index.id) == store.indexes.get(index.id[7:19])
    assert [arm, amd, None] == [store.images.get(NAME, one) for one in (ARM64, AMD64, Platform("linux", "s390x"))]
    assert arm == store.images.get(NAME) == store.images.get(index.id[:19])
    assert (arm, amd) == (index.select(ARM64), index.select(AMD64))
    assert arm == index.select(Platform("linux", "arm64", "v9"))  # newer machines run what older ones do
    assert [index] == store.indexes.list()
    assert None is store.indexes.get("docker.io/library/none:1")
    assert [] == store.check()


def test_prefixes_of_images_and_indexes(store: Store) -> None:
    """A prefix that fits an image and an index is as ambiguous as one that fits two images."""
    members = both(store)
    taken = {member.image.id[7:10] for member in members}
    number = 0
    while True:  # until the ID of another image begins as that of an index does
        image = made(store, AMD64, str(number))
        index = store.indexes.put([Member(AMD64, image), Member(ARM64, members[0].image)])
        if taken & {index.id[7:10]}:
            break
        taken |= {image.id[7:10], index.id[7:10]}
        number += 1
        assert number < 5000

    with pytest.raises(AmbiguousName):
        store.images.get(index.id[7:10])


def test_names_move(store: Store) -> None:
    """A name points to one thing: building again moves it from an image to an index and back."""
    single = made(store, AMD64, "single", NAME)
    both(store, NAME)
    assert () == image_of(store, single.id).names
    assert NAME in index_of(store, NAME).names

    made(store, AMD64, "single", NAME)
    assert None is store.indexes.get(NAME)
    assert [()] == [index.names for index in store.indexes.list()]


def test_another_platform_of_a_name_is_added(store: Store) -> None:
    """What arrives for a platform takes its place, the others stay in their order; one alone is a plain image."""
    store.indexes.add(NAME, AMD64, old := made(store, AMD64, "old"))
    assert None is store.indexes.get(NAME)
    store.indexes.add(NAME, ARM7, arm := made(store, ARM7))
    store.indexes.add(NAME, AMD64, new := made(store, AMD64, "new"))
    index = index_of(store, NAME)

    assert [(AMD64, new.id), (ARM7, arm.id)] == [(platform, image.id) for platform, image in index.members]
    assert 1 == len(store.indexes.list())
    assert (old.id, ()) == image_of(store, old.id)[:2]


def test_removing(store: Store) -> None:
    """An index takes its images along, unless they have a name or another index; alone they cannot be removed."""
    members = both(store, NAME)
    store.images.tag(members[0].image, "docker.io/library/arm:1")
    third = Member(ARM7, made(store, ARM7))
    index = store.indexes.put([*members, third], names=["docker.io/library/three:1"])

    with pytest.raises(StoreError, match=r"is part of"):
        store.images.remove(members[1].image)
    store.indexes.remove(index)
    assert {member.image.id for member in members} == {image.id for image in store.images.list()}
    store.indexes.remove(index_of(store, NAME))
    assert [members[0].image.id] == [image.id for image in store.images.list()]
    assert [] == store.indexes.list()
    assert [] == store.check()
    with pytest.raises(NotFound):
        store.indexes.put([third])
    with pytest.raises(NotFound):
        store.indexes.tag(index, NAME)


def test_gc_keeps_the_images_of_an_index(tmp_path: Path) -> None:
    """What an index holds is needed, though its images have no name; the written document is, too."""
    now = 10**18
    with Store.open(tmp_path / "store", clock=lambda: now) as store:
        with store.lease():
            both(store, NAME)
            index = index_of(store, NAME)
            store.indexes.set_manifest(index, store.blobs.put_bytes(b"{}"))
        now += 10**15
        assert [] == [line for line in store.gc(keep_used_since=now).describe() if not line.startswith("cache")]
        store.sweep(store.gc(keep_used_since=now))
        assert [] == store.check()
        store.indexes.remove(index)
        assert 3 == len(store.gc(keep_used_since=now).describe())


def test_a_power_cut(tmp_path: Path) -> None:
    """Before the lease ends an index is of this boot, and goes with its names if the machine stops; then it stays."""
    root = tmp_path / "store"
    with Store.open(root) as store:
        both(store)
        with store.lease():
            both(store, NAME)
        with sqlite3.connect(root / "store.db") as database:
            assert [(None,)] == database.execute("SELECT boot FROM indexes").fetchall()
            database.execute("UPDATE indexes SET boot = 'another'")
            database.execute("UPDATE meta SET value = 'another' WHERE key = 'boot'")
    with Store.open(root) as store:
        assert [] == store.indexes.list()
        assert None is store.images.get(NAME)
        assert [] == store.check()


def test_a_store_of_the_format_before(tmp_path: Path) -> None:
    """A store that knew no indexes gets the table when it is opened."""
    root = tmp_path / "store"
    with Store.open(root) as store, store.lease():
        image = made(store, AMD64, "", NAME)
    with sqlite3.connect(root / "store.db") as database:
        database.execute("DROP TABLE indexes")
        database.execute("PRAGMA user_version = 1")
    with Store.open(root) as store:
        assert image.id == image_of(store, NAME).id
        assert [] == store.indexes.list()


def test_check_finds_damage(tmp_path: Path) -> None:
    """Another list of images under the ID, an image that is gone, a document that is gone: each is a fault."""
    root = tmp_path / "store"
    with Store.open(root) as store:
        both(store, NAME)
        with sqlite3.connect(root / "store.db") as database:
            gone = "sha256:" + "0" * 64
            database.execute("UPDATE indexes SET members = ?, manifest = ?", (f'[["linux/amd64","{gone}"]]', gone))
        told = " ".join(fault.fault for fault in store.check())
    for words in ("has another digest", "is missing", "document"):
        assert words in told
