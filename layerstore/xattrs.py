"""Extended attributes as layers carry them: which ones are content and which belong to the host or to overlayfs."""

from __future__ import annotations

import errno
import os

from layerstore.errors import StoreError

OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_BORROWED = frozenset(prefix + name for prefix in _OVERLAY for name in (b"redirect", b"metacopy"))
_HOST = frozenset({b"security.selinux", b"security.ima", b"security.evm"})
_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP)

Xattrs = tuple[tuple[bytes, bytes], ...]


def read(path: bytes | int) -> tuple[Xattrs, bool]:
    """Return what a layer keeps of the attributes of `path` (not followed), and whether overlayfs marks it opaque.

    Labels of the host's security modules and overlayfs's own attributes are no content. StoreError for a directory
    whose content lies elsewhere (redirect, metacopy): it was not written with the mount options the store asks for.
    """
    try:
        names = os.listxattr(path, follow_symlinks=False) if isinstance(path, bytes) else os.listxattr(path)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return (), False
        raise
    if not names:
        return (), False
    return _sift(path, sorted(os.fsencode(name) for name in names))


def mark_opaque(path: bytes) -> None:
    """Have overlayfs hide what lies below the directory `path`."""
    os.setxattr(path, OPAQUE[0], b"y", follow_symlinks=False)


def clear_opaque(path: bytes) -> None:
    """Take the mark of an opaque directory off `path`."""
    for name in OPAQUE:
        try:
            os.removexattr(path, name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise


def _sift(path: bytes | int, names: list[bytes]) -> tuple[Xattrs, bool]:
    kept: list[tuple[bytes, bytes]] = []
    opaque = False
    for name in names:
        if name in _HOST:
            continue
        if name.startswith(_OVERLAY):
            if name in _BORROWED:
                raise StoreError(
                    f"{path!r} is no complete tree: it carries {name.decode()}",
                    hint="mount with redirect_dir=off,metacopy=off",
                )
            opaque = opaque or (name in OPAQUE and _get(path, name) == b"y")
            continue
        kept.append((name, _get(path, name)))
    return tuple(kept), opaque


def _get(path: bytes | int, name: bytes) -> bytes:
    return os.getxattr(path, name, follow_symlinks=False) if isinstance(path, bytes) else os.getxattr(path, name)


def strip(xattrs: Xattrs) -> Xattrs:
    """Return `xattrs` without those that are no content, sorted."""
    return tuple(sorted(pair for pair in xattrs if pair[0] not in _HOST and not pair[0].startswith(_OVERLAY)))
