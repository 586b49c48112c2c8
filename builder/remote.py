"""Files that ADD fetches by HTTP(S): downloaded once, then only asked for whether they have changed.

A download is a blob of the store; what its server said of it is a cache record under the URL, so gc can take either.
It knows no operations and no layers. RFC 9110 sections 8.8 (validators) and 13 (conditional requests).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError, ResponseError, SSLError

from builder.cachekey import key_of
from builder.errors import BuildError, Canceled
from builder.selection import CopyError
from builder.turns import turn
from builder.version import VERSION
from layerstore import CacheKey, CacheRecord, CorruptContent, Digest, Stamp, Store
from layerstore.registry.http import proxy_for

if TYPE_CHECKING:
    from builder.ops import RemoteFile

_ATTEMPTS = 4
_BACKOFF = 0.4
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
_REDIRECTS = 10
_CHUNK = 1 << 17
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_EVENT_SECONDS = 0.1
_STATUS_HINTS = {
    401: "give the credentials as a secret: --secret id=HTTP_AUTH_TOKEN_<host>,src=FILE",
    403: "the server refuses it; credentials can be given: --secret id=HTTP_AUTH_TOKEN_<host>,src=FILE",
    404: "check the URL: the server has nothing there",
    410: "check the URL: the server has nothing there any more",
}
_IMMUTABLE = 1 << 62  # blobs never change, so their digests can be remembered whenever they were read

Report = Callable[[int, int | None], None]
"""Is told of a transfer: bytes so far, bytes in all (None where unknown); it is over when the two are equal."""


class Download(NamedTuple):
    """A file in the store, with the time it gets: Last-Modified in nanoseconds since the epoch, 0 if there is none."""

    file: Path
    mtime_ns: int


class _Known(NamedTuple):
    """What is remembered of a URL: the validators of its last answer, empty for none, and what the content was."""

    etag: str
    modified: str
    digest: str
    size: int
    mtime_ns: int


class Downloads:
    """Fetches files for one build; safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        *,
        secrets: Mapping[str, bytes] = MappingProxyType({}),
        proxies: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`secrets` may hold HTTP_AUTH_HEADER_<host> or HTTP_AUTH_TOKEN_<host>; `proxies` are like those of registries.

        A host has its port, if the URL gives one.
        """
        self._store = store
        self._secrets = secrets
        self._proxies = proxies
        self._done: dict[str, _Known] = {}
        self._canceled = threading.Event()
        self._answers: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()

    def fetch(self, remote: RemoteFile, report: Report) -> Download:
        """Return the file at `remote`, downloaded unless what the store has of it is still good.

        One with a checksum is not even asked for once it is here. CopyError at its word if it cannot be had or has
        another digest than it must have; Canceled.
        """
        key = key_of((("download", remote.url),))
        with turn(self._store, f"url-{key.hex}", self._canceled.is_set):
            known = self._done.get(remote.url) or self._recall(key)
            if known is None or not (remote.url in self._done or remote.checksum == known.digest):
                fetched = self._request(remote, known, report)
                if fetched != known:
                    self._store.cache.put(CacheRecord(key=key, result=fetched._asdict()))
                known = fetched
            _verify(remote, known.digest)
            self._done[remote.url] = known
        return Download(self._store.blobs.path(Digest(known.digest)), known.mtime_ns)

    def cancel(self) -> None:
        """Let every `fetch` end soon, with Canceled."""
        self._canceled.set()
        with self._lock:
            answers = list(self._answers)
        for answer in answers:
            # A read that waits for a silent server ends; one that is over has nothing to end.
            with contextlib.suppress(AttributeError, RuntimeError, ValueError, OSError):
                answer.shutdown()

    # -- what is here ---------------------------------------------------------------------------------------------

    def _recall(self, key: CacheKey) -> _Known | None:
        """Return what is known of a URL whose content is in the store and undamaged."""
        for record in self._store.cache.find(key):
            known = _Known(**record.result)
            if self._is_whole(Digest(known.digest), known.size):
                return known
        return None

    def _is_whole(self, digest: Digest, size: int) -> bool:
        """Say whether a blob is what it should be; it is read again only if its file has been touched."""
        if self._store.blobs.size(digest) != size:
            return False
        try:
            stamp = Stamp.of(os.stat(self._store.blobs.path(digest)))
            if self._store.files.lookup([stamp]) == [digest.raw]:
                return True
            with self._store.blobs.open(digest) as blob:
                while blob.read(1 << 20):
                    pass
        except (OSError, CorruptContent):
            self._store.blobs.remove(digest)
            return False
        self._store.files.remember([(stamp, digest.raw)], scanned_ns=_IMMUTABLE)
        return True

    # -- asking ---------------------------------------------------------------------------------------------------

    def _request(self, remote: RemoteFile, known: _Known | None, report: Report) -> _Known:
        """Ask for the file, again if the connection or the server has a bad moment."""
        for attempt in range(1, _ATTEMPTS + 1):
            self._check()
            try:
                with self._asked(remote.url, known) as answer:
                    if answer.status not in _TEMPORARY or attempt == _ATTEMPTS:
                        return self._take(remote, known, answer, report)
            except HTTPError as error:
                self._check()
                if attempt == _ATTEMPTS or _is_final(error):
                    raise _unreachable(remote, error) from error
            self._canceled.wait(_BACKOFF * 2 ** (attempt - 1))
        raise AssertionError("BUG: the last attempt returns or raises")

    @contextlib.contextmanager
    def _asked(self, url: str, known: _Known | None) -> Iterator[urllib3.BaseHTTPResponse]:
        """Give an answer that `cancel` can cut off while it is read."""
        answer = self._ask(url, known)
        with self._lock:
            self._answers.add(answer)
        try:
            yield answer
        finally:
            with self._lock:
                self._answers.discard(answer)
            answer.close()

    def _ask(self, url: str, known: _Known | None) -> urllib3.BaseHTTPResponse:
        """Send the request, with validators of what is `known`; redirects are followed."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        # Content comes as it is stored: what is kept and hashed is the file, not a coding of it for the way.
        headers = {"User-Agent": f"pybuild/{VERSION}", "Accept-Encoding": "identity", **self._credentials(url, host)}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        if known is not None and known.modified:
            headers["If-Modified-Since"] = known.modified
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS)
        proxy = proxy_for(self._proxies, parts.scheme, host)
        pool = urllib3.PoolManager(timeout=timeout) if proxy is None else _proxied(proxy, timeout)
        retries = urllib3.Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=_REDIRECTS, respect_retry_after_header=False
        )
        plain = parts._replace(netloc=host, fragment="").geturl()
        return pool.request("GET", plain, headers=headers, retries=retries, preload_content=False)

    def _credentials(self, url: str, host: str) -> dict[str, str]:
        """The Authorization header for `host`: from a secret, or from the URL itself."""
        for kind, scheme in (("HEADER", ""), ("TOKEN", "Bearer ")):
            name = f"HTTP_AUTH_{kind}_{host}"
            if (secret := self._secrets.get(name)) is not None:
                value = secret.decode("latin-1").strip()
                if not value.isprintable():
                    raise BuildError(f"secret {name} is no header: it has control characters", hint="give one line")
                return {"Authorization": scheme + value}
        parts = urlsplit(url)
        if parts.username is None:
            return {}
        return urllib3.make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")

    def _take(
        self, remote: RemoteFile, known: _Known | None, answer: urllib3.BaseHTTPResponse, report: Report
    ) -> _Known:
        """Return what the answer says of the file, whose content is in the store then."""
        if answer.status == 304 and known is not None:
            return known
        if answer.status != 200:
            raise CopyError(
                remote.word,
                f"{shown(remote.url)}: invalid response status {answer.status}",
                hint=_STATUS_HINTS.get(answer.status, "try again later, or give another URL"),
            )
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isascii() and length.isdigit() else None
        last = 0.0
        with self._store.blobs.new() as blob:
            while data := answer.read(_CHUNK, decode_content=False):
                self._check()
                blob.write(data)
                if blob.size != total and time.monotonic() - last >= _EVENT_SECONDS:
                    last = time.monotonic()
                    report(blob.size, total)
            self._check()  # a download that was cut off by `cancel` may look complete
            _verify(remote, blob.digest)
        report(blob.size, blob.size)
        stamp = Stamp.of(os.stat(self._store.blobs.path(blob.digest)))
        self._store.files.remember([(stamp, blob.digest.raw)], scanned_ns=_IMMUTABLE)
        modified = answer.headers.get("Last-Modified", "")
        return _Known(
            etag=answer.headers.get("ETag", ""),
            modified=modified if _is_strong(modified, answer.headers.get("Date", "")) else "",
            digest=str(blob.digest),
            size=blob.size,
            mtime_ns=max(0, _seconds(modified) or 0) * 1_000_000_000,
        )

    def _check(self) -> None:
        if self._canceled.is_set():
            raise Canceled("canceled")


