"""Specifications as JSON and back: the OCI runtime-spec's config.json, with what it has no word for under `pybuild`.

The text round-trips exactly; bytes and undecodable text travel as surrogate escapes.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, assert_never

from runner.errors import SpecError
from runner.spec import (
    AnyMount,
    ConsoleSize,
    Device,
    Directory,
    FileMount,
    HostNetwork,
    JoinNetwork,
    Mount,
    Network,
    NoNetwork,
    Overlay,
    OverlayMount,
    ProcessSpec,
    Rlimit,
    Rootfs,
    Seccomp,
    Spec,
    User,
)

OCI_VERSION = "1.2.0"


def dumps(spec: Spec) -> str:
    """Return `spec` as JSON text, indented, keys in the specification's order."""
    document = {
        "ociVersion": OCI_VERSION,
        "root": _root(spec.rootfs),
        "process": _process(spec.process),
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "mounts": [_mount(mount) for mount in spec.mounts],
        "linux": {
            "namespaces": _namespaces(spec.network),
            "devices": [_device(device) for device in spec.devices],
            "maskedPaths": [_path(path) for path in spec.masked_paths],
            "readonlyPaths": [_path(path) for path in spec.readonly_paths],
            "sysctl": dict(spec.sysctl),
        },
        "pybuild": {
            "cgroups": [str(path) for path in spec.cgroups],
            "hostDevices": spec.host_devices,
            "init": spec.init,
            "seccomp": spec.seccomp and {"profile": spec.seccomp.profile and str(spec.seccomp.profile)},
        },
    }
    return json.dumps(document, indent=2)


