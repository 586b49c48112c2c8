"""Where an image is really fetched from: mirrors, rewritten locations, insecure and blocked registries.

Reads containers-registries.conf(5) version 2 and its drop-ins, containers-registries.conf.d(5). Short names mean what
they mean to docker (`debian` is docker.io/library/debian), so search registries and aliases are not looked at.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, NamedTuple, Self

from layerstore.reference import DEFAULT_REGISTRY, Reference
from layerstore.registry.errors import RegistryConfigError

_HUB = "registry-1.docker.io"
"""The host that serves what is called docker.io."""

_PULL_FROM_MIRROR = ("all", "digest-only", "tag-only")


class Endpoint(NamedTuple):
    """One place where a repository is: `registry` is a host with an optional port, `repository` a path in it.

    `insecure` allows plain HTTP and certificates that nobody vouches for.
    """

    registry: str
    repository: str
    insecure: bool = False

    @property
    def host(self) -> str:
        """The host to connect to, with its port where one is given."""
        return _HUB if self.registry == DEFAULT_REGISTRY else self.registry

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"


class _Mirror(NamedTuple):
    location: str
    insecure: bool
    when: str


class _Namespace(NamedTuple):
    """One `[[registry]]` table."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirror_by_digest_only: bool
    mirrors: tuple[_Mirror, ...]


