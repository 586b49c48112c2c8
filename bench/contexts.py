"""Build contexts: directories of files, the same bytes every time unless they are to be new."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = 100
"""Files in a directory."""
_BLOCK = 1 << 20


def write_context(place: Path, dockerfile: str, *, files: int = 0, size: int = 1000, seed: int = 0) -> Path:
    """Make `place` a context: a Dockerfile, and below `src` so many `files` of `size` bytes; another seed, other bytes.

    Files are dated an hour back, as in a checkout that is not of this second. Returns `place`.
    """
    place.mkdir(parents=True, exist_ok=True)
    (place / "Dockerfile").write_text(dockerfile)
    (place / "src").mkdir(exist_ok=True)
    filling = b"All work and no play makes Jack a dull boy.\n" * (size // 44 + 1)
    for number in range(files):
        path = file_of(place, number)
        if number % _FOLDER == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            file.write((b"%d %d\n" % (seed, number) + filling)[:size])
    return place


def file_of(place: Path, number: int) -> str:
    """The path of a file that `write_context` made."""
    return f"{place}/src/{number // _FOLDER:04}/{number:06}.txt"


def write_random(path: Path, megabytes: int) -> None:
    """Write a file of random bytes, which nobody has seen before and nothing compresses."""
    with open(path, "wb", buffering=0) as file:
        for _ in range(megabytes):
            file.write(os.urandom(_BLOCK))
