"""The host's devices by the names that their vendors gave them, and what a container needs to use one.

Follows the Container Device Interface specification (CDI 1.1): files in JSON or YAML, those of a later directory win.
It knows neither who may use a device nor how a request for one is written.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runner.errors import DeviceError
from runner.spec import Device, Mount, Spec

CLASS = "org.mobyproject.buildkit.device.class"
AUTO_ALLOW = "org.mobyproject.buildkit.device.autoallow"

_KIND = re.compile(r"[A-Za-z]([\w.-]*[A-Za-z0-9])?/[A-Za-z]([\w.-]*[A-Za-z0-9])?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9]([\w.:-]*[A-Za-z0-9])?", re.ASCII)
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_NODE_TYPES = {"b": stat.S_ISBLK, "c": stat.S_ISCHR, "u": stat.S_ISCHR, "p": stat.S_ISFIFO}
_EDITS = ("env", "deviceNodes", "mounts", "additionalGids")
_UNSUPPORTED = ("hooks", "netDevices", "intelRdt")


class Node(NamedTuple):
    """A device node as it is written; what is None is that of the host's node, or of the container's user."""

    path: str
    host_path: str
    type: str
    major: int
    minor: int
    file_mode: int | None
    permissions: str
    uid: int | None
    gid: int | None


class Edits(NamedTuple):
    """What changes in a container; `unsupported` names what cannot be done."""

    env: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    mounts: tuple[Mount, ...] = ()
    gids: tuple[int, ...] = ()
    unsupported: tuple[str, ...] = ()


class Known(NamedTuple):
    """One device: the file that describes it, the edits that it shares with the others there, and its own."""

    path: Path
    annotations: Mapping[str, str]
    shared: Edits
    own: Edits


class Injected(NamedTuple):
    """A container with devices, and the rules (devices.allow) that it needs beyond those of every container."""

    spec: Spec
    rules: tuple[str, ...]


class Devices:
    """The devices that files describe, by their qualified names, and what is wrong with files that cannot be used."""

    def __init__(self, known: Mapping[str, Known], faults: Sequence[str] = ()) -> None:
        self.known = known
        self.faults = tuple(faults)

    @classmethod
    def load(cls, directories: Iterable[Path]) -> Devices:
        """Read the files of `directories`, where they exist. A file that is wrong is a fault, and no error."""
        known: dict[str, Known] = {}
        faults: list[str] = []
        twice: set[str] = set()
        for directory in directories:
            here: dict[str, Known] = {}
            for path in sorted(path for path in _files(directory) if path.suffix in (".json", ".yaml")):
                try:
                    found = _read(path)
                except (OSError, ValueError) as error:
                    faults.append(f"{path}: {error.strerror if isinstance(error, OSError) else error}")
                    continue
                both = sorted(found.keys() & here.keys())
                faults += (f"{path}: {name} is described by {here[name].path} too: neither counts" for name in both)
                twice.update(both)
                here |= found
            known |= here
        return cls({name: known[name] for name in sorted(known.keys() - twice)}, faults)

    def find(self, request: str) -> tuple[str, ...]:
        """Return the names of the devices that `request` means, none if there are none; DeviceError if it is no name.

        A request is VENDOR/CLASS for the first device of a kind, with `=*` for all, with `=NAME` for the one of that
        name or, if there is none, for those whose annotation says that they belong to the class NAME.
        """
        kind, _, name = request.partition("=")
        if not _KIND.fullmatch(kind):
            hint = "write VENDOR/CLASS, VENDOR/CLASS=NAME or VENDOR/CLASS=*, as in nvidia.com/gpu=0"
            raise DeviceError(f'invalid device "{request}"', hint=hint)
        of_kind = tuple(one for one in self.known if one.startswith(kind + "="))
        if name in ("", "*"):
            return of_kind if name else of_kind[:1]
        if request in self.known:
            return (request,)
        return tuple(one for one in of_kind if self.known[one].annotations.get(CLASS) == name)

    def require(self, request: str) -> tuple[str, ...]:
        """Return what `find` does; DeviceError also if there is no such device."""
        found = self.find(request)
        if not found:
            raise DeviceError(f'required device "{request}" is not registered', hint=self.advice())
        return found

    def advice(self) -> str:
        """Say what to do about a device that is not known."""
        there = f"known are {', '.join(self.known)}" if self.known else "describe it in a file of a CDI directory"
        return "; ".join((there, *self.faults))

    def auto_allows(self, name: str) -> bool:
        """Say whether the file wants every build to have the device `name`."""
        return self.known[name].annotations.get(AUTO_ALLOW) in _TRUE

    def edits(self, names: Iterable[str]) -> list[Edits]:
        """Return what the devices `names` change, in order; DeviceError if one needs what is not supported."""
        found: list[Edits] = []
        files = set()
        for name in dict.fromkeys(names):
            one = self.known[name]
            parts = (one.own,) if one.path in files else (one.shared, one.own)
            files.add(one.path)
            for part in parts:
                if part.unsupported:
                    message = f"device {name} needs {' and '.join(part.unsupported)}, which pybuild does not support"
                    raise DeviceError(message, hint=f"describe it without them in {one.path}")
                found.append(part)
        return found

    def inject(self, spec: Spec, names: Iterable[str]) -> Injected:
        """Return `spec` with the devices `names`; DeviceError if the host lacks one or it cannot be given."""
        return _inject(spec, self.edits(names))


def _inject(spec: Spec, edits: Sequence[Edits]) -> Injected:
    process = spec.process
    env = {entry.partition("=")[0]: entry for entry in process.env}
    env |= {entry.partition("=")[0]: entry for part in edits for entry in part.env}
    gids = dict.fromkeys((*process.user.additional_gids, *(gid for part in edits for gid in part.gids if gid)))
    devices = {device.path: device for device in spec.devices}
    rules: dict[str, None] = {}
    for node in (node for part in edits for node in part.nodes):
        device = _device(node, uid=process.user.uid, gid=process.user.gid)
        devices[device.path] = device
        access = {"": "rwm", "none": ""}.get(node.permissions, node.permissions)
        if access and device.type in ("b", "c"):
            rules[f"{device.type} {device.major}:{device.minor} {access}"] = None
    added = {mount.destination: mount for part in edits for mount in part.mounts}
    kept = (mount for mount in spec.mounts if mount.destination not in added)
    changed = spec._replace(
        process=process._replace(
            env=tuple(env.values()), user=process.user._replace(additional_gids=tuple(gids))
        ),
        devices=tuple(devices.values()),
        mounts=(*kept, *added.values()),
    )  # fmt: skip
    return Injected(changed, tuple(rules))


def _device(node: Node, *, uid: int, gid: int) -> Device:
    """Return the node with what its description leaves to the host's; DeviceError where that does not fit."""
    kind, major, minor = node.type, node.major, node.minor
    if not kind or (not major and kind != "p"):
        try:
            status = os.stat(node.host_path)
        except OSError as error:
            message = f"device {node.host_path}: {error.strerror}"
            raise DeviceError(message, hint="is its driver loaded?") from error
        there = next((letter for letter in "bcp" if _NODE_TYPES[letter](status.st_mode)), "")
        if not there or (kind and not _NODE_TYPES[kind](status.st_mode)):
            message = f"{node.host_path} is no device of type {kind or 'b, c or p'}"
            raise DeviceError(message, hint="correct hostPath or type in its CDI file")
        kind = kind or there
        if there != "p":
            major, minor = major or os.major(status.st_rdev), minor or os.minor(status.st_rdev)
    return Device(
        path=os.fsencode(node.path.lstrip("/")),
        type=kind,
        major=major,
        minor=minor,
        file_mode=0o666 if node.file_mode is None else stat.S_IMODE(node.file_mode),
        uid=uid if node.uid is None else node.uid,
        gid=gid if node.gid is None else node.gid,
    )