class Registries:
    """What registries.conf says; without one, every image is where its name says."""

    def __init__(self, namespaces: tuple[_Namespace, ...] = ()) -> None:
        self._namespaces = {namespace.prefix: namespace for namespace in namespaces}

    @classmethod
    def load(cls, path: Path | None, drop_ins: Path | None = None) -> Self:
        """Read `path`, then the `*.conf` files of the directory `drop_ins`; the last table for a prefix is taken.

        `path` has to exist if it is given, `drop_ins` need not. RegistryConfigError says where what is wrong.
        """
        found: dict[str, _Namespace] = {}
        for file in ([] if path is None else [path]) + _drop_ins(drop_ins):
            found.update((namespace.prefix, namespace) for namespace in _read(file))
        return cls(tuple(found.values()))

    def sources(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Return where to read an image from, first choice first: mirrors, then the location itself.

        RegistryConfigError if reading it is blocked.
        """
        namespace, matched = self._find(reference)
        if namespace is None:
            return (_endpoint(reference.name, insecure=False),)
        by_digest = reference.digest is not None
        rest = reference.name[matched:]
        places: list[tuple[str, bool]] = []
        for mirror in namespace.mirrors:
            when = "digest-only" if namespace.mirror_by_digest_only else mirror.when
            if when == "all" or (when == "digest-only") == by_digest:
                places.append((mirror.location + rest, mirror.insecure))
        places.append((namespace.location + rest if namespace.location else reference.name, namespace.insecure))
        return tuple(_endpoint(place, insecure=insecure) for place, insecure in places)

    def destination(self, reference: Reference) -> Endpoint:
        """Return where to write an image to: where its name says, as rewriting and mirrors are for reading only.

        RegistryConfigError if the registry is blocked.
        """
        namespace, _ = self._find(reference)
        return _endpoint(reference.name, insecure=namespace is not None and namespace.insecure)

    def server(self, registry: str) -> Endpoint:
        """Return the registry itself, for logging in."""
        namespace = self._namespaces.get(registry)
        return _endpoint(registry, insecure=namespace is not None and namespace.insecure)

    def _find(self, reference: Reference) -> tuple[_Namespace | None, int]:
        """Return the table with the longest prefix that fits, and how much of the name it covers."""
        full = reference.canonical
        best: _Namespace | None = None
        length = 0
        for namespace in self._namespaces.values():
            end = _match(full, namespace.prefix)
            if end is not None and (best is None or len(namespace.prefix) > len(best.prefix)):
                best, length = namespace, end
        if best is not None and best.blocked:
            raise RegistryConfigError(
                f"{reference.familiar} is blocked by registries.conf",
                hint=f"the table for {best.prefix} says blocked = true",
            )
        return best, min(length, len(reference.name))


def is_loopback(registry: str) -> bool:
    """Tell whether `registry` (host and optional port) is this machine: localhost, 127.0.0.0/8 or ::1."""
    host, _ = split_port(registry)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_port(registry: str) -> tuple[str, int | None]:
    """Split `host:port`, `[::1]:port` or a bare host; brackets are taken off."""
    host, colon, port = registry.rpartition(":")
    if not colon or port.endswith("]"):
        return registry.strip("[]"), None
    return host.strip("[]"), int(port) if port.isdigit() else None


def _endpoint(place: str, *, insecure: bool) -> Endpoint:
    registry, _, repository = place.partition("/")
    return Endpoint(registry=registry, repository=repository, insecure=insecure or is_loopback(registry))


def _match(full: str, prefix: str) -> int | None:
    """Return the end of the part of the reference `full` that `prefix` covers, None if it does not fit.

    A prefix ends where a port, a path part, a tag or a digest begins; `*.example.com` fits any host below it.
    """
    if prefix.startswith("*."):
        at = full.find(prefix[1:])
        if at < 0 or "/" in full[:at]:
            return None
        end = at + len(prefix) - 1
    elif full.startswith(prefix):
        end = len(prefix)
    else:
        return None
    return end if full[end : end + 1] in ("", ":", "/", "@") else None


def _drop_ins(directory: Path | None) -> list[Path]:
    if directory is None or not directory.is_dir():
        return []
    return sorted(file for file in directory.iterdir() if file.suffix == ".conf")


def _read(path: Path) -> list[_Namespace]:
    import tomllib  # noqa: PLC0415 - only where there is a file to read

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegistryConfigError(
            f"cannot read {path}: {error.strerror}", hint="check CONTAINERS_REGISTRIES_CONF"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RegistryConfigError(f"{path}: not valid TOML: {error}") from None
    if "registries" in data:
        raise RegistryConfigError(
            f"{path} is written in version 1 of its format",
            hint="write [[registry]] tables, see containers-registries.conf(5)",
        )
    tables = data.get("registry", [])
    if not isinstance(tables, list):
        raise RegistryConfigError(f"{path}: registry is not a list of tables", hint="write [[registry]]")
    return [_namespace(table, f"{path}: [[registry]] {n}") for n, table in enumerate(tables, start=1)]


def _namespace(table: Any, where: str) -> _Namespace:
    if not isinstance(table, dict):
        raise RegistryConfigError(f"{where}: not a table")
    location = _location(table, "location", where)
    prefix = _location(table, "prefix", where) or location
    if not prefix:
        raise RegistryConfigError(f"{where}: neither prefix nor location is set", hint="name the registry with prefix")
    if not location and not prefix.startswith("*."):
        location = prefix
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
        raise RegistryConfigError(f"{where}: mirror is not a list of tables", hint="write [[registry.mirror]]")
    return _Namespace(
        prefix=prefix,
        location=location,
        insecure=_flag(table, "insecure", where),
        blocked=_flag(table, "blocked", where),
        mirror_by_digest_only=_flag(table, "mirror-by-digest-only", where),
        mirrors=tuple(_mirror(mirror, f"{where}, mirror {n}") for n, mirror in enumerate(mirrors, start=1)),
    )


def _mirror(table: dict[str, Any], where: str) -> _Mirror:
    location = _location(table, "location", where)
    if not location:
        raise RegistryConfigError(f"{where}: location is not set")
    when = table.get("pull-from-mirror", "all")
    if when not in _PULL_FROM_MIRROR:
        raise RegistryConfigError(
            f"{where}: pull-from-mirror is {when!r}", hint=f"use one of {', '.join(_PULL_FROM_MIRROR)}"
        )
    return _Mirror(location=location, insecure=_flag(table, "insecure", where), when=when)


def _location(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or "://" in value:
        raise RegistryConfigError(f"{where}: {key} is {value!r}", hint="write HOST[:PORT][/PATH], without a scheme")
    return value.rstrip("/")


def _flag(table: dict[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise RegistryConfigError(f"{where}: {key} is {value!r}, not true or false")
    return value
