"""Images as users name them on the command line: `debian:12`, an ID or the beginning of one, a name with a digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from layerstore.errors import NotFound
from layerstore.reference import InvalidReference, Reference

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.digest import DiffId
    from layerstore.images import Image


class Found(NamedTuple):
    """An image, and the canonical name it was found by; None if it was found by its ID."""

    image: Image
    name: str | None


def find_image(store: Store, text: str) -> Found:
    """Return the image that `text` means; names come before IDs, as with docker.

    Raises NotFound, with the near names in the hint, AmbiguousName, and InvalidReference for text that is neither.
    """
    refused: InvalidReference | None = None
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        refused = error
    else:
        if reference.digest is not None:
            return Found(_by_digest(store, reference), reference.canonical)
        if image := store.images.get(reference.canonical):
            return Found(image, reference.canonical)
    if image := store.images.get(text):
        return Found(image, None)
    if refused is not None and not _like_an_id(text):
        raise refused
    raise NotFound(f"no image here is called {text}", hint=_near_names(store, text))


def familiar(name: str) -> str:
    """Return a canonical name as people write it: `docker.io/library/debian:12` is `debian:12`."""
    return Reference.parse(name).familiar


def repo_digests(image: Image) -> list[str]:
    """Return the image's repositories with the digest of its manifest, as far as a manifest was read or written."""
    if image.manifest is None:
        return []
    repositories = {Reference.parse(name).familiar_name for name in image.names}
    return sorted(f"{repository}@{image.manifest}" for repository in repositories)


def image_size(store: Store, image: Image) -> int:
    """Return the size of the image's layers in bytes."""
    return sum(layer_size(store, diff_id) for diff_id in image.layers)


def layer_size(store: Store, diff_id: DiffId) -> int:
    """Return the size of a layer's tar in bytes; that of its blob where it came compressed and was never unpacked."""
    layer = store.layers.find(diff_id)
    if layer is None:
        return 0
    return layer.size if layer.size is not None else store.layers.blob(diff_id).size


def _by_digest(store: Store, reference: Reference) -> Image:
    """A name with a digest means the image with that manifest, whatever the name points to by now."""
    if image := store.images.get(reference.canonical):
        return image
    for image in store.images.list():
        if image.manifest == reference.digest:
            return image
    raise NotFound(f"no image here has the manifest {reference.digest}", hint=f"pybuild pull {reference.familiar}")


def _like_an_id(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text.removeprefix("sha256:"))


def _near_names(store: Store, text: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only a name that is not found pays for it

    names = sorted({familiar(name) for image in store.images.list() for name in image.names})
    near = get_close_matches(text if ":" in text else f"{text}:latest", names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"`pybuild images` lists what there is, `pybuild pull {text}` asks a registry"
