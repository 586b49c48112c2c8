"""Commands that rewrite files of the user: replacing one as a whole, and showing what would change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from builder.cli.save import whole_file


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file, or the one that a symbolic link leads to, by one of the same mode and owner; ExportError."""
    path = path.resolve()
    status = path.stat()
    with whole_file(path, hint="look at the permissions of its directory") as out:
        # Only root may give a file away; the mode comes second because a change of the owner clears bits of it.
        with suppress(PermissionError):
            os.fchown(out.fileno(), status.st_uid, status.st_gid)
        os.fchmod(out.fileno(), stat.S_IMODE(status.st_mode))
        out.write(data)


def difference(before: bytes, after: bytes, file: str) -> bytes:
    """Return a unified diff of two versions of `file`; nothing if they are the same."""
    return "".join(_difference(before, after, file)).encode("utf-8", "surrogateescape")


def _difference(before: bytes, after: bytes, file: str) -> Iterator[str]:
    from difflib import unified_diff  # noqa: PLC0415 - only for --diff

    old, new = (_lines(data.decode("utf-8", "surrogateescape")) for data in (before, after))
    for line in unified_diff(old, new, fromfile=file, tofile=file):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """The lines with their newlines; nothing else ends a line."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
