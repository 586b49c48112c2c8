"""Credentials for registries: Docker's config.json (containers-auth.json(5) is the same form) and credential helpers.

Knows files and helpers, not HTTP; which files those are is told by the caller.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from layerstore.reference import DEFAULT_REGISTRY
from layerstore.registry.errors import AuthError

_HUB_KEY = "https://index.docker.io/v1/"
"""What docker calls its own registry in config.json and towards helpers."""
_HUB_NAMES = frozenset({DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"})

_TOKEN_USER = "<token>"  # noqa: S105 - the name by which helpers say that the secret is an identity token
_NOT_FOUND = "credentials not found in native keychain"
_HELPER_SECONDS = 60


class Credentials(NamedTuple):
    """Who someone is to a registry: a name with a password, or an identity token, or a token to send as it is."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        """Tell the name and no secret."""
        return f"Credentials(username={self.username!r})"


class CredentialSource(Protocol):
    """Where credentials come from; `AuthFiles` is one."""

    def find(self, registry: str, repository: str = "") -> Credentials | None:
        """Return the credentials for a repository of `registry`, None if there are none."""
        ...


class AuthFiles:
    """The files with credentials, most important first; they are read when first asked and may be missing.

    Writing goes to the first. `environ` is what helpers are run with.
    """

    def __init__(self, paths: Sequence[Path] = (), *, environ: Mapping[str, str] | None = None) -> None:
        self._paths = tuple(paths)
        self._environ = environ
        self._read: dict[Path, dict[str, Any]] = {}

    def find(self, registry: str, repository: str = "") -> Credentials | None:
        """Return the credentials for a repository of `registry`, None if there are none.

        In each file the registry's own helper is asked first, or else the general one, then the file itself, where an
        entry for a namespace is preferred to one for the whole registry. AuthError for what cannot be read or run.
        """
        for path in self._paths:
            data = self._load(path)
            helper = _helper(data, registry, path)
            found = None if helper is None else self._ask(helper, registry)
            if found is None:
                found = _stored(data, registry, repository, path)
            if found is not None:
                return found
        return None

    def store(self, registry: str, credentials: Credentials) -> str:
        """Keep credentials; return in words where they went. Raises AuthError if they cannot be kept."""
        path = self._first()
        data = self._load(path)
        key = _key(registry)
        helper = _helper(data, registry, path)
        if helper is not None:
            secret = {
                "ServerURL": key,
                "Username": _TOKEN_USER if credentials.identity_token else credentials.username,
                "Secret": credentials.identity_token or credentials.password,
            }
            self._run(helper, "store", json.dumps(secret))
            return f"the credential helper {helper}"
        pair = f"{credentials.username}:{credentials.password}".encode()
        entry = {"auth": base64.b64encode(pair).decode("ascii")}
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        auths = {name: value for name, value in _auths(data, path).items() if not _same(name, registry)}
        self._save(path, {**data, "auths": {**auths, key: entry}})
        return str(path)

    def erase(self, registry: str) -> bool:
        """Forget the credentials for `registry` in the first file and its helper; tell whether there were any."""
        path = self._first()
        data = self._load(path)
        helper = _helper(data, registry, path)
        known = False
        if helper is not None and self._ask(helper, registry) is not None:
            self._run(helper, "erase", _key(registry))
            known = True
        auths = _auths(data, path)
        kept = {name: value for name, value in auths.items() if not _same(name, registry)}
        if len(kept) < len(auths):
            self._save(path, {**data, "auths": kept})
            known = True
        return known

    def _first(self) -> Path:
        if not self._paths:
            raise AuthError("there is no file to keep credentials in", hint="set DOCKER_CONFIG or REGISTRY_AUTH_FILE")
        return self._paths[0]

    def _load(self, path: Path) -> dict[str, Any]:
        if path not in self._read:
            self._read[path] = _read(path)
        return self._read[path]

    def _save(self, path: Path, data: dict[str, Any]) -> None:
        try:
            _write(path, json.dumps(data, indent="\t").encode() + b"\n")
        except OSError as error:
            raise AuthError(
                f"cannot write {path}: {error.strerror}", hint="set DOCKER_CONFIG to a directory that can be written"
            ) from error
        self._read[path] = data

    def _ask(self, helper: str, registry: str) -> Credentials | None:
        """Ask a helper for the credentials it has (docker-credential-helpers, `get`)."""
        answer = self._run(helper, "get", _key(registry))
        if answer is None:
            return None
        try:
            data = json.loads(answer)
            username, secret = data["Username"], data["Secret"]
        except (ValueError, KeyError, TypeError):
            raise AuthError(f"the credential helper docker-credential-{helper} gave no usable answer") from None
        if username == _TOKEN_USER:
            return Credentials(identity_token=str(secret))
        return Credentials(username=str(username), password=str(secret))

    def _run(self, helper: str, action: str, text: str) -> str | None:
        """Run a helper; None if it says that it knows nothing of this registry."""
        import subprocess  # noqa: PLC0415 - only where a helper is configured

        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, action],
                input=text,
                capture_output=True,
                text=True,
                timeout=_HELPER_SECONDS,
                env=self._environ,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AuthError(
                f"cannot run the credential helper {program}: {getattr(error, 'strerror', None) or 'it does not end'}",
                hint="install it, or take credsStore and credHelpers out of config.json",
            ) from error
        if done.returncode == 0:
            return done.stdout
        said = (done.stdout.strip() or done.stderr.strip()).rstrip(".")
        if _NOT_FOUND in said or (action == "erase" and "not found" in said):
            return None
        raise AuthError(f"the credential helper {program} failed: {said or f'exit status {done.returncode}'}")


def _helper(data: Mapping[str, Any], registry: str, path: Path) -> str | None:
    """Return the name of the helper for `registry`: its own, else the general one."""
    own = data.get("credHelpers") or {}
    if not isinstance(own, dict):
        raise AuthError(f"{path}: credHelpers is not an object")
    for name, helper in own.items():
        if _same(name, registry):
            return _helper_name(helper, path)
    general = data.get("credsStore")
    return _helper_name(general, path) if general else None


def _helper_name(value: object, path: Path) -> str:
    if not isinstance(value, str) or "/" in value or not value:
        raise AuthError(f"{path}: {value!r} is not the name of a credential helper")
    return value


def _auths(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    auths = data.get("auths") or {}
    if not isinstance(auths, dict):
        raise AuthError(f"{path}: auths is not an object")
    return auths


def _stored(data: Mapping[str, Any], registry: str, repository: str, path: Path) -> Credentials | None:
    auths = _auths(data, path)
    place = f"{registry}/{repository}" if repository else registry
    while "/" in place:
        if place in auths:
            return _decode(auths[place], f"{path}: auths of {place}")
        place = place.rpartition("/")[0]
    key = _key(registry)
    names = [name for name in (key, registry) if name in auths] or [name for name in auths if _same(name, registry)]
    return _decode(auths[names[0]], f"{path}: auths of {names[0]}") if names else None


def _decode(entry: object, where: str) -> Credentials | None:
    """Take one entry of `auths`; None for an empty one, which says only that a helper has the credentials."""
    if not isinstance(entry, dict):
        raise AuthError(f"{where}: not an object")
    fields = {key: value for key, value in entry.items() if isinstance(value, str) and value}
    username, password = fields.get("username", ""), fields.get("password", "")
    if "auth" in fields:
        try:
            text = base64.b64decode(fields["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise AuthError(f"{where}: auth is not base64", hint="log in again") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise AuthError(f"{where}: auth does not hold a name and a password", hint="log in again")
    identity, token = fields.get("identitytoken", ""), fields.get("registrytoken", "")
    if not (username or identity or token):
        return None
    return Credentials(username=username, password=password.strip("\0"), identity_token=identity, registry_token=token)


def _key(registry: str) -> str:
    return _HUB_KEY if registry in _HUB_NAMES else registry


def _same(name: str, registry: str) -> bool:
    """Tell whether an entry called `name`, perhaps an old URL with scheme and path, is for the whole of `registry`."""
    if "://" in name:
        name = name.partition("://")[2].partition("/")[0]
    name = name.rstrip("/")
    return name == registry or (name in _HUB_NAMES and registry in _HUB_NAMES)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AuthError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise AuthError(
            f"{path}: not valid JSON: {error}", hint="mend the file or move it away and log in again"
        ) from None
    if not isinstance(data, dict):
        raise AuthError(f"{path}: not a JSON object", hint="mend the file or move it away and log in again")
    return data


def _write(path: Path, data: bytes) -> None:
    """Replace `path`, or what it links to, whole and readable by its owner alone."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
