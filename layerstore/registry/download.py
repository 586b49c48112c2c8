"""Downloads of blobs: streams that outlive the connections they come over."""

from __future__ import annotations

from collections.abc import Callable

from urllib3.exceptions import HTTPError

from layerstore.oci import Descriptor
from layerstore.registry.config import Endpoint
from layerstore.registry.errors import RegistryError
from layerstore.registry.http import Response
from layerstore.registry.session import Session

_PROGRESS = 1 << 20
"""A download that broke off is given a fresh set of attempts once it has got this many bytes further."""
_READ = 1 << 18

Counter = Callable[[int], None]
"""Told how many bytes of a transfer are done; after a restart that may be less than before."""


class BlobReader:
    """The content of one blob, read once from front to back; goes on where it was when the connection breaks."""

    def __init__(self, session: Session, endpoint: Endpoint, blob: Descriptor, count: Counter) -> None:
        self._session = session
        self._endpoint = endpoint
        self._blob = blob
        self._count = count
        self._response: Response | None = None
        self._at = 0
        self._failures = 0
        self._failed_at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, all that remain if negative, none at the end. Raises RegistryError."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_READ), b""))
        while self._at < self._blob.size:
            self._session.http.check()
            try:
                data = self._next(min(size, self._blob.size - self._at))
            except (HTTPError, OSError) as error:
                self._failed(error)
                continue
            if data:
                self._at += len(data)
                self._count(self._at)
                if self._at == self._blob.size:
                    self._end()
                return data
            self._failed(None)
        return b""

    def close(self) -> None:
        """Give up the connection if the content was not read to its end."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _next(self, size: int) -> bytes:
        if self._response is None:
            response = self._response = self._open()
            skip = self._at
            if response.status == 206:
                begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
                if begins.strip() != str(self._at):
                    raise HTTPError(f"asked for bytes from {self._at} on, got them from {begins or 'nowhere'} on")
                skip = 0
            while skip > 0:
                dropped = len(response.read(min(_READ, skip), decode_content=False))
                if not dropped:
                    return b""
                skip -= dropped
        return self._response.read(size, decode_content=False)

    def _open(self) -> Response:
        """Ask for what is still missing; the answer is 206, or 200 with the whole content."""
        endpoint = self._endpoint
        path = f"/v2/{endpoint.repository}/blobs/{self._blob.digest}"
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        scopes = (f"repository:{endpoint.repository}:pull",)
        response = self._session.call(endpoint, "GET", path, scopes, headers=headers)
        self._session.expect(response, (200, 206), endpoint, f"read a blob of {endpoint}")
        return response

    def _failed(self, error: Exception | None) -> None:
        """Note that the connection broke (`error`) or the content ended too early (None); wait, or give up."""
        self.close()
        if self._at - self._failed_at >= _PROGRESS:
            self._failures = 0
        self._failed_at = self._at
        self._failures += 1
        http = self._session.http
        if self._failures >= http.attempts:
            raise RegistryError(
                f"{self._endpoint} sent {self._at} of {self._blob.size} bytes of {self._blob.digest} and broke off",
                hint="try again; what was fetched whole is kept",
            ) from error
        http.wait(self._failures)

    def _end(self) -> None:
        """Make sure that nothing follows, which also lets the connection be used again."""
        response, self._response = self._response, None
        assert response is not None
        try:
            more = response.read(1, decode_content=False)
        except (HTTPError, OSError):
            more = b""
        response.close()
        if more:
            raise RegistryError(f"{self._endpoint} sends more than the {self._blob.size} bytes of {self._blob.digest}")
