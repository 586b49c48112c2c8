"""What can be asked of a registry (OCI distribution-spec): manifests, blobs, uploads, and whether credentials are good.

Knows nothing of the store: content goes in and out as streams of a checked size. Digests are checked where content is
kept, except those of manifests and configs, which are read whole here.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from urllib3.exceptions import HTTPError

from layerstore.digest import Digest
from layerstore.oci import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from layerstore.reference import Reference
from layerstore.registry.auth import AuthFiles, Credentials, CredentialSource
from layerstore.registry.config import Endpoint, Registries
from layerstore.registry.download import BlobReader, Counter
from layerstore.registry.errors import AuthError, RegistryError, Unreachable
from layerstore.registry.http import Body, Network, Response, discard, read_limited, unreachable
from layerstore.registry.session import Session

MANIFEST_LIMIT = 4 << 20
"""The largest manifest or index that is read, as in distribution."""
CONFIG_LIMIT = 16 << 20

_ACCEPT = {"Accept": ", ".join((OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX))}
_OCTETS = {"Content-Type": "application/octet-stream"}
_T = TypeVar("_T")


class GivenCredentials:
    """Credentials for one registry that are in no file yet: those of somebody who logs in."""

    def __init__(self, registry: str, credentials: Credentials) -> None:
        self._registry = registry
        self._credentials = credentials

    def find(self, registry: str, _repository: str = "", /) -> Credentials | None:
        """Return the credentials if they are for `registry`."""
        return self._credentials if registry == self._registry else None


class Document(NamedTuple):
    """A manifest or index as a registry sent it, its digest verified where the digest was asked for."""

    data: bytes
    media_type: str
    digest: Digest


class Client:
    """Speaks to registries for one command; safe to use from several threads, and a context manager that hangs up."""

    def __init__(
        self,
        registries: Registries | None = None,
        credentials: CredentialSource | None = None,
        *,
        network: Network | None = None,
    ) -> None:
        self._registries = registries or Registries()
        self._session = Session(network or Network(), credentials or AuthFiles())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; transfers that still run fail."""
        self._session.http.close()

    def stop(self) -> None:
        """Let transfers in other threads give up soon."""
        self._session.http.stop()

    def fetch(self, reference: Reference) -> tuple[Endpoint, Document]:
        """Return the manifest or index that `reference` names, and the first place that has it: mirrors come first.

        Raises RegistryError, of the last place where there are several.
        """
        return self._first(reference, lambda endpoint: self.manifest(endpoint, reference.target))

    def resolve(self, reference: Reference) -> Digest:
        """Return the digest of the manifest or index that `reference` names, by one HEAD. Raises RegistryError."""
        return self._first(reference, lambda endpoint: self.head(endpoint, reference.target))[1]

    def destination(self, reference: Reference) -> Endpoint:
        """Return where an image called `reference` is pushed to."""
        return self._registries.destination(reference)

    def login(self, registry: str) -> None:
        """Make sure that `registry` accepts the credentials. Raises AuthError, Unreachable or RegistryError."""
        endpoint = self._registries.server(registry)
        response = self._session.call(endpoint, "GET", "/v2/", ())
        self._session.expect(response, (200,), endpoint, f"log in to {registry}")
        discard(response)

    def manifest(self, endpoint: Endpoint, target: str) -> Document:
        """Return a manifest or index by tag or digest. Raises RegistryError; UnknownImage if there is none."""
        what = f"read {_named(endpoint, target)}"
        for attempt in itertools.count(1):
            response = self._session.call(
                endpoint, "GET", f"/v2/{endpoint.repository}/manifests/{target}", _pull(endpoint), headers=_ACCEPT
            )
            self._session.expect(response, (200,), endpoint, what)
            try:
                data = read_limited(response, MANIFEST_LIMIT, f"the manifest of {_named(endpoint, target)}")
                break
            except HTTPError as error:
                if attempt >= self._session.http.attempts:
                    raise unreachable(f"//{endpoint.host}", error) from error
                self._session.http.wait(attempt)
        digest = Digest.of(data)
        said = response.headers.get("Docker-Content-Digest", digest)
        wanted = target if ":" in target else said
        if wanted.startswith("sha256:") and wanted != digest:
            raise RegistryError(
                f"{endpoint} sent a manifest that is not {wanted} but {digest}",
                hint="a proxy or the registry damages content; do not use it",
            )
        return Document(data=data, media_type=response.headers.get("Content-Type", ""), digest=digest)

    def head(self, endpoint: Endpoint, target: str) -> Digest:
        """Return the digest of a manifest or index by tag or digest. RegistryError; UnknownImage if none is there."""
        path = f"/v2/{endpoint.repository}/manifests/{target}"
        response = self._session.call(endpoint, "HEAD", path, _pull(endpoint), headers=_ACCEPT)
        if response.status in (404, 405) or "Docker-Content-Digest" not in response.headers:
            # Registries need not send the header, and HEAD has no text that says what is wrong: ask in full.
            discard(response)
            return self.manifest(endpoint, target).digest
        self._session.expect(response, (200,), endpoint, f"read {_named(endpoint, target)}")
        discard(response)
        return _digest(response.headers["Docker-Content-Digest"], endpoint)

    def put_manifest(self, endpoint: Endpoint, target: str, data: bytes, media_type: str) -> Digest:
        """Write a manifest or index whose blobs are there, by tag or digest; return its digest. RegistryError."""
        path = f"/v2/{endpoint.repository}/manifests/{target}"
        response = self._session.call(
            endpoint, "PUT", path, _push(endpoint), body=Body.of(data), headers={"Content-Type": media_type}
        )
        self._session.expect(response, (200, 201, 202), endpoint, f"write {_named(endpoint, target)}")
        discard(response)
        digest = Digest.of(data)
        said = response.headers.get("Docker-Content-Digest", digest)
        if said.startswith("sha256:") and said != digest:
            raise RegistryError(f"{endpoint} stored a manifest other than the one it was sent: {said}, not {digest}")
        return digest

    def read_blob(self, endpoint: Endpoint, blob: Descriptor, *, limit: int = CONFIG_LIMIT) -> bytes:
        """Return a small blob whole, its digest verified. Raises RegistryError."""
        if blob.size > limit:
            raise RegistryError(f"{endpoint} has a config of {blob.size} bytes, which is too large")
        with contextlib.closing(self.open_blob(endpoint, blob)) as stream:
            data = b"".join(iter(lambda: stream.read(1 << 18), b""))
        if Digest.of(data) != blob.digest:
            raise RegistryError(f"{endpoint} sent content that is not {blob.digest}")
        return data

    def open_blob(self, endpoint: Endpoint, blob: Descriptor, *, count: Counter | None = None) -> BlobReader:
        """Return a stream of a blob's content, as long as its descriptor says, that survives broken connections.

        The digest is for the reader to verify. The request is made at the first read.
        """
        return BlobReader(self._session, endpoint, blob, count or _ignore)

    def has_blob(self, endpoint: Endpoint, digest: Digest) -> bool:
        """Tell whether a repository that is pushed to has a blob. Raises RegistryError."""
        response = self._session.call(endpoint, "HEAD", f"/v2/{endpoint.repository}/blobs/{digest}", _push(endpoint))
        if response.status != 404:
            self._session.expect(response, (200,), endpoint, f"look for a blob in {endpoint}")
        discard(response)
        return response.status == 200

    def mount_blob(self, endpoint: Endpoint, digest: Digest, source: str) -> bool:
        """Take a blob over from the repository `source` of the same registry; tell whether that could be done."""
        query = urlencode({"mount": digest, "from": source})
        scopes = (*_push(endpoint), f"repository:{source}:pull")
        try:
            response = self._session.call(endpoint, "POST", f"/v2/{endpoint.repository}/blobs/uploads/?{query}", scopes)
        except AuthError:
            return False  # The other repository may be closed to us, which is no reason not to push.
        discard(response)
        if response.status == 202:
            self._cancel(endpoint, response.headers.get("Location", ""))
        return response.status == 201

    def upload(
        self,
        endpoint: Endpoint,
        digest: Digest,
        size: int,
        content: Callable[[], contextlib.AbstractContextManager[BinaryIO]],
        *,
        count: Counter | None = None,
    ) -> None:
        """Send a blob of `size` bytes in one request (POST, then PUT). `content` opens it anew for each attempt.

        Raises RegistryError.
        """
        body = Body(size=size, open=lambda: _counted(content, count or _ignore, self._session.http.check))
        what = f"upload a blob to {endpoint}"
        for attempt in itertools.count(1):
            last = attempt >= self._session.http.attempts
            try:
                response = self._put(endpoint, self._begin(endpoint, what), digest, body)
            except Unreachable:
                if last:
                    raise
            else:
                # 404 and 416 are what registries say when they lost an upload that had begun.
                if last or response.status not in (404, 408, 416, 429, 500, 502, 503, 504):
                    self._session.expect(response, (200, 201, 204), endpoint, what)
                    discard(response)
                    return
                discard(response)
            self._session.http.wait(attempt)

    def stream(
        self,
        endpoint: Endpoint,
        content: Callable[[], contextlib.AbstractContextManager[BinaryIO]],
        digest: Callable[[], Digest],
        *,
        count: Counter | None = None,
    ) -> None:
        """Send a blob whose size and digest only its end tells (POST, PATCH in chunks, PUT), in one attempt.

        `content` opens it, `digest` is asked when all of it was read; what they raise ends the upload. RegistryError.
        """
        body = Body(size=None, open=lambda: _counted(content, count or _ignore, self._session.http.check))
        what = f"upload a blob to {endpoint}"
        url = self._begin(endpoint, what)  # credentials are asked for here, before anything is sent
        try:
            response = self._session.call(
                endpoint, "PATCH", url, _push(endpoint), body=body, headers=_OCTETS, attempts=1
            )
            self._session.expect(response, (200, 201, 202, 204), endpoint, what)
            discard(response)
            url = self._location(endpoint, response.headers.get("Location", url))
            response = self._put(endpoint, url, digest(), Body.of(b""))
            self._session.expect(response, (200, 201, 204), endpoint, what)
            discard(response)
        except BaseException:
            self._cancel(endpoint, url)
            raise

    def _put(self, endpoint: Endpoint, url: str, digest: Digest, body: Body) -> Response:
        """End an upload with its digest and what is still to be sent of it."""
        query = [*parse_qsl(urlsplit(url).query, keep_blank_values=True), ("digest", str(digest))]
        target = urlunsplit(urlsplit(url)._replace(query=urlencode(query)))
        return self._session.call(endpoint, "PUT", target, _push(endpoint), body=body, headers=_OCTETS, attempts=1)

    def _begin(self, endpoint: Endpoint, what: str) -> str:
        """Begin an upload and return the URL it goes to."""
        response = self._session.call(
            endpoint, "POST", f"/v2/{endpoint.repository}/blobs/uploads/", _push(endpoint), body=Body.of(b"")
        )
        self._session.expect(response, (201, 202), endpoint, what)
        discard(response)
        return self._location(endpoint, response.headers.get("Location", ""))

    def _location(self, endpoint: Endpoint, location: str) -> str:
        if not location:
            raise RegistryError(f"{endpoint.registry} does not say where an upload goes to")
        base = self._session.base(endpoint)
        url = urljoin(base, location)
        parts, own = urlsplit(url), urlsplit(base)
        if parts.hostname == own.hostname and (parts.scheme, own.scheme) == ("http", "https"):
            # A registry behind a proxy that ends TLS does not know that it is spoken to over TLS.
            return urlunsplit(parts._replace(scheme=own.scheme, netloc=own.netloc))
        if parts.scheme == "http" and not endpoint.insecure:
            raise RegistryError(f"{endpoint.registry} wants an upload sent to {url}, which is not encrypted")
        return url

    def _cancel(self, endpoint: Endpoint, location: str) -> None:
        """Give back an upload that a mount began but that is not used; that it cannot be is of no matter."""
        with contextlib.suppress(RegistryError):
            discard(
                self._session.call(endpoint, "DELETE", self._location(endpoint, location), _push(endpoint), attempts=1)
            )

    def _first(self, reference: Reference, ask: Callable[[Endpoint], _T]) -> tuple[Endpoint, _T]:
        """Return the first place that answers what is asked, with its answer; mirrors that do not are passed over."""
        places = self._registries.sources(reference)
        refusals: list[str] = []
        for endpoint in places[:-1]:
            try:
                return endpoint, ask(endpoint)
            except RegistryError as error:
                refusals.append(error.message)
        try:
            return places[-1], ask(places[-1])
        except RegistryError as error:
            if refusals:
                error.hint = f"its mirrors failed as well: {'; '.join(refusals)}"
            raise


