"""Devices by the names of the Container Device Interface: files, requests, and what changes in a container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner import Device, Mount, Overlay, ProcessSpec, Spec, User
from runner.cdi import AUTO_ALLOW, CLASS, Devices
from runner.errors import DeviceError

KIND = "vendor.example/gadget"


def describe(directory: Path, name: str, *devices: dict[str, Any], **more: Any) -> Path:
    """Write a file of devices."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": KIND, "devices": list(devices), **more}))
    return path


def device(name: str, annotations: dict[str, Any] | None = None, **edits: Any) -> dict[str, Any]:
    """One device as a file has it."""
    return {"name": name, "annotations": annotations or {}, "containerEdits": edits}


def spec(**process: Any) -> Spec:
    """A container."""
    return Spec(
        rootfs=Overlay(lowers=(Path("/l"),), upper=Path("/u"), work=Path("/w")),
        process=ProcessSpec(args=("true",), **process),
        mounts=(Mount(b"etc/hosts", "bind", "/hosts", ("ro",)),),
    )


def test_requests(tmp_path: Path) -> None:
    """A kind alone is its first device, `*` all, a name one device or, if there is none, those of that class."""
    describe(tmp_path, "a.json", device("b"), device("a", {CLASS: "fast"}), device("c", {CLASS: "fast"}))
    known = Devices.load((tmp_path,))

    assert [
        [name.partition("=")[2] for name in known.find(KIND + suffix)] for suffix in ("", "=*", "=b", "=fast", "=d")
    ] == [["a"], ["a", "b", "c"], ["b"], ["a", "c"], []]
    assert () == known.find("other.example/gadget")
    with pytest.raises(DeviceError, match=r'required device "other\.example/gadget" is not registered'):
        known.require("other.example/gadget")
    for text in ("fast", "", "1vendor/gadget", "vendor/", "vendor/a b=c"):
        with pytest.raises(DeviceError, match="invalid device"):
            known.find(text)


def test_files(tmp_path: Path) -> None:
    """A later directory wins; a device that two files of one directory describe is none; other files do not count."""
    low, high = tmp_path / "low", tmp_path / "high"
    describe(low, "a.json", device("a", env=["A=low"]), device("b"), device("c"))
    describe(low, "b.json", device("b"))
    describe(high, "a.json", device("a", env=["A=high"]))
    (high / "notes.txt").write_text("?")
    known = Devices.load((low, high, tmp_path / "missing"))

    assert [f"{KIND}=a", f"{KIND}=c"] == list(known.known)
    assert ("A=high",) == known.edits([f"{KIND}=a"])[1].env
    assert (f"{low}/b.json: {KIND}=b is described by {low}/a.json too: neither counts",) == known.faults
    assert known.faults[0] in known.advice()


def test_yaml(tmp_path: Path) -> None:
    """Files in YAML, with their ways of writing numbers and truth."""
    (tmp_path / "a.yaml").write_text(
        f"cdiVersion: 0.6.0\nkind: {KIND}\nannotations:\n  {AUTO_ALLOW}: true\n"
        'devices:\n- name: "0"\n  containerEdits:\n    deviceNodes:\n    - {path: /dev/x, type: c, major: 1, '
        "fileMode: 0640}\n"
    )
    known = Devices.load((tmp_path,))

    assert () == known.faults
    assert known.auto_allows(f"{KIND}=0")
    assert 0o640 == known.inject(spec(), [f"{KIND}=0"]).spec.devices[0].file_mode


