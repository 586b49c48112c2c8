"""The Authorization header: what a registry challenges for (RFC 9110, section 11) and the tokens that satisfy it.

Follows distribution's "Token Authentication" and "OAuth2 Token Authentication". Knows no credentials' source.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError

from layerstore.registry.auth import Credentials
from layerstore.registry.config import Endpoint
from layerstore.registry.errors import AuthError, RegistryError
from layerstore.registry.http import Body, Http, discard, read_limited, unreachable

_PARAMETER = re.compile(r'([A-Za-z0-9!#$%&\'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?')
_LIFETIME = 60.0
"""Seconds a token is good for where its issuer does not say."""
_MARGIN = 10.0
"""Seconds before its end at which a token is no longer used."""
_LIMIT = 1 << 20
_CLIENT = "pybuild"


class Challenge(NamedTuple):
    """What a registry wants to see: `bearer` tokens from `realm` for `service`, or basic authentication."""

    bearer: bool
    realm: str = ""
    service: str = ""


class _Token(NamedTuple):
    header: str
    until: float


def parse_challenge(text: str) -> Challenge | None:
    """Take a WWW-Authenticate header; a bearer challenge is preferred to a basic one, None if there is neither."""
    found: list[tuple[str, dict[str, str]]] = []
    for name, quoted, plain in _PARAMETER.findall(text):
        if quoted or plain:
            if found:
                found[-1][1][name.lower()] = re.sub(r"\\(.)", r"\1", quoted) or plain
        elif name.lower() in ("basic", "bearer", "digest", "negotiate", "ntlm"):
            found.append((name.lower(), {}))
    schemes = dict(reversed(found))
    if "bearer" in schemes and schemes["bearer"].get("realm"):
        return Challenge(bearer=True, realm=schemes["bearer"]["realm"], service=schemes["bearer"].get("service", ""))
    return Challenge(bearer=False) if "basic" in schemes else None


class Tokens:
    """Gives every request its Authorization header; safe to use from several threads, which share tokens.

    `clock` counts seconds from anywhere and never goes back.
    """

    def __init__(
        self,
        http: Http,
        credentials: Callable[[Endpoint], Credentials | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._clock = clock
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[tuple[str, tuple[str, ...]], _Token] = {}
        self._lock = threading.Lock()

    def challenged(self, endpoint: Endpoint, header: str) -> bool:
        """Note what the registry wants (a WWW-Authenticate header); tell whether it can be given."""
        challenge = parse_challenge(header)
        if challenge is None:
            return False
        with self._lock:
            self._challenges[endpoint.registry] = challenge
        return True

    def header(self, endpoint: Endpoint, scopes: tuple[str, ...], *, refused: str = "") -> str:
        """Return the Authorization header for a request; empty where none is wanted or nothing is known.

        `scopes` are the accesses asked for (`repository:NAME:pull,push`). `refused` is a header that no longer works.
        Raises AuthError if no token is given.
        """
        with self._lock:
            challenge = self._challenges.get(endpoint.registry)
            if challenge is None:
                return ""
            # Held while the token is fetched: parallel transfers wait for one token instead of fetching one each.
            known = self._tokens.get((endpoint.registry, scopes))
            if known is None or known.until <= self._clock() or known.header == refused:
                known = self._fetch(endpoint, challenge, scopes)
                self._tokens[endpoint.registry, scopes] = known
            return known.header

    def _fetch(self, endpoint: Endpoint, challenge: Challenge, scopes: tuple[str, ...]) -> _Token:
        credentials = self._credentials(endpoint)
        if not challenge.bearer:
            header = _basic(credentials) if credentials is not None and credentials.username else ""
            return _Token(header=header, until=float("inf"))
        if credentials is not None and credentials.registry_token:
            return _Token(header=f"Bearer {credentials.registry_token}", until=float("inf"))
        if credentials is not None and urlsplit(challenge.realm).scheme != "https" and not endpoint.insecure:
            raise AuthError(f"{endpoint.registry} wants its password sent to {challenge.realm}, which is not encrypted")
        data = self._ask(endpoint, challenge, scopes, credentials)
        token = data.get("token") or data.get("access_token")
        if not isinstance(token, str):
            raise AuthError(f"{challenge.realm} gave no token for {endpoint.registry}")
        seconds = data.get("expires_in")
        lifetime = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else _LIFETIME
        return _Token(header=f"Bearer {token}", until=self._clock() + lifetime - min(_MARGIN, lifetime / 2))

    def _ask(
        self, endpoint: Endpoint, challenge: Challenge, scopes: tuple[str, ...], credentials: Credentials | None
    ) -> dict[str, Any]:
        """Ask the token server; with an identity token by POST, as OAuth2 has it, else by GET."""
        url = challenge.realm
        query: list[tuple[str, str]] = [("service", challenge.service)] if challenge.service else []
        headers: dict[str, str] = {}
        body: Body | None = None
        if credentials is not None and credentials.identity_token:
            form = [
                *query,
                ("grant_type", "refresh_token"),
                ("refresh_token", credentials.identity_token),
                ("client_id", _CLIENT),
            ]
            if scopes:
                form.append(("scope", " ".join(scopes)))
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = Body.of(urlencode(form).encode())
        else:
            query += [("scope", scope) for scope in scopes]
            if credentials is not None and credentials.username:
                query.insert(0, ("account", credentials.username))
                headers["Authorization"] = _basic(credentials)
            if query:
                url += ("&" if "?" in url else "?") + urlencode(query)
        method = "GET" if body is None else "POST"
        response = self._http.send(method, url, headers=headers, insecure=endpoint.insecure, body=body)
        if response.status != 200:
            discard(response)
            raise _refused(endpoint, challenge.realm, response.status, known=credentials is not None)
        try:
            data = json.loads(read_limited(response, _LIMIT, f"the token from {challenge.realm}"))
        except HTTPError as error:
            raise unreachable(challenge.realm, error) from error
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise AuthError(f"{challenge.realm} gave no token for {endpoint.registry}: its answer is no JSON object")
        return data


def _refused(endpoint: Endpoint, realm: str, status: int, *, known: bool) -> RegistryError:
    if status not in (400, 401, 403):
        return RegistryError(f"the token server {realm} answers with HTTP status {status}", status=status)
    login = f"`pybuild login {endpoint.registry}`"
    if known:
        return AuthError(
            f"{endpoint.registry} does not accept the name or password",
            hint=f"log in again with {login}",
            status=status,
        )
    return AuthError(f"{endpoint.registry} wants a name and a password", hint=f"log in with {login}", status=status)


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")
