"""OCI image layouts (OCI image-spec image-layout.md) as they are written: into a directory, or as a tar."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from layerstore.compress import CHUNK
from layerstore.digest import Digest
from layerstore.errors import unusable
from layerstore.oci import REF_NAME, Descriptor, Index


def blob_path(digest: Digest) -> str:
    """Return where a blob is in a layout."""
    return f"blobs/sha256/{digest.hex}"


class TarSink:
    """Writes a layout as a tar: same images, same bytes."""

    def __init__(self, out: BinaryIO) -> None:
        import tarfile  # noqa: PLC0415 - only where a tar is written

        self._tarfile = tarfile
        # GNU_FORMAT, because a member may be larger than the 8 GiB that ustar can say.
        self._tar = tarfile.open(fileobj=out, mode="w|", bufsize=CHUNK, format=tarfile.GNU_FORMAT)  # noqa: SIM115 - see __exit__
        self._made: set[str] = set()

    def __enter__(self) -> TarSink:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._tar.close()

    def blob(self, digest: Digest, size: int, content: BinaryIO) -> None:
        """Append a blob."""
        for directory in ("blobs", "blobs/sha256"):
            if directory not in self._made:
                self._made.add(directory)
                header = self._header(directory + "/", 0, 0o755)
                header.type = self._tarfile.DIRTYPE
                self._tar.addfile(header)
        self._tar.addfile(self._header(blob_path(digest), size, 0o644), content)

    def index(self, entries: Sequence[Descriptor]) -> None:
        """Append index.json."""
        self.file("index.json", Index(manifests=tuple(entries)).to_json())

    def file(self, name: str, data: bytes) -> None:
        """Append a small file."""
        self._tar.addfile(self._header(name, len(data), 0o644), io.BytesIO(data))

    def _header(self, name: str, size: int, mode: int) -> Any:
        header = self._tarfile.TarInfo(name)
        header.size = size
        header.mode = mode
        return header


class DirectorySink:
    """Writes a layout into a directory, keeping what other images are there; complete on disk at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> DirectorySink:
        with self._words():
            (self._path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            with self._words():
                for directory in (self._path / "blobs" / "sha256", self._path):
                    _sync(directory)

    def blob(self, digest: Digest, _size: int, content: BinaryIO) -> None:
        """Write a blob."""
        self._put(self._path / blob_path(digest), content)

    def index(self, entries: Sequence[Descriptor]) -> None:
        """Write index.json; entries of other images that are there stay."""
        own = {entry.annotation(REF_NAME) for entry in entries}
        digests = {entry.digest for entry in entries}
        kept: list[Descriptor] = []
        with contextlib.suppress(FileNotFoundError):
            there = Index.from_json((self._path / "index.json").read_bytes())
            for entry in there.manifests:
                name = entry.annotation(REF_NAME)
                if (name not in own) if name else entry.digest not in digests:
                    kept.append(entry)
        self.file("index.json", Index(manifests=(*kept, *entries)).to_json())

    def file(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._put(self._path / name, io.BytesIO(data))

    def _put(self, path: Path, content: BinaryIO) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with self._words():
            try:
                with open(part, "wb") as out:
                    while data := content.read(CHUNK):
                        out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unusable(error, f"write the layout {self._path}") from error


Sink = TarSink | DirectorySink


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
