"""Requests that survive bad networks: pooling, TLS, proxies, retries with backoff, redirects.

Knows HTTP (RFC 9110), not registries: what an answer means is the caller's business. Importing this loads urllib3.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import itertools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from layerstore.registry.config import is_loopback
from layerstore.registry.errors import RegistryError, Unreachable

Response = urllib3.BaseHTTPResponse

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_LONGEST_WAIT = 60.0
_CONNECT_ATTEMPTS = 3
_BLOCK = 1 << 17


class Network(NamedTuple):
    """How to reach registries.

    `attempts` is how often a request is made before it fails; the waits between them start at `backoff` seconds and
    double. `timeout` (seconds) is the longest silence. `proxies` maps `http` and `https` to proxy URLs and `no` to the
    hosts that are reached directly, separated by commas. `certificates` are directories with one directory per host,
    holding `*.crt` authorities and `*.cert` and `*.key` client certificates (containers-certs.d(5)).
    """

    attempts: int = 6
    backoff: float = 0.4
    connect_timeout: float = 15.0
    timeout: float = 60.0
    connections: int = 8
    proxies: Mapping[str, str] | None = None
    certificates: Sequence[Path] = ()
    user_agent: str = "pybuild"


class Body(NamedTuple):
    """What a request sends: `open` gives the bytes anew for every attempt; `size` is None if only the end tells it."""

    size: int | None
    open: Callable[[], contextlib.AbstractContextManager[BinaryIO]]

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the body that is `data`."""
        return cls(size=len(data), open=lambda: io.BytesIO(data))


