"""OCI content on one machine: images, layers as trees and blobs, cache records, and registries to share them with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.cache import CacheRecord
from layerstore.digest import CacheKey, ChainId, DiffId, Digest, ImageId, chain_id
from layerstore.entry import Entry, Inline, Kind, Source, Stream
from layerstore.errors import (
    AmbiguousName,
    CorruptContent,
    NotFound,
    SourceChanged,
    StoreError,
    StoreUnusable,
    UnsafeLayer,
)
from layerstore.files import Stamp
from layerstore.images import Image
from layerstore.lease import Lease
from layerstore.store import Store

if TYPE_CHECKING:
    from layerstore.compress import Compression
    from layerstore.indexes import ImageIndex, Member
    from layerstore.layers import Forms, Layer, Upper
    from layerstore.version import Contents
    from layerstore.view import View

_LAZY = {
    "Compression": "compress",
    "Contents": "version",
    "Forms": "layers",
    "ImageIndex": "indexes",
    "Layer": "layers",
    "Member": "indexes",
    "Upper": "layers",
    "View": "view",
}
"""What a build that is all cached does without, by the module that has it."""

__all__ = [
    "AmbiguousName",
    "CacheKey",
    "CacheRecord",
    "ChainId",
    "Compression",
    "Contents",
    "CorruptContent",
    "DiffId",
    "Digest",
    "Entry",
    "Forms",
    "Image",
    "ImageId",
    "ImageIndex",
    "Inline",
    "Kind",
    "Layer",
    "Lease",
    "Member",
    "NotFound",
    "Source",
    "SourceChanged",
    "Stamp",
    "Store",
    "StoreError",
    "StoreUnusable",
    "Stream",
    "UnsafeLayer",
    "Upper",
    "View",
    "chain_id",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        from importlib import import_module  # noqa: PLC0415 - for the lazy names only

        return getattr(import_module(f"layerstore.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