@pytest.mark.parametrize("key", ["path", "hostPath", "type", "major", "fileMode", "permissions", "uid"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, 1.5, True, -1, 1 << 40])
def test_nodes_of_any_shape(tmp_path: Path, key: str, value: object) -> None:
    """What a file holds instead of a text or a number is a fault of that file, and no bug."""
    describe(tmp_path, "a.json", device("a", deviceNodes=[{"path": "/dev/x", key: value}]))
    known = Devices.load((tmp_path,))

    assert ({}, 1) == (known.known, len(known.faults))


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("[]", "the file is not an object"),
        ("{", "Expecting property name"),
        ('{"cdiVersion": "1", "kind": "gadget"}', "kind 'gadget' is not VENDOR/CLASS"),
        ('{"cdiVersion": "1", "kind": "a/b", "extra": 1}', "the file has an unknown key 'extra'"),
        ('{"cdiVersion": "1", "kind": "a/b", "devices": [{"name": "-"}]}', "'-' is no name for a device"),
        ('{"cdiVersion": "1", "kind": "a/b", "devices": [{"name": "x"}, {"name": "x"}]}', "there are two devices x"),
        ('{"cdiVersion": "1", "kind": "a/b", "containerEdits": {"env": ["=x"]}}', "env of a/b: '=x' is not NAME=VALUE"),
        ('{"cdiVersion": "1", "kind": "a/b", "containerEdits": {"mounts": [{"hostPath": "/x"}]}}', "containerPath of"),
        (
            '{"cdiVersion": "1", "kind": "a/b", "containerEdits": {"deviceNodes": [{"path": "/x"}]}}',
            "device node /x is not below /dev",
        ),
        (
            '{"cdiVersion": "1", "kind": "a/b", "containerEdits": {"deviceNodes": [{"path": "/dev/x", "major": "1"}]}}',
            "major of /dev/x is not a number",
        ),
        (
            '{"cdiVersion":"1", "kind": "a/b", "containerEdits":{"deviceNodes":[{"path":"/dev/x","permissions":"x"}]}}',
            "permissions 'x' are not of r, w and m",
        ),
    ],
)
def test_faults(tmp_path: Path, document: str, fault: str) -> None:
    """A file that is wrong describes nothing; what is wrong with it is told where a device is missed."""
    (tmp_path / "bad.json").write_text(document)
    describe(tmp_path, "good.json", device("a"))
    known = Devices.load((tmp_path,))

    assert [f"{KIND}=a"] == list(known.known)
    assert [True] == [fault in one for one in known.faults], known.faults
    with pytest.raises(DeviceError) as caught:
        known.require("a/b=x")
    assert "bad.json" in caught.value.hint


def test_what_changes(tmp_path: Path) -> None:
    """Edits of the file and of its devices: environment, nodes, mounts in the place of others, groups, and rules."""
    describe(
        tmp_path,
        "a.json",
        device(
            "a",
            env=["A=device", "B=device"],
            deviceNodes=[
                {"path": "/dev/gadget0", "hostPath": "/dev/null"},
                {"path": "/dev/sub/one", "type": "b", "major": 7, "minor": 9, "fileMode": 384, "uid": 0, "gid": 6},
                {"path": "/dev/closed", "hostPath": "/dev/zero", "permissions": "none"},
                {"path": "/dev/tty", "permissions": "r"},
            ],
        ),
        device("b", mounts=[{"hostPath": "/lib/x", "containerPath": "/etc//hosts/", "options": ["ro", "rbind"]}]),
        containerEdits={"env": ["B=file", "C=file"], "additionalGids": [0, 44]},
    )
    known = Devices.load((tmp_path,))
    given = spec(env=("A=1", "D=1"), user=User(uid=7, gid=8, additional_gids=(9,)))

    changed, rules = known.inject(given, [f"{KIND}=a", f"{KIND}=b", f"{KIND}=a"])

    assert ("A=device", "D=1", "B=device", "C=file") == changed.process.env
    assert (9, 44) == changed.process.user.additional_gids
    assert (Mount(b"etc/hosts", "bind", "/lib/x", ("ro", "rbind")),) == changed.mounts
    assert changed.devices == (
        Device(b"dev/gadget0", "c", 1, 3, 0o666, 7, 8),
        Device(b"dev/sub/one", "b", 7, 9, 0o600, 0, 6),
        Device(b"dev/closed", "c", 1, 5, 0o666, 7, 8),
        Device(b"dev/tty", "c", 5, 0, 0o666, 7, 8),
    )
    assert ("c 1:3 rwm", "b 7:9 rwm", "c 5:0 r") == rules


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"hooks": [{"hookName": "createContainer", "path": "/x"}]}, "needs hooks, which pybuild does not support"),
        (
            {"netDevices": [{"hostInterfaceName": "a", "name": "b"}], "intelRdt": {"closID": "x"}},
            "netDevices and intelRdt",
        ),
        ({"deviceNodes": [{"path": "/dev/not-there"}]}, "device /dev/not-there: No such file or directory"),
        ({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}, "/dev/null is no device of type b"),
        (
            {"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]},
            "/etc/passwd is no device of type b, c or p",
        ),
    ],
)
def test_what_cannot_be_given(tmp_path: Path, edits: dict[str, Any], message: str) -> None:
    """What is not supported, or not there, is an error with the next action: nothing is left out silently."""
    describe(tmp_path, "a.json", device("a", **edits))

    with pytest.raises(DeviceError) as caught:
        Devices.load((tmp_path,)).inject(spec(), [f"{KIND}=a"])
    assert message in caught.value.message
    assert caught.value.hint
