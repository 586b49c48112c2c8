"""Uploads that begin before the blob is whole: compressing, hashing and sending overlap.

They only ever save time. One that fails, for whatever reason, is forgotten: the push that comes after looks whether the
registry has the blob, sends what it has not, with all attempts, and tells what is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerstore.errors import StoreError

if TYPE_CHECKING:
    from layerstore.digest import Digest
    from layerstore.growing import Growing
    from layerstore.reference import Reference
    from layerstore.registry.client import Client

Report = Callable[[str, int, int | None, bool], None]


JOBS = 4
"""Transfers at a time."""

_PATIENCE = 2.0
"""Seconds that a connection which takes nothing is given when its upload is given up."""


class _Upload:
    """One blob on its way, in a thread of its own."""

    def __init__(self, growing: Growing, send: Callable[[_Upload], None]) -> None:
        self.growing = growing
        self.thread = threading.Thread(target=send, args=(self,), name="upload", daemon=True)
        self.arrived = False


class Ahead:
    """Sends growing blobs to the repository of `reference`, `JOBS` at a time; `client` makes what speaks to it.

    As a context manager, it gives up what is still on its way.
    """

    def __init__(self, client: Callable[[], Client], reference: Reference) -> None:
        self._make = client
        self._reference = reference
        self._slots = threading.BoundedSemaphore(JOBS)
        self._making = threading.Lock()
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._uploads: list[_Upload] = []
        self._closed = False
        self._preparing: threading.Thread | None = None
        self.report: Report | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            uploads = list(self._uploads)
        for upload in uploads:
            upload.growing.cancel()
        for thread in (self._preparing, *(upload.thread for upload in uploads)):
            if thread is not None:
                thread.join(_PATIENCE)

    def prepare(self) -> None:
        """Make the client in a thread, beside what goes before the first upload: its modules take a while to load."""
        self._preparing = threading.Thread(target=self._prepare, name="prepare push", daemon=True)
        self._preparing.start()

    def _prepare(self) -> None:
        try:
            self.client()
        except StoreError:
            return  # whoever asks for the client next is told

    def client(self) -> Client:
        """Return the client, made at the first call. Raises what making it raises."""
        with self._making:
            if self._client is None:
                self._client = self._make()
            return self._client

    def follow(self, growing: Growing) -> None:
        """Begin to send a blob, in a thread of its own, which closes it."""
        upload = _Upload(growing, self._send)
        with self._lock:
            if self._closed:
                growing.cancel()
            self._uploads.append(upload)
            upload.thread.start()

    def arrived(self, digest: Digest) -> bool:
        """Wait for the blob if it is on its way; tell whether the registry has got it, through here. RegistryError."""
        with self._lock:
            found = [upload for upload in self._uploads if _is(upload, digest)]
        for upload in found:
            if upload.thread.is_alive():
                client = self.client()
                if client.has_blob(client.destination(self._reference), digest):
                    upload.growing.cancel()  # somebody else had sent it
                    return True
                upload.thread.join()
            if upload.arrived:
                return True
        return False

    def _send(self, upload: _Upload) -> None:
        growing = upload.growing
        try:
            with self._slots:
                client = self.client()
                endpoint = client.destination(self._reference)
                client.stream(endpoint, growing.open, growing.digest, count=lambda done: self._count(growing, done))
            upload.arrived = True
        except StoreError:
            return
        finally:
            growing.close()

    def _count(self, growing: Growing, done: int) -> None:
        whole = growing.whole
        if whole is not None and self.report is not None:
            digest, size = whole
            self.report(str(digest), done, size, False)  # noqa: FBT003 - the shape of Progress


def _is(upload: _Upload, digest: Digest) -> bool:
    whole = upload.growing.whole
    return whole is not None and whole[0] == digest
