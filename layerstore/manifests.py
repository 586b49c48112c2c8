"""The manifest of an image of the store: the one it came with, or a new one over the blobs of its layers.

And the document of an index, over the manifests of its images.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerstore.compress import Compression
from layerstore.digest import DiffId, Digest
from layerstore.images import Image
from layerstore.indexes import ImageIndex
from layerstore.oci import OCI_CONFIG, OCI_INDEX, Descriptor, Index, Manifest, layer_compression
from layerstore.store import Store


def kept_manifest(store: Store, image: Image) -> tuple[bytes, Manifest] | None:
    """Return the manifest that an image came with or was pushed with, if the blobs it names are all here."""
    if image.manifest is None or store.blobs.size(image.manifest) is None:
        return None
    data = store.blobs.read(image.manifest)
    manifest = Manifest.from_json(data)
    whole = len(manifest.layers) == len(image.layers) and all(
        store.blobs.size(layer.digest) == layer.size for layer in manifest.layers
    )
    return (data, manifest) if whole and manifest.config.digest == image.id else None


def pack_layer(store: Store, diff_id: DiffId, compression: Compression | None, level: int | None = None) -> Descriptor:
    """Return a layer's blob, made if it is missing, under its OCI media type. Errors as `Layers.blob`."""
    layer = store.layers.blob(diff_id, compression, level=level)
    return layer._replace(media_type=layer_compression(layer.media_type).media_type)


def new_manifest(image: Image, layers: Sequence[Descriptor]) -> tuple[bytes, Manifest]:
    """Return an OCI manifest over `layers`, the blobs of all of the image's layers, lowest first."""
    config = Descriptor(media_type=OCI_CONFIG, digest=Digest(image.id), size=len(image.config))
    manifest = Manifest(config=config, layers=tuple(layers))
    return manifest.to_json(), manifest


def describe(data: bytes, manifest: Manifest) -> Descriptor:
    """Return the descriptor of a manifest, which `data` holds."""
    return Descriptor(media_type=manifest.media_type, digest=Digest.of(data), size=len(data))


def written(store: Store, index: ImageIndex) -> Descriptor:
    """Return the descriptor of the document that pushing `index` as it is would send, and remember it.

    Layers that were never packed are packed for that. StoreError.
    """
    with store.lease():
        manifests = []
        for _, image in index.members:
            kept = kept_manifest(store, image)
            if kept is None:
                kept = new_manifest(image, [pack_layer(store, diff_id, None) for diff_id in image.layers])
                store.images.set_manifest(image, store.blobs.put_bytes(kept[0]))
            manifests.append(describe(*kept))
        data, descriptor = index_document(index, manifests)
        store.indexes.set_manifest(index, store.blobs.put_bytes(data))
        return descriptor


def index_document(index: ImageIndex, manifests: Sequence[Descriptor]) -> tuple[bytes, Descriptor]:
    """Return the OCI index of the manifests of an index's images, in their order, and its descriptor."""
    described = [
        manifest._replace(platform=member.platform) for member, manifest in zip(index.members, manifests, strict=True)
    ]
    data = Index(manifests=tuple(described)).to_json()
    return data, Descriptor(media_type=OCI_INDEX, digest=Digest.of(data), size=len(data))
