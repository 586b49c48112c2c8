"""Images as users name them on the command line: `debian:12`, an ID or the beginning of one, a name with a digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from layerstore.errors import NotFound
from layerstore.reference import InvalidReference, Reference

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.digest import DiffId
    from layerstore.images import Image
    from layerstore.indexes import ImageIndex
    from layerstore.platforms import Platform


class Found(NamedTuple):
    """An image, and the canonical name it was found by; None if it was found by its ID."""

    image: Image
    name: str | None


class FoundAny(NamedTuple):
    """An image or an index of images for several platforms, and the name it was found by, as in `Found`."""

    image: Image | ImageIndex
    name: str | None


def find_image(store: Store, text: str, platform: Platform) -> Found:
    """Return the image that `text` means; names come before IDs, as with docker. Of an index, that for `platform`.

    Raises NotFound, with the near names in the hint, AmbiguousName, and InvalidReference for text that is neither.
    """
    found, name = find_any(store, text)
    return Found(one_of(found, text, platform), name)


def find_any(store: Store, text: str) -> FoundAny:
    """Return the image or the whole index that `text` means. Errors as `find_image`."""
    refused: InvalidReference | None = None
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        refused = error
    else:
        if reference.digest is not None:
            return FoundAny(_by_digest(store, reference), reference.canonical)
        if found := _get(store, reference.canonical):
            return FoundAny(found, reference.canonical)
    if found := _get(store, text):
        return FoundAny(found, None)
    if refused is not None and not _like_an_id(text):
        raise refused
    for one in _everything(store):
        if one.manifest == text:  # what builds for several platforms tell
            return FoundAny(one, None)
    raise NotFound(f"no image here is called {text}", hint=_near_names(store, text))


def one_of(found: Image | ImageIndex, text: str, platform: Platform) -> Image:
    """Return `found`, which `text` means, or of an index the image for `platform`. NotFound says what there is."""
    from layerstore.images import Image  # noqa: PLC0415 - not for --help

    if isinstance(found, Image):
        return found
    image = found.select(platform)
    if image is None:
        offered = ", ".join(str(member.platform) for member in found.members)
        raise NotFound(f"{text} has no image for {platform}", hint=f"choose with --platform: {offered}")
    return image


def familiar(name: str) -> str:
    """Return a canonical name as people write it: `docker.io/library/debian:12` is `debian:12`."""
    return Reference.parse(name).familiar


def repo_tags(store: Store, image: Image) -> list[str]:
    """Return the image's names as people write them, those of the indexes it is part of among them."""
    return sorted(map(familiar, {*image.names, *(name for index in _holding(store, image) for name in index.names)}))


def repo_digests(store: Store, image: Image) -> list[str]:
    """Return the repositories of the image, and of the indexes it is part of, with the digests of their documents.

    That is, as far as a manifest was read or written.
    """
    found = set()
    documents: list[Image | ImageIndex] = [image, *_holding(store, image)]
    for one in documents:
        if one.manifest is not None:
            found |= {f"{Reference.parse(name).familiar_name}@{one.manifest}" for name in one.names}
    return sorted(found)


def _holding(store: Store, image: Image) -> list[ImageIndex]:
    return [index for index in store.indexes.list() if any(member.image.id == image.id for member in index.members)]


def image_size(store: Store, image: Image) -> int:
    """Return the size of the image's layers in bytes."""
    return sum(layer_size(store, diff_id) for diff_id in image.layers)


def layer_size(store: Store, diff_id: DiffId) -> int:
    """Return the size of a layer's tar in bytes; that of its blob where it came compressed and was never unpacked."""
    layer = store.layers.find(diff_id)
    if layer is None:
        return 0
    return layer.size if layer.size is not None else store.layers.blob(diff_id).size


def _get(store: Store, name: str) -> Image | ImageIndex | None:
    return store.indexes.get(name) or store.images.get(name)


def _everything(store: Store) -> list[Image | ImageIndex]:
    return [*store.images.list(), *store.indexes.list()]


def _by_digest(store: Store, reference: Reference) -> Image | ImageIndex:
    """A name with a digest means the image with that manifest, whatever the name points to by now."""
    if found := _get(store, reference.canonical):
        return found
    for one in _everything(store):
        if one.manifest == reference.digest:
            return one
    raise NotFound(f"no image here has the manifest {reference.digest}", hint=f"pybuild pull {reference.familiar}")


def _like_an_id(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text.removeprefix("sha256:"))


def _near_names(store: Store, text: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only a name that is not found pays for it

    names = sorted({familiar(name) for one in _everything(store) for name in one.names})
    near = get_close_matches(text if ":" in text else f"{text}:latest", names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"`pybuild images` lists what there is, `pybuild pull {text}` asks a registry"
