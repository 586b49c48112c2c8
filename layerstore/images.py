"""Image records and the names that point to them; reads no config and no manifest.

A name points to an image or to an index of images for several platforms (`layerstore/indexes.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from layerstore.db import Row
from layerstore.digest import DiffId, Digest, ImageId
from layerstore.errors import AmbiguousName, NotFound, StoreError
from layerstore.home import Home
from layerstore.lease import use_layers

if TYPE_CHECKING:
    from layerstore.platforms import Platform

_PREFIX = r"(?:sha256:)?([0-9a-f]{3,64})"
_COLUMNS = "id, config, layers, manifest, created"


class Image(NamedTuple):
    """An image of the store. `layers` are lowest first; `manifest` is None until one was read or written."""

    id: ImageId
    names: tuple[str, ...]
    config: bytes
    layers: tuple[DiffId, ...]
    manifest: Digest | None
    created: int
    """When the store got it, in nanoseconds since the epoch."""


class Images:
    """Finds, keeps and names images; part of a Store. Names are canonical references: the caller has parsed them."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def get(self, name: str, platform: Platform | None = None) -> Image | None:
        """Return the image with this reference, ID or unambiguous ID prefix (three digits or more), if there is one.

        Of an index it is the image that fits `platform` best, the first one without a platform, None if none fits. An
        image of its own is returned whatever it is for. Raises AmbiguousName. Its layers are kept from gc by a lease.
        """
        row = self._home.db.row(
            f"SELECT {_COLUMNS} FROM images WHERE id = (SELECT image FROM names WHERE name = ?)",  # noqa: S608 - fixed
            (name,),
        )
        if row is None:
            identity = self.identify(name)
            if identity is None:
                return None
            row = self._home.db.row(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (identity,))  # noqa: S608 - fixed
            if row is None:
                from layerstore.indexes import choose  # noqa: PLC0415 - most names are those of single images

                return choose(self, self._home, identity, platform)
        image = self._image(row, self._names(row[0]))
        self._touch(image)
        return image

    def identify(self, name: str) -> ImageId | None:
        """Return the ID of the image or index with this reference, ID or ID prefix. Raises AmbiguousName."""
        row = self._home.db.row("SELECT image FROM names WHERE name = ?", (name,))
        if row is not None:
            return ImageId(row[0])
        match = re.fullmatch(_PREFIX, name)
        if match is None:
            return None
        low = "sha256:" + match[1]
        bounds = (low, low + "g")
        rows = self._home.db.rows(
            "SELECT id FROM images WHERE id >= ? AND id < ? UNION SELECT id FROM indexes WHERE id >= ? AND id < ?",
            bounds + bounds,
        )
        if len(rows) > 1:
            raise AmbiguousName(name, tuple(sorted(row[0] for row in rows)))
        return ImageId(rows[0][0]) if rows else None

    def put(
        self,
        config: bytes,
        *,
        layers: Sequence[DiffId],
        names: Sequence[str] = (),
        manifest: Digest | None = None,
    ) -> Image:
        """Keep an image and point `names` at it, from wherever they pointed; the same config is the same image.

        A manifest that is known already stays where none is given. A new image and its names are on disk once the
        lease has ended; names that move to one that is there already are when this returns. NotFound for a layer.
        """
        home = self._home
        identity = ImageId.of(config)
        known = home.db.row("SELECT boot FROM images WHERE id = ?", (identity,))
        moved = set(names).difference(self._names(identity)) if known is not None else set(names)
        if known is not None and not moved and manifest is None and use_layers(home, layers):
            image = self.get(identity)
            assert image is not None
            return image
        with home.db.transaction(durable=bool(moved) and known == (None,)):
            now = home.clock()
            for diff_id in layers:
                if not home.db.write("UPDATE layers SET used = ? WHERE diff_id = ?", (now, diff_id)):
                    raise NotFound(f"the layer {diff_id} of image {identity} is not in the store")
            home.db.write(
                "INSERT INTO images(id, config, layers, manifest, created, boot) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT(id) DO UPDATE SET manifest = coalesce(excluded.manifest, manifest)",
                (identity, config, json.dumps(list(layers)), manifest, now, home.boot),
            )
            for name in names:
                home.db.write("INSERT OR REPLACE INTO names(name, image) VALUES (?, ?)", (name, identity))
        image = self.get(identity)
        assert image is not None
        return image

    def set_manifest(self, image: Image, manifest: Digest | None) -> Image:
        """Note the manifest that was written for `image`."""
        self._home.db.write("UPDATE images SET manifest = ? WHERE id = ?", (manifest, image.id))
        return image._replace(manifest=manifest)

    def list(self) -> list[Image]:
        """Return all images, newest first."""
        names: dict[str, list[str]] = {}
        for name, identity in self._home.db.rows("SELECT name, image FROM names ORDER BY name"):
            names.setdefault(identity, []).append(name)
        rows = self._home.db.rows(f"SELECT {_COLUMNS} FROM images ORDER BY created DESC, id")  # noqa: S608 - fixed
        return [self._image(row, tuple(names.get(row[0], ()))) for row in rows]

    def tag(self, image: Image, name: str) -> Image:
        """Point `name` at `image`; on disk when this returns."""
        with self._home.db.transaction(durable=True):
            if self._home.db.row("SELECT 1 FROM images WHERE id = ?", (image.id,)) is None:
                raise NotFound(f"image {image.id} is no longer in the store")
            self._home.db.write("INSERT OR REPLACE INTO names(name, image) VALUES (?, ?)", (name, image.id))
        return image._replace(names=self._names(image.id))

    def untag(self, name: str) -> bool:
        """Take `name` away from its image, which stays; return whether there was one. On disk when this returns."""
        with self._home.db.transaction(durable=True):
            return self._home.db.write("DELETE FROM names WHERE name = ?", (name,)) > 0

    def remove(self, image: Image) -> None:
        """Forget `image` and its names; its content goes at the next gc unless something else needs it.

        StoreError if it is part of an index.
        """
        with self._home.db.transaction(durable=True):
            for (index,) in self._home.db.rows(
                "SELECT id FROM indexes WHERE EXISTS"
                "(SELECT 1 FROM json_each(indexes.members) WHERE json_extract(value, '$[1]') = ?)",
                (image.id,),
            ):
                names = ", ".join(self._names(index)) or index
                raise StoreError(f"image {image.id} is part of {names}", hint="remove that")
            self._home.db.write("DELETE FROM names WHERE image = ?", (image.id,))
            self._home.db.write("DELETE FROM images WHERE id = ?", (image.id,))

    def _names(self, identity: str) -> tuple[str, ...]:
        rows = self._home.db.rows("SELECT name FROM names WHERE image = ? ORDER BY name", (identity,))
        return tuple(row[0] for row in rows)

    def _touch(self, image: Image) -> None:
        use_layers(self._home, image.layers)

    @staticmethod
    def _image(row: Row, names: tuple[str, ...]) -> Image:
        identity, config, layers, manifest, created = row
        return Image(
            ImageId(identity),
            names,
            config,
            tuple(DiffId(text) for text in json.loads(layers)),
            None if manifest is None else Digest(manifest),
            created,
        )
