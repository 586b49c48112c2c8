"""Base images for plans that nobody builds: those of the store, and empty ones for the others."""

from __future__ import annotations

from builder.ops import ImageOp
from builder.plan import Base
from layerstore import Store
from layerstore.platforms import Platform
from layerstore.reference import Reference


class StoreBases:
    """Finds base images in the store whatever their platform; one that is not there is `unknown`, and empty.

    Without a store none is there.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self.unknown: set[str] = set()

    def image(self, reference: Reference, platform: Platform) -> Base:
        """Return the image as something to plan on."""
        name = reference.canonical
        image = self._store.images.get(name, platform) if self._store is not None else None
        if image is None:
            self.unknown.add(name)
            document = {"os": platform.os, "architecture": platform.architecture, "config": {}}
        else:
            from layerstore.oci import parse_config  # noqa: PLC0415 - only where there is an image to read

            document = parse_config(image.config)
        layers = image.layers if image is not None else ()
        return Base(
            reference=name, document=document, op=ImageOp(reference=name, layers=layers, platform=str(platform))
        )