class Http:
    """The connections of one client; safe to use from several threads."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._pools: dict[tuple[str, str, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._answers: weakref.WeakSet[Response] = weakref.WeakSet()

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        insecure: bool,
        body: Body | None = None,
        attempts: int | None = None,
        probing: bool = False,
    ) -> Response:
        """Make a request and return the answer, whatever its status, its content unread.

        Connections that fail and temporary statuses are tried again; with `probing` not those where nobody listens or
        speaks TLS. Redirects are followed; another origin that one leads to does not get the Authorization header.
        Raises Unreachable where there is no answer.
        """
        limit = attempts or self._network.attempts
        for attempt in itertools.count(1):
            self.check()
            try:
                response = self._follow(method, url, headers, body, insecure=insecure)
            except HTTPError as error:
                if attempt >= _allowed(error, limit, probing=probing):
                    raise unreachable(url, error) from error
                self.wait(attempt)
                continue
            if response.status not in _TEMPORARY or attempt >= limit:
                return response
            after = _retry_after(response)
            discard(response)
            self.wait(attempt, at_least=after)
        raise AssertionError("BUG: the loop has no end")

    def wait(self, attempt: int, *, at_least: float = 0.0) -> None:
        """Wait before the next attempt: twice as long each time, or as long as the registry asks, up to a minute."""
        seconds = max(self._network.backoff * 2 ** (attempt - 1), at_least)
        self._stopped.wait(min(seconds, _LONGEST_WAIT))
        self.check()

    def check(self) -> None:
        """Raise RegistryError if `stop` was called."""
        if self._stopped.is_set():
            raise RegistryError("the transfer was canceled")

    @property
    def attempts(self) -> int:
        """How often a request is made before it fails."""
        return self._network.attempts

    def stop(self) -> None:
        """Let whoever waits or reads give up at once; for another thread that has no use for the result any more."""
        self._stopped.set()
        with self._lock:
            answers = list(self._answers)
        for answer in answers:
            # A read that waits for a silent registry ends; one that is over, or behind a proxy, has nothing to end.
            with contextlib.suppress(AttributeError, RuntimeError, ValueError, OSError):
                answer.shutdown()  # new in urllib3 2.3

    def close(self) -> None:
        """Give up all connections."""
        self.stop()
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, *, insecure: bool
    ) -> Response:
        sent = {"User-Agent": self._network.user_agent, **headers}
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._once(method, url, sent, body, insecure=insecure)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                with self._lock:
                    self._answers.add(response)
                return response
            discard(response)
            target = urljoin(url, location)
            if urlsplit(target).scheme not in ("http", "https"):
                raise RegistryError(f"{url} redirects to {target}, which is no web address")
            if urlsplit(target).scheme == "http" and not insecure:
                raise RegistryError(f"{url} redirects to {target}, which is not encrypted")
            if origin(target) != origin(url):
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
            if response.status == 303 and method != "HEAD":
                method, body = "GET", None
            url = target
        raise RegistryError(f"{url} redirects again and again")

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, *, insecure: bool
    ) -> Response:
        pool = self._pool(url, insecure=insecure)
        if body is None:
            return pool.request(method, url, headers=headers, preload_content=False, redirect=False, retries=False)
        length = {"Content-Length": str(body.size)} if body.size is not None else {}
        with body.open() as stream:
            # Without a length, urllib3 sends what it reads in chunks (RFC 9112, 7.1).
            return pool.request(
                method,
                url,
                headers={**headers, **length},
                body=stream,
                preload_content=False,
                redirect=False,
                retries=False,
            )

    def _pool(self, url: str, *, insecure: bool) -> urllib3.PoolManager:
        """Return the pool for the host of `url`: certificates and proxies differ between hosts."""
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc, insecure)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(parts.scheme, parts.netloc, insecure=insecure)
            return self._pools[key]

    def _new_pool(self, scheme: str, netloc: str, *, insecure: bool) -> urllib3.PoolManager:
        options: dict[str, object] = {
            "maxsize": self._network.connections,
            "block": False,
            "blocksize": _BLOCK,
            "timeout": urllib3.Timeout(connect=self._network.connect_timeout, read=self._network.timeout),
        }
        if scheme == "https":
            options.update(self._tls(netloc, insecure=insecure))
        proxy = proxy_for(self._network.proxies or {}, scheme, netloc)
        if proxy is None:
            return urllib3.PoolManager(2, **options)  # type: ignore[arg-type]  # urllib3 types each option by itself
        auth = urlsplit(proxy)
        headers = None
        if auth.username:
            headers = urllib3.make_headers(proxy_basic_auth=f"{auth.username}:{auth.password or ''}")
        return urllib3.ProxyManager(proxy, 2, proxy_headers=headers, **options)  # type: ignore[arg-type]

    def _tls(self, netloc: str, *, insecure: bool) -> dict[str, object]:
        options: dict[str, object] = {}
        authorities: list[Path] = []
        for directory in self._network.certificates:
            host = directory / netloc
            if not host.is_dir():
                continue
            files = sorted(host.iterdir())
            authorities += [file for file in files if file.suffix == ".crt"]
            for file in files:
                key = file.with_suffix(".key")
                if file.suffix == ".cert" and key in files:
                    options.update(cert_file=str(file), key_file=str(key))
        if insecure:
            # Asked for by registries.conf or implied by loopback: the warning would repeat what the user decided.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            options["cert_reqs"] = "CERT_NONE"
        elif authorities:
            text = "".join(_read_certificate(file) for file in authorities)
            options["ssl_context"] = _trusting(text)
        return options


def origin(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port) of a URL."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def discard(response: Response) -> None:
    """Give the connection back if little is left to read, else close it."""
    with contextlib.suppress(HTTPError, OSError):
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) <= 1 << 16:
            response.drain_conn()
    response.close()


def read_limited(response: Response, limit: int, what: str) -> bytes:
    """Return the content of an answer. RegistryError if it has more than `limit` bytes, HTTPError if it breaks off."""
    try:
        data = response.read(limit + 1, decode_content=False)
        while len(data) <= limit and (more := response.read(limit + 1 - len(data), decode_content=False)):
            data += more
        if len(data) > limit:
            raise RegistryError(f"{what} is larger than {limit >> 20} MiB")
        return data
    finally:
        # A connection whose answer was read to its end is back in the pool already; any other one is of no more use.
        response.close()


def unreachable(url: str, error: HTTPError) -> Unreachable:
    """Say in words why nobody answers at `url`."""
    host = urlsplit(url).netloc
    cause: BaseException = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__) is not None and isinstance(inner, BaseException):
        cause = inner
    reason = getattr(cause, "strerror", None) or str(cause).rpartition(": ")[2].strip(" .()'\"") or type(cause).__name__
    hint = "check the name of the registry and the network; a mirror can be set in registries.conf"
    if isinstance(error, SSLError) or isinstance(getattr(error, "reason", None), SSLError):
        hint = (
            f"put the registry's certificate authority into a certs.d/{host} directory, or set insecure = true for it"
        )
        return Unreachable(f"cannot talk to the registry {host} over TLS: {reason}", hint=hint)
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        reason = "it does not answer in time"
    return Unreachable(f"cannot reach the registry {host}: {reason}", hint=hint)


def _allowed(error: HTTPError, attempts: int, *, probing: bool) -> int:
    """Return how often to try in the face of `error`: a certificate stays what it is, and so does a name, mostly."""
    if isinstance(error, SSLError) and (probing or "CERTIFICATE" in str(error).upper()):
        return 1
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return 1 if probing else min(attempts, _CONNECT_ATTEMPTS)
    return attempts


def _retry_after(response: Response) -> float:
    """Return the seconds a registry asks us to wait; 0 where it does not say, or gives a date."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def proxy_for(proxies: Mapping[str, str], scheme: str, netloc: str) -> str | None:
    """Return the proxy for a host, None to reach it directly. Loopback never goes through one, as in Go programs."""
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or is_loopback(netloc):
        return None
    host = (urlsplit(f"//{netloc}").hostname or "").lower()
    for entry in (part.strip().lower() for part in proxies.get("no", "").split(",")):
        name = entry.lstrip("*").lstrip(".")
        if entry == "*" or (name and (name in (host, netloc) or host.endswith("." + name))) or _within(host, entry):
            return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _within(host: str, network: str) -> bool:
    """Tell whether an address is in a CIDR block."""
    try:
        return "/" in network and ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _trusting(authorities: str) -> object:
    """Return a TLS context that trusts the system's authorities and these."""
    from urllib3.util.ssl_ import create_urllib3_context  # noqa: PLC0415 - few registries have their own authority

    context = create_urllib3_context()
    context.load_default_certs()
    context.load_verify_locations(cadata=authorities)
    return context


def _read_certificate(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii") + "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(
            f"cannot read the certificate {path}: {getattr(error, 'strerror', None) or 'not PEM'}"
        ) from error