# -- files --------------------------------------------------------------------------------------------------------


def _files(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> dict[str, Known]:
    """Return the devices of one file; OSError, or ValueError that says what is wrong with it."""
    document = _object(_parse(path), "the file", ("cdiVersion", "kind", "annotations", "devices", "containerEdits"))
    _text(document, "cdiVersion", "the file")
    kind = _text(document, "kind", "the file")
    if not _KIND.fullmatch(kind):
        raise ValueError(f"kind {kind!r} is not VENDOR/CLASS")
    annotations = _annotations(document)
    shared = _edits(document.get("containerEdits"), kind)
    found: dict[str, Known] = {}
    for item in _list(document, "devices", "the file"):
        device = _object(item, "a device", ("name", "annotations", "containerEdits"))
        name = _text(device, "name", "a device")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a device")
        if name in {one.partition("=")[2] for one in found}:
            raise ValueError(f"there are two devices {name}")
        own = _edits(device.get("containerEdits"), name)
        found[f"{kind}={name}"] = Known(path, annotations | _annotations(device), shared, own)
    return found


def _parse(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    try:
        import yaml  # noqa: PLC0415 - needed for files in YAML only, and need not be installed
    except ImportError:
        raise ValueError("reading YAML needs PyYAML: pip install 'pybuild[devices]'") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _edits(value: object, where: str) -> Edits:
    if value is None:
        return Edits()
    edits = _object(value, f"containerEdits of {where}", (*_EDITS, *_UNSUPPORTED))
    for entry in _list(edits, "env", where):
        if not isinstance(entry, str) or entry.find("=") < 1:
            raise ValueError(f"env of {where}: {entry!r} is not NAME=VALUE")
    for gid in _list(edits, "additionalGids", where):
        if type(gid) is not int or not 0 <= gid < 1 << 32:
            raise ValueError(f"additionalGids of {where}: {gid!r} is no number of a group")
    return Edits(
        env=tuple(_list(edits, "env", where)),
        nodes=tuple(_node(item) for item in _list(edits, "deviceNodes", where)),
        mounts=tuple(_mount(item) for item in _list(edits, "mounts", where)),
        gids=tuple(_list(edits, "additionalGids", where)),
        unsupported=tuple(name for name in _UNSUPPORTED if edits.get(name)),
    )


def _node(item: object) -> Node:
    keys = ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid")
    node = _object(item, "a device node", keys)
    path = _text(node, "path", "a device node")
    kind, permissions = (_text(node, key, path, default="") for key in ("type", "permissions"))
    if kind and kind not in _NODE_TYPES:
        raise ValueError(f"device node {path}: {kind!r} is no type")
    if permissions != "none" and set(permissions) - set("rwm"):
        raise ValueError(f"device node {path}: permissions {permissions!r} are not of r, w and m")
    if not path.startswith("/dev/") or ".." in path.split("/"):
        raise ValueError(f"device node {path} is not below /dev")
    return Node(
        path=path,
        host_path=_text(node, "hostPath", path, default=path),
        type=kind,
        major=_number(node, "major", path) or 0,
        minor=_number(node, "minor", path) or 0,
        file_mode=_number(node, "fileMode", path),
        permissions=permissions,
        uid=_number(node, "uid", path),
        gid=_number(node, "gid", path),
    )


def _mount(item: object) -> Mount:
    mount = _object(item, "a mount", ("hostPath", "containerPath", "options", "type"))
    source, target = _text(mount, "hostPath", "a mount"), _text(mount, "containerPath", "a mount")
    options = _list(mount, "options", target)
    if not all(isinstance(option, str) for option in options):
        raise ValueError(f"options of the mount {target} are not all text")
    kind = _text(mount, "type", target, default="bind")
    if kind == "none" or {"bind", "rbind"} & set(options):
        kind = "bind"
    destination = b"/".join(part for part in os.fsencode(target).split(b"/") if part)
    return Mount(destination=destination, type=kind, source=source, options=tuple(options))


def _annotations(value: Mapping[str, Any]) -> dict[str, str]:
    """Return annotations as text; YAML makes other values of words such as true."""
    found = _object(value.get("annotations") or {}, "annotations", None)
    return {key: str(text).lower() if isinstance(text, bool) else str(text) for key, text in found.items()}


def _object(value: object, what: str, keys: Sequence[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    unknown = sorted(str(key) for key in value if keys is not None and key not in keys)
    if unknown:
        raise ValueError(f"{what} has an unknown key {unknown[0]!r}")
    return value


def _text(value: Mapping[str, Any], key: str, what: str, *, default: str | None = None) -> str:
    found = value.get(key)
    if default is not None and found in (None, ""):
        return default
    if not isinstance(found, str) or not found or "\0" in found:
        raise ValueError(f"{key} of {what} is not text")
    return found


def _list(value: Mapping[str, Any], key: str, what: str) -> list[Any]:
    found = value.get(key)
    if found is not None and not isinstance(found, list):
        raise ValueError(f"{key} of {what} is not a list")
    return found or []


def _number(value: Mapping[str, Any], key: str, what: str) -> int | None:
    found = value.get(key)
    if found is not None and (type(found) is not int or not 0 <= found < 1 << 32):
        raise ValueError(f"{key} of {what} is not a number")
    return found