def shown(url: str) -> str:
    """Return a URL without the password that may be in it."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}").geturl()


def _verify(remote: RemoteFile, digest: str) -> None:
    """Raise CopyError if the content is not what the checksum says."""
    if remote.checksum is not None and remote.checksum != digest:
        raise CopyError(
            remote.word,
            f"digest mismatch {digest}: {remote.checksum}",
            hint="the file is not the one that --checksum names: find out why, then give the checksum of the right one",
        )


def _proxied(proxy: str, timeout: urllib3.Timeout) -> urllib3.ProxyManager:
    user = urlsplit(proxy)
    headers = None
    if user.username:
        headers = urllib3.make_headers(proxy_basic_auth=f"{unquote(user.username)}:{unquote(user.password or '')}")
    return urllib3.ProxyManager(proxy, proxy_headers=headers, timeout=timeout)


def _is_final(error: HTTPError) -> bool:
    """Say whether it would be the same the next time: a bad certificate, a loop of redirects, no web address."""
    reason = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(reason, SSLError):
        return "CERTIFICATE" in str(reason).upper()
    return isinstance(reason, ResponseError | LocationValueError)


def _unreachable(remote: RemoteFile, error: HTTPError) -> CopyError:
    """Say in words why there is no whole answer."""
    outer = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(outer, SSLError):
        # OpenSSL's text is "[SSL: CODE] words (_ssl.c:123)", perhaps in brackets and quotes of those who passed it on.
        words = str(outer).rpartition("] ")[2].partition(" (_ssl.c")[0]
        return CopyError(
            remote.word,
            f"cannot download {shown(remote.url)} over TLS: {words}",
            hint="check the URL and the server's certificate; SSL_CERT_FILE names authorities to trust",
        )
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "reason", None) or cause.__cause__, BaseException):
        cause = inner
    reason = getattr(cause, "strerror", None) or str(cause).rpartition(": ")[2].strip(" .()'\"") or type(cause).__name__
    return CopyError(
        remote.word, f"cannot download {shown(remote.url)}: {reason}", hint="check the URL, the network and the proxy"
    )


def _seconds(date: str) -> int | None:
    """Return the time of an HTTP date in seconds since the epoch, None if it is none."""
    try:
        then = parsedate_to_datetime(date)
        return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def _is_strong(modified: str, date: str) -> bool:
    """Say whether Last-Modified can tell versions apart (RFC 9110 section 8.8.2.2): it is older than the answer."""
    then, now = _seconds(modified), _seconds(date)
    return then is not None and now is not None and then < now
