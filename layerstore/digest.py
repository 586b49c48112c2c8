"""Digests as types: compressed and uncompressed content cannot be confused.

Text form as in the OCI image specification (descriptor.md, "Digests"): `sha256:` and 64 lower-case hex digits.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Self

_FORM = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Digest(str):
    """The sha256 digest of some bytes, `sha256:<hex>`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take `text` as a digest; ValueError if it is not `sha256:` and 64 lower-case hex digits."""
        if not _FORM.match(text):
            raise ValueError(f"not a sha256 digest: {text!r}")
        return cls(text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the digest of `data`."""
        import hashlib  # noqa: PLC0415 - it loads OpenSSL, and who reads what was made has nothing to hash

        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @property
    def hex(self) -> str:
        """The 64 hex digits."""
        return self[7:]

    @property
    def raw(self) -> bytes:
        """The 32 bytes that they stand for."""
        return bytes.fromhex(self[7:])


class DiffId(Digest):
    """The digest of a layer's uncompressed tar (OCI image-spec config.md)."""

    __slots__ = ()


class ChainId(Digest):
    """The identity of a chain of layers (OCI image-spec config.md, "Layer ChainID")."""

    __slots__ = ()


class ImageId(Digest):
    """The digest of an image's config."""

    __slots__ = ()


class CacheKey(Digest):
    """The identity of an operation with its inputs."""

    __slots__ = ()


def chain_id(diff_ids: tuple[DiffId, ...]) -> ChainId:
    """Return the chain ID of layers, lowest first; of no layers, the digest of nothing."""
    if not diff_ids:
        return ChainId.of(b"")
    chain = ChainId(diff_ids[0])
    for diff_id in diff_ids[1:]:
        chain = _longer(chain, diff_id)
    return chain


@lru_cache(maxsize=4096)
def _longer(chain: ChainId, diff_id: DiffId) -> ChainId:
    """One layer more. A build asks for the chain below each of its steps."""
    return ChainId.of(f"{chain} {diff_id}".encode())
