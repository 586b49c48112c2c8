"""What `pybuild run` was asked for, as values, and the words in which people ask: volumes, mounts, environment files.

The words are docker's. The values are named tuples, which take a fifth of the time to define: `pybuild run` waits for
it every time. It knows neither images nor the host beyond the environment files it is told to read.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from builder.errors import UsageError

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(?:i?b)?\Z", re.IGNORECASE)
_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_SELINUX = "/sys/fs/selinux"


class BindVolume(NamedTuple):
    """A path of the host at `target`; `create` makes a missing one a directory, as `-v` does and `--mount` does not."""

    source: Path
    target: str
    read_only: bool = False
    create: bool = False
    propagation: str = "rprivate"


class NamedVolume(NamedTuple):
    """A volume at `target`; a new one gets what the image has there, if `copy`. An `anonymous` one is named later."""

    name: str
    target: str
    anonymous: bool = False
    read_only: bool = False
    copy: bool = True


class TmpfsVolume(NamedTuple):
    """A file system in memory at `target`, `options` as mount(8) has them."""

    target: str
    options: tuple[str, ...] = ()


Volume = BindVolume | NamedVolume | TmpfsVolume


class RunOptions(NamedTuple):
    """One call of `pybuild run`; None means that the image, or the default, decides.

    `env` holds `NAME=value`, and `NAME` alone to take a variable of the image away. `entrypoint` "" clears the image's.
    `network` is none, host or bridge. Sizes are in bytes, `stop_timeout` in seconds. `publish`, `add_hosts`, `dns`,
    `ulimits`, `cap_add`, `cap_drop` and `security_options` are as written.
    """

    image: str
    args: tuple[str, ...] = ()
    name: str = ""
    entrypoint: str | None = None
    env: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    hostname: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[Volume, ...] = ()
    network: str = "bridge"
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    memory: int | None = None
    memory_swap: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    pids_limit: int | None = None
    ulimits: tuple[str, ...] = ()
    shm_size: int | None = None
    read_only: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    init: bool = False
    interactive: bool = False
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    detach: bool = False
    remove: bool = False
    stop_signal: str | None = None
    stop_timeout: int | None = None


def parse_size(text: str, option: str) -> int:
    """Return the bytes of `64m`, `1.5g`, `4096`, `10kb` (powers of 1024, as docker has them); UsageError."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageError(f"{option}: {text!r} is not a size", hint="write a number and b, k, m or g, as in 512m")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_volume(text: str, cwd: Path) -> Volume:
    """Return what one `-v` means: `[SOURCE:]TARGET[:OPTIONS]`; a source with a slash or a leading dot is a host path.

    `cwd` is what relative host paths start from. UsageError.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"-v {text!r} is malformed", hint="write [SOURCE:]TARGET[:ro]")
    if len(parts) == 1:
        return NamedVolume(name="", anonymous=True, target=_target(parts[0], "-v", text))
    source, target = parts[0], _target(parts[1], "-v", text)
    read_only, copy, propagation = False, True, "rprivate"
    for word in parts[2].split(",") if len(parts) == 3 else ():
        if word in {"ro", "rw"}:
            read_only = word == "ro"
        elif word == "nocopy":
            copy = False
        elif word in _PROPAGATION:
            propagation = word
        elif word not in {"z", "Z"} or os.path.isdir(_SELINUX):
            # Without SELinux there is nothing to relabel, so z and Z are honoured by doing nothing.
            raise UsageError(f"-v {text!r}: unknown option {word!r}", hint="use ro, rw, nocopy or a propagation")
    if "/" not in source and not source.startswith("."):
        return NamedVolume(name=source, target=target, read_only=read_only, copy=copy)
    path = Path(os.path.normpath(cwd / source))
    return BindVolume(source=path, target=target, read_only=read_only, create=True, propagation=propagation)


def parse_mount(text: str, cwd: Path) -> Volume:
    """Return what one `--mount` means: `type=bind,src=…,dst=…,ro` and the like, as docker has it. UsageError."""
    fields: dict[str, str] = {}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        key = _MOUNT_ALIASES.get(key.strip().lower(), key.strip().lower())
        fields[key] = value if equals else "true"
    kind = fields.pop("type", "volume")
    if kind not in _MOUNT_KEYS:
        raise UsageError(f"--mount: unsupported type {kind!r}", hint="use bind, volume or tmpfs")
    unknown = set(fields) - _MOUNT_KEYS[kind]
    if unknown:
        allowed = ", ".join(sorted(_MOUNT_KEYS[kind]))
        raise UsageError(f"--mount: type={kind} takes no key {min(unknown)!r}", hint=f"it takes {allowed}")
    if "target" not in fields:
        raise UsageError(f"--mount {text!r} lacks a target", hint="add target=PATH")
    target = _target(fields["target"], "--mount", text)
    read_only = _truth(fields.get("readonly", "false"), text)
    if kind == "tmpfs":
        size, mode = fields.get("tmpfs-size"), fields.get("tmpfs-mode")
        options = [f"size={parse_size(size, '--mount tmpfs-size')}"] if size else []
        if mode and not re.fullmatch(r"[0-7]{1,4}", mode):
            raise UsageError(f"--mount: tmpfs-mode={mode} is not an octal mode", hint="write it as in 1777")
        options += [f"mode={mode}"] if mode else []
        return TmpfsVolume(target=target, options=(*options, "ro") if read_only else tuple(options))
    source = fields.get("source", "")
    if kind == "volume":
        copy = not _truth(fields.get("volume-nocopy", "false"), text)
        return NamedVolume(name=source, anonymous=not source, target=target, read_only=read_only, copy=copy)
    if not source:
        raise UsageError(f"--mount {text!r} lacks a source", hint="add source=PATH")
    propagation = fields.get("bind-propagation", "rprivate")
    if propagation not in _PROPAGATION:
        raise UsageError(f"--mount: unknown propagation {propagation!r}", hint=f"use {', '.join(sorted(_PROPAGATION))}")
    path = Path(os.path.normpath(cwd / source))
    return BindVolume(source=path, target=target, read_only=read_only, propagation=propagation)


def parse_tmpfs(text: str) -> TmpfsVolume:
    """Return what one `--tmpfs` means: `TARGET[:OPTIONS]`. UsageError."""
    target, _, options = text.partition(":")
    return TmpfsVolume(target=_target(target, "--tmpfs", text), options=tuple(filter(None, options.split(","))))


def environment(
    words: Sequence[str], files: Sequence[str], environ: Mapping[str, str], read: Callable[[str], str]
) -> tuple[str, ...]:
    """Return the variables that `--env-file` files (read by `read`) and then `-e` words set, by docker's rules.

    A name alone takes the value from `environ`; where there is none it takes the variable away (`-e`), or means nothing
    (in a file). UsageError.
    """
    found: list[str] = []
    for name in files:
        found += _read_env_file(name, read(name), environ)
    for word in words:
        key, equals, _ = word.partition("=")
        if not key:
            raise UsageError(f"-e {word!r} names no variable", hint="write NAME=VALUE, or NAME to pass on your own")
        found.append(word if equals or key not in environ else f"{key}={environ[key]}")
    return tuple(found)


def parse_labels(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return `--label` words as pairs; a word without `=` has an empty value. UsageError."""
    pairs = []
    for word in words:
        key, _, value = word.partition("=")
        if not key.strip():
            raise UsageError(f"--label {word!r} names nothing", hint="write KEY=VALUE")
        pairs.append((key, value))
    return tuple(pairs)


_MOUNT_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_MOUNT_KEYS = {
    "bind": frozenset({"source", "target", "readonly", "bind-propagation"}),
    "volume": frozenset({"source", "target", "readonly", "volume-nocopy"}),
    "tmpfs": frozenset({"target", "readonly", "tmpfs-size", "tmpfs-mode"}),
}


def _read_env_file(name: str, text: str, environ: Mapping[str, str]) -> Iterator[str]:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.lstrip()  # noqa: PLW2901 - what is left of a line
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key or key.split() != [key]:
            raise UsageError(
                f"{name}:{number}: {key!r} is not the name of a variable",
                hint="write NAME=VALUE, without blanks before the equals sign",
            )
        if equals:
            yield f"{key}={value}"
        elif key in environ:
            yield f"{key}={environ[key]}"


def _target(path: str, option: str, text: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"{option} {text!r}: {path!r} is not an absolute path", hint="the target starts with a slash")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise UsageError(f"{option} {text!r}: the target cannot be the root", hint="mount below it")
    return clean


def _truth(text: str, mount: str) -> bool:
    match text.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise UsageError(f"--mount {mount!r}: {text!r} is neither true nor false", hint="write readonly, or readonly=true")
