"""Indexes: images for several platforms under one name, in the order in which they were asked for.

An index is a record of its own, whose ID is the digest of its list of platforms and image IDs; the document that
registries and layouts get names manifests, which exist only once something was written (`layerstore/manifests.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from layerstore.digest import Digest, ImageId
from layerstore.errors import NotFound
from layerstore.home import Home
from layerstore.images import Image, Images
from layerstore.platforms import Platform


class Member(NamedTuple):
    """One image of an index, and the platform it is there for; what its own config says may be another."""

    platform: Platform
    image: Image


class ImageIndex(NamedTuple):
    """Images for several platforms. `manifest` is the digest of its document, None until one was written."""

    id: ImageId
    names: tuple[str, ...]
    members: tuple[Member, ...]
    manifest: Digest | None
    created: int
    """When the store got it, in nanoseconds since the epoch."""

    @classmethod
    def of(cls, members: Sequence[Member], created: int) -> Self:
        """Return the index of `members` before it is in a store, without names."""
        return cls(ImageId.of(_text(members)), (), tuple(members), None, created)

    def select(self, platform: Platform) -> Image | None:
        """Return the image that fits `platform` best, the first of equals; None if none does."""
        at = best([member.platform for member in self.members], platform)
        return None if at is None else self.members[at].image


class Indexes:
    """Finds, keeps and names indexes; part of a Store. Names are canonical references."""

    def __init__(self, home: Home, images: Images) -> None:
        self._home = home
        self._images = images

    def get(self, name: str) -> ImageIndex | None:
        """Return the index with this reference, ID or unambiguous ID prefix, if there is one. Raises AmbiguousName."""
        identity = self._images.identify(name)
        return None if identity is None else self._read(identity)

    def put(self, members: Sequence[Member], *, names: Sequence[str] = ()) -> ImageIndex:
        """Keep an index of images that are in the store and point `names` at it, from wherever they pointed.

        A new one and its names are on disk once the lease has ended; names that move to one that is there already are
        when this returns. NotFound for an image that is gone.
        """
        home = self._home
        text = _text(members)
        identity = ImageId.of(text)
        known = home.db.row("SELECT boot FROM indexes WHERE id = ?", (identity,))
        with home.db.transaction(durable=bool(names) and known == (None,)):
            for _, image in members:
                if home.db.row("SELECT 1 FROM images WHERE id = ?", (image.id,)) is None:
                    raise NotFound(f"image {image.id} is no longer in the store")
            home.db.write(
                "INSERT OR IGNORE INTO indexes(id, members, created, boot) VALUES (?, ?, ?, ?)",
                (identity, text.decode(), home.clock(), home.boot),
            )
            for name in names:
                home.db.write("INSERT OR REPLACE INTO names(name, image) VALUES (?, ?)", (name, identity))
        index = self._read(identity)
        assert index is not None
        return index

    def add(self, name: str, platform: Platform, image: Image) -> None:
        """Let `name` mean `image` for `platform`, and what it meant before for the others."""
        with self._home.db.transaction(durable=True):
            members = [member for member in self._meant(name) if member.platform != platform]
            before = self.get(name)
            if members:
                # An index that is asked for again keeps its order.
                order = [member.platform for member in (before.members if before else members)]
                members.append(Member(platform, image))
                members.sort(key=lambda one: order.index(one.platform) if one.platform in order else len(order))
                self.put(members, names=[name])
            else:
                self._images.tag(image, name)
            if before is not None and before.names == (name,):
                now = self.get(name)
                if now is None or now.id != before.id:
                    self._home.db.write("DELETE FROM indexes WHERE id = ?", (before.id,))

    def set_manifest(self, index: ImageIndex, manifest: Digest) -> None:
        """Note the document that was written for `index`."""
        self._home.db.write("UPDATE indexes SET manifest = ? WHERE id = ?", (manifest, index.id))

    def list(self) -> list[ImageIndex]:
        """Return all indexes, newest first."""
        rows = self._home.db.rows("SELECT id FROM indexes ORDER BY created DESC, id")
        return [index for (identity,) in rows if (index := self._read(ImageId(identity))) is not None]

    def tag(self, index: ImageIndex, name: str) -> None:
        """Point `name` at `index`; on disk when this returns."""
        with self._home.db.transaction(durable=True):
            if self._home.db.row("SELECT 1 FROM indexes WHERE id = ?", (index.id,)) is None:
                raise NotFound(f"index {index.id} is no longer in the store")
            self._home.db.write("INSERT OR REPLACE INTO names(name, image) VALUES (?, ?)", (name, index.id))

    def remove(self, index: ImageIndex) -> None:
        """Forget `index` and its names, and those of its images that have no name and are in no other index."""
        with self._home.db.transaction(durable=True):
            self._home.db.write("DELETE FROM names WHERE image = ?", (index.id,))
            self._home.db.write("DELETE FROM indexes WHERE id = ?", (index.id,))
            held = {member.image.id for other in self.list() for member in other.members}
            for image in {member.image.id: member.image for member in index.members}.values():
                if not image.names and image.id not in held:
                    self._images.remove(image)

    def _meant(self, name: str) -> Sequence[Member]:
        """What `name` means by platform."""
        from layerstore.oci import config_platform, parse_config  # noqa: PLC0415 - only pulls ask

        if (index := self.get(name)) is not None:
            return index.members
        image = self._images.get(name)
        return [] if image is None else [Member(config_platform(parse_config(image.config)), image)]

    def _read(self, identity: ImageId) -> ImageIndex | None:
        row = self._home.db.row("SELECT members, manifest, created FROM indexes WHERE id = ?", (identity,))
        if row is None:
            return None
        members = []
        for platform, image_id in _pairs(row[0]):
            image = self._images.get(image_id)
            if image is None:
                raise NotFound(f"image {image_id} of index {identity} is no longer in the store")
            members.append(Member(platform, image))
        names = self._home.db.rows("SELECT name FROM names WHERE image = ? ORDER BY name", (identity,))
        manifest = None if row[1] is None else Digest(row[1])
        return ImageIndex(identity, tuple(name for (name,) in names), tuple(members), manifest, row[2])


def choose(images: Images, home: Home, identity: ImageId, platform: Platform | None) -> Image | None:
    """Return the image of the index `identity` that fits `platform` best, its first for None."""
    row = home.db.row("SELECT members FROM indexes WHERE id = ?", (identity,))
    if row is None:
        return None
    pairs = list(_pairs(row[0]))
    at = 0 if platform is None else best([found for found, _ in pairs], platform)
    return None if at is None else images.get(pairs[at][1])


def best(offered: Sequence[Platform], wanted: Platform) -> int | None:
    """Return the number of the platform that fits `wanted` best, the first of equals; None if none does."""
    ranked = [(rank, at) for at, one in enumerate(offered) if (rank := wanted.rank(one)) is not None]
    return min(ranked)[1] if ranked else None


def _text(members: Sequence[Member]) -> bytes:
    """What is kept of the members, and what an index's ID is the digest of."""
    return json.dumps([[str(platform), image.id] for platform, image in members], separators=(",", ":")).encode()


def _pairs(text: str) -> Iterable[tuple[Platform, str]]:
    for platform, image in json.loads(text):
        yield Platform(*platform.split("/")), image
