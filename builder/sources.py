"""Where base images come from: the local store first, then a registry (a `builder.plan.Resolver`).

It knows images and registries; which images a build needs is the plan's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from builder.events import Completed, Event, Planned, Started, Transfer, VertexId
from builder.ops import ImageOp
from builder.plan import Base
from layerstore import Image, ImageId, Store, StoreError
from layerstore.platforms import Platform
from layerstore.reference import Reference

if TYPE_CHECKING:
    from layerstore.registry.client import Client


class ImageSources:
    """Finds base images."""

    def __init__(
        self,
        store: Store,
        client: Callable[[], Client],
        *,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        pull: bool = False,
        several_platforms: bool = False,
    ) -> None:
        """`pull` asks the registry even for what is in the store; `client` makes a registry client.

        `emit` takes events, whose names tell platforms if there are several.
        """
        self.store = store
        self.client = client
        self.clock = clock
        self.emit = emit
        self.pull = pull
        self.several_platforms = several_platforms
        self.used: set[ImageId] = set()
        """The images that were asked for."""

    def image(self, reference: Reference, platform: Platform) -> Base:
        """Return the image as something to build on; StoreError if neither store nor registry has it.

        An image in the store that is for another platform does where the registry does not answer for it, as with
        BuildKit, whose rules warn of that: it may be one that was only ever here.
        """
        image = None if self.pull else self.store.images.get(reference.canonical, platform)
        if image is not None:
            config = json.loads(image.config)  # it was checked when it came into the store
            if Platform.of(config["os"], config["architecture"], config.get("variant", "")) == platform:
                return self._base(reference, platform, image, config)
        image = self._pull(reference, platform, image)
        return self._base(reference, platform, image, json.loads(image.config))

    def _base(self, reference: Reference, platform: Platform, image: Image, config: dict[str, Any]) -> Base:
        self.used.add(image.id)
        op = ImageOp(reference=reference.canonical, layers=image.layers, platform=str(platform))
        return Base(reference=reference.canonical, document=config, op=op)

    def _pull(self, reference: Reference, platform: Platform, instead: Image | None) -> Image:
        """Fetch an image, shown as a vertex of its own; `instead` is taken if the registry does not tell of any."""
        from layerstore.registry.errors import RegistryConfigError, RegistryError  # noqa: PLC0415 - only builds that
        from layerstore.registry.transfer import pull, resolve  # noqa: PLC0415 - speak to a registry pay for it

        name = reference.canonical
        vertex = VertexId("sha256:" + hashlib.sha256(f"pull {name} {platform}".encode()).hexdigest())
        place = f"[{platform} internal]" if self.several_platforms else "[internal]"
        self.emit(Planned(vertex=vertex, name=f"{place} load metadata and layers of {name}"))
        self.emit(Started(vertex=vertex, time=self.clock()))

        def progress(identity: str, current: int, total: int | None, done: bool) -> None:  # noqa: FBT001 - the transfer's callback
            now = self.clock()
            self.emit(Transfer(vertex=vertex, time=now, id=identity, current=current, total=total, done=done))

        try:
            with self.client() as client:
                if instead is not None:
                    try:
                        resolve(reference, client)
                    except RegistryConfigError:
                        raise
                    except RegistryError as error:
                        note = f"taken from the store, for another platform: {error.message}"
                        self.emit(Completed(vertex=vertex, time=self.clock(), note=note))
                        return instead
                image = pull(self.store, reference, platform, client, progress=progress)
        except BaseException as error:
            self.emit(Completed(vertex=vertex, time=self.clock(), error=str(error) or type(error).__name__))
            if isinstance(error, StoreError):
                ways = "`pybuild base` makes base images without a registry"
                error.hint = f"{error.hint}; {ways}" if error.hint else ways
            raise
        self.emit(Completed(vertex=vertex, time=self.clock()))
        return image
