"""Requests to one registry after another, with whatever authorization each wants, and what their refusals mean.

Knows of registries that they speak HTTP, challenge and explain themselves; not what is asked of them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from urllib.parse import urljoin

from urllib3.exceptions import HTTPError

from layerstore.registry.auth import CredentialSource
from layerstore.registry.config import Endpoint, is_loopback
from layerstore.registry.errors import AuthError, RegistryError, UnknownImage, Unreachable
from layerstore.registry.http import Body, Http, Network, Response, discard, origin, read_limited
from layerstore.registry.tokens import Tokens

_ERROR_LIMIT = 1 << 16


class Session:
    """What one client has learned of the registries it speaks to: schemes, challenges, tokens; safe for threads."""

    def __init__(self, network: Network, credentials: CredentialSource) -> None:
        self.http = Http(network)
        self._tokens = Tokens(self.http, lambda endpoint: credentials.find(endpoint.registry, endpoint.repository))
        self._bases: dict[str, str] = {}
        self._lock = threading.Lock()

    def call(
        self,
        endpoint: Endpoint,
        method: str,
        where: str,
        scopes: tuple[str, ...],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        attempts: int | None = None,
    ) -> Response:
        """Make a request to `where`, a path of the registry or a URL it gave us, with the authorization it wants."""
        base = self.base(endpoint)
        url = urljoin(base, where)
        plain = {"Accept-Encoding": "identity", **(headers or {})}
        own = origin(url) == origin(base)
        authorization = self._tokens.header(endpoint, scopes) if own else ""

        def send() -> Response:
            sent = {**plain, "Authorization": authorization} if authorization else plain
            return self.http.send(method, url, headers=sent, insecure=endpoint.insecure, body=body, attempts=attempts)

        response = send()
        if response.status != 401 or not own:
            return response
        try:
            known = self._tokens.challenged(endpoint, response.headers.get("WWW-Authenticate", ""))
            renewed = self._tokens.header(endpoint, scopes, refused=authorization) if known else ""
        except BaseException:
            discard(response)
            raise
        if not renewed or renewed == authorization:
            return response
        discard(response)
        authorization = renewed
        return send()

    def base(self, endpoint: Endpoint) -> str:
        """Return the URL of the registry; where plain HTTP is allowed, find out what it speaks."""
        if not endpoint.insecure:
            return f"https://{endpoint.host}/"
        with self._lock:
            if endpoint.host not in self._bases:
                self._bases[endpoint.host] = self._probe(endpoint)
            return self._bases[endpoint.host]

    def _probe(self, endpoint: Endpoint) -> str:
        """Ask an insecure registry what it speaks: HTTPS first, except on loopback, where it protects nothing."""
        schemes = ("http", "https") if is_loopback(endpoint.registry) else ("https", "http")
        failure: Unreachable | None = None
        for scheme in schemes:
            base = f"{scheme}://{endpoint.host}/"
            try:
                response = self.http.send("GET", base + "v2/", headers={}, insecure=True, probing=True)
            except Unreachable as error:
                failure = failure or error
                continue
            if response.status == 401:
                self._tokens.challenged(endpoint, response.headers.get("WWW-Authenticate", ""))
            discard(response)
            # This is how servers that speak TLS answer somebody who does not.
            if scheme == "http" and response.status == 400:
                continue
            return base
        raise failure or Unreachable(f"{endpoint.registry} speaks neither HTTP nor HTTPS")

    def expect(self, response: Response, good: tuple[int, ...], endpoint: Endpoint, doing: str) -> None:
        """Raise what an answer means if it is not one of `good`."""
        if response.status in good:
            return
        said = _said(response)
        status = response.status
        login = f"`pybuild login {endpoint.registry}`"
        if status == 401:
            raise AuthError(
                f"cannot {doing}: {endpoint.registry} wants a name and a password{said}",
                hint=f"log in with {login}",
                status=status,
            )
        if status == 403:
            raise AuthError(
                f"cannot {doing}: {endpoint.registry} denies it{said}",
                hint=f"check the name of the repository, or log in as somebody who may with {login}",
                status=status,
            )
        if status == 404:
            raise UnknownImage(
                f"cannot {doing}: {endpoint.registry} does not have it{said}",
                hint=f"check the name and the tag; for a private repository log in with {login}",
                status=status,
            )
        hint = "wait a while, or log in for a higher limit" if status == 429 else ""
        raise RegistryError(
            f"cannot {doing}: {endpoint.registry} answers HTTP {status}{said}", hint=hint, status=status
        )


def _said(response: Response) -> str:
    """Return what a registry says of its refusal, to be put behind our own words (distribution-spec, "Error Codes")."""
    try:
        errors = json.loads(read_limited(response, _ERROR_LIMIT, "an error"))["errors"]
        texts = [str(error.get("message") or error["code"]) for error in errors]
    except (HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError, RegistryError):
        return ""
    finally:
        discard(response)
    return f" ({'; '.join(dict.fromkeys(texts))})" if texts else ""