def loads(text: str) -> Spec:
    """Return what `dumps` wrote; SpecError for anything else."""
    try:
        document = json.loads(text)
        linux, own = document["linux"], document["pybuild"]
        return Spec(
            rootfs=_read_root(document["root"]),
            process=_read_process(document["process"]),
            hostname=document["hostname"],
            domainname=document["domainname"],
            mounts=tuple(_read_mount(mount) for mount in document["mounts"]),
            network=_read_network(linux["namespaces"]),
            devices=tuple(_read_device(device) for device in linux["devices"]),
            masked_paths=tuple(_read_path(path) for path in linux["maskedPaths"]),
            readonly_paths=tuple(_read_path(path) for path in linux["readonlyPaths"]),
            sysctl=tuple(linux["sysctl"].items()),
            cgroups=tuple(Path(path) for path in own["cgroups"]),
            host_devices=own["hostDevices"],
            init=own["init"],
            seccomp=_read_seccomp(own["seccomp"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        hint = "write it with `runner.specjson.dumps`"
        raise SpecError(f"not the specification of a container: {error!r}", hint=hint) from error


def _path(path: bytes) -> str:
    return "/" + os.fsdecode(path)


def _read_path(path: str) -> bytes:
    return os.fsencode(path.removeprefix("/"))


def _root(rootfs: Rootfs) -> dict[str, Any]:
    match rootfs:
        case Directory(path=path, read_only=read_only):
            return {"path": str(path), "readonly": read_only}
        case Overlay(lowers=lowers, upper=upper, work=work, read_only=read_only):
            layers = {"lowers": [str(lower) for lower in lowers], "upper": str(upper), "work": str(work)}
            return {"path": "rootfs", "readonly": read_only, "overlay": layers}
        case _ as unreachable:
            assert_never(unreachable)


def _read_root(root: dict[str, Any]) -> Rootfs:
    layers = root.get("overlay")
    if layers is None:
        return Directory(path=Path(root["path"]), read_only=root["readonly"])
    lowers = tuple(Path(lower) for lower in layers["lowers"])
    return Overlay(lowers=lowers, upper=Path(layers["upper"]), work=Path(layers["work"]), read_only=root["readonly"])


def _process(process: ProcessSpec) -> dict[str, Any]:
    user, size = process.user, process.console_size
    return {
        "terminal": process.terminal,
        "consoleSize": size and {"height": size.height, "width": size.width},
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "umask": user.umask,
            "additionalGids": list(user.additional_gids),
        },
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": {"bounding": sorted(process.capabilities)},
        "rlimits": [{"type": limit.type, "soft": limit.soft, "hard": limit.hard} for limit in process.rlimits],
        "oomScoreAdj": process.oom_score_adj,
        "noNewPrivileges": process.no_new_privileges,
    }


def _read_process(process: dict[str, Any]) -> ProcessSpec:
    user, size = process["user"], process["consoleSize"]
    return ProcessSpec(
        args=tuple(process["args"]),
        env=tuple(process["env"]),
        cwd=process["cwd"],
        user=User(uid=user["uid"], gid=user["gid"], umask=user["umask"], additional_gids=tuple(user["additionalGids"])),
        terminal=process["terminal"],
        console_size=size and ConsoleSize(height=size["height"], width=size["width"]),
        capabilities=frozenset(process["capabilities"]["bounding"]),
        rlimits=tuple(
            Rlimit(type=limit["type"], soft=limit["soft"], hard=limit["hard"]) for limit in process["rlimits"]
        ),
        oom_score_adj=process["oomScoreAdj"],
        no_new_privileges=process["noNewPrivileges"],
    )


def _mount(mount: AnyMount) -> dict[str, Any]:
    destination = _path(mount.destination)
    match mount:
        case Mount(type=kind, source=source, options=options):
            return {"destination": destination, "type": kind, "source": source, "options": list(options)}
        case OverlayMount(lowers=lowers, upper=upper, work=work, read_only=read_only):
            layers = {"lowers": [str(lower) for lower in lowers], "upper": str(upper), "work": str(work)}
            return {"destination": destination, "overlay": layers, "readonly": read_only}
        case FileMount(data=data, mode=mode, uid=uid, gid=gid):
            encoded = base64.b64encode(data).decode()
            return {"destination": destination, "file": {"data": encoded, "mode": mode, "uid": uid, "gid": gid}}
        case _ as unreachable:
            assert_never(unreachable)


def _read_mount(mount: dict[str, Any]) -> AnyMount:
    destination = _read_path(mount["destination"])
    if layers := mount.get("overlay"):
        return OverlayMount(
            destination=destination,
            lowers=tuple(Path(lower) for lower in layers["lowers"]),
            upper=Path(layers["upper"]),
            work=Path(layers["work"]),
            read_only=mount["readonly"],
        )
    if file := mount.get("file"):
        data = base64.b64decode(file["data"], validate=True)
        return FileMount(destination=destination, data=data, mode=file["mode"], uid=file["uid"], gid=file["gid"])
    return Mount(destination=destination, type=mount["type"], source=mount["source"], options=tuple(mount["options"]))


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": _path(device.path),
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.file_mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _read_device(device: dict[str, Any]) -> Device:
    return Device(
        path=_read_path(device["path"]),
        type=device["type"],
        major=device["major"],
        minor=device["minor"],
        file_mode=device["fileMode"],
        uid=device["uid"],
        gid=device["gid"],
    )


def _namespaces(network: Network) -> list[dict[str, str]]:
    own = [{"type": name} for name in ("pid", "mount", "ipc", "uts", "cgroup")]
    match network:
        case NoNetwork():
            return [*own, {"type": "network"}]
        case JoinNetwork(path=path):
            return [*own, {"type": "network", "path": path}]
        case HostNetwork():
            return own
        case _ as unreachable:
            assert_never(unreachable)


def _read_network(namespaces: list[dict[str, str]]) -> Network:
    for namespace in namespaces:
        if namespace["type"] == "network":
            path = namespace.get("path")
            return NoNetwork() if path is None else JoinNetwork(path)
    return HostNetwork()


def _read_seccomp(value: dict[str, Any] | None) -> Seccomp | None:
    if value is None:
        return None
    return Seccomp(profile=None if value["profile"] is None else Path(value["profile"]))