class _Counting:
    """A stream that tells how much of it was read."""

    def __init__(self, stream: BinaryIO, count: Counter, check: Callable[[], None]) -> None:
        self._stream = stream
        self._count = count
        self._check = check
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        self._check()
        data = self._stream.read(size)
        self._done += len(data)
        self._count(self._done)
        return data


@contextlib.contextmanager
def _counted(
    content: Callable[[], contextlib.AbstractContextManager[BinaryIO]], count: Counter, check: Callable[[], None]
) -> Iterator[BinaryIO]:
    with content() as stream:
        # urllib3 asks a body for nothing but read().
        yield cast("BinaryIO", _Counting(stream, count, check))


def _ignore(_done: int) -> None:
    """Count nothing."""


def _pull(endpoint: Endpoint) -> tuple[str, ...]:
    return (f"repository:{endpoint.repository}:pull",)


def _push(endpoint: Endpoint) -> tuple[str, ...]:
    return (f"repository:{endpoint.repository}:pull,push",)


def _named(endpoint: Endpoint, target: str) -> str:
    return f"{endpoint}{'@' if ':' in target else ':'}{target}"


def _digest(text: str, endpoint: Endpoint) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError:
        raise RegistryError(f"{endpoint.registry} gives {text!r} as a digest") from None
