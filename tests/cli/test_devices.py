"""RUN --device: devices of the host by their CDI names, in builds as users start them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.building import Project

pytestmark = pytest.mark.root

KIND = "vendor.example/gadget"


@pytest.fixture
def devices(project: Project) -> Path:
    """A directory with the description of two devices: a node that docker's defaults do not open, and a variable."""
    # The number of /dev/loop-control: whether there is a driver for it or not, only the rules forbid opening it.
    node = {"path": "/dev/gadget", "type": "c", "major": 10, "minor": 237, "fileMode": 0o640, "gid": 7}
    return describe(
        project,
        {"name": "log", "containerEdits": {"env": ["GADGET=log"], "deviceNodes": [node], "additionalGids": [44]}},
        {
            "name": "open",
            "containerEdits": {"env": ["GADGET=open"]},
            "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"},
        },
        {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}},
    )


def describe(project: Project, *found: dict[str, Any]) -> Path:
    """Write a file of devices; return its directory."""
    project.write("cdi/gadget.json", json.dumps({"cdiVersion": "0.6.0", "kind": KIND, "devices": found}))
    return project.cwd / "cdi"


def options(devices: Path, *allowed: str) -> list[str]:
    """The flags of a build that may use devices."""
    return ["--cdi-spec-dir", str(devices), *(f"--allow={text}" for text in allowed)]


def test_a_step_gets_its_devices(project: Project, devices: Path) -> None:
    """Node, rule for opening it, variable and group; the step beside it has none of them, nor has the image."""
    opened = "(: < /dev/NODE) 2>&1 | grep -o 'not permitted'"
    test = f"{opened}; stat -c '%F %a %g %t:%T' /dev/NODE; echo $GADGET; id -G".replace("NODE", "gadget")
    project.dockerfile(
        "FROM busybox AS with",
        f"RUN --device={KIND}=log,required ({test}) > /out",
        "FROM busybox AS without",
        f"RUN mknod /dev/own c 10 237; ({opened}; echo $GADGET) > /out".replace("NODE", "own"),
        "FROM scratch",
        "COPY --from=with /out /with",
        "COPY --from=without /out /without",
    )

    files = project.files(*options(devices, f"device={KIND}=log"))

    assert ["character special file 640 7 a:ed", "log", "0 44"] == files["with"].decode().splitlines()
    assert ["not permitted", ""] == files["without"].decode().splitlines()


def test_grants(project: Project, devices: Path) -> None:
    """A device has to be granted, by name, by another name or with all others, unless its file says otherwise."""
    project.dockerfile("FROM busybox", f"RUN --device={KIND}=log test $GADGET = log")
    refused = project.fails(*options(devices))
    assert f"device {KIND}=log is requested by the build but not allowed" in refused[0]
    assert "Dockerfile:2:5: error[device]" in refused[0]
    assert f"hint: pass --allow device={KIND}=log, or --allow device for every device" in refused[-1]
    for text in ("device", f"device={KIND}=*"):
        project.build("--no-cache", *options(devices, text))

    project.dockerfile("FROM busybox", "RUN --device=any.example/log,required test $GADGET = log")
    project.build(*options(devices, f"device={KIND}=log,alias=any.example/log"))

    project.dockerfile("FROM busybox", f"RUN --device={KIND}=open test $GADGET = open")
    project.build(*options(devices))


def test_devices_that_are_not_there(project: Project, devices: Path) -> None:
    """A step does without them, with a warning, unless it says that it cannot; then no step is made at all."""
    project.dockerfile("FROM busybox", "RUN touch /first", f'RUN --device={KIND}=none test -z "$GADGET"')
    done = project.build(*options(devices))
    assert f"device {KIND}=none is not there: the step runs without it" in done.err

    project.dockerfile("FROM busybox", "RUN touch /other", f"RUN --device={KIND}=none,required true")
    for allowed in ((), ("device",)):
        told = project.build(*options(devices, *allowed), status=1).err
        assert f'error[device]: required device "{KIND}=none" is not registered' in told
        assert f"hint: known are {KIND}=hooked, {KIND}=log, {KIND}=open" in told
    project.dockerfile("FROM busybox", "RUN touch /other")
    assert [False] == list(project.cached().values())[-1:]


def test_what_cannot_be_given(project: Project, devices: Path) -> None:
    """A device whose description asks for hooks is refused before anything is done, at the flag."""
    project.dockerfile("FROM busybox", f"RUN --network=none --device={KIND}=hooked true")

    told = project.fails(*options(devices, "device"))

    assert f"Dockerfile:2:20: error[device]: device {KIND}=hooked needs hooks" in told[0]


def test_the_name_counts_for_the_key(project: Project, devices: Path) -> None:
    """A step is taken from the cache while the names are the same, whatever they mean and whether they are there."""
    project.dockerfile("FROM busybox", f"RUN --device={KIND}=log true")
    first = project.id(*options(devices, "device"))
    describe(project, {"name": "log", "containerEdits": {"env": ["X=Y"]}})
    assert [True] == list(project.cached(*options(devices, "device")).values())[-1:]
    (devices / "gadget.json").unlink()
    assert first == project.id(*options(devices, "device"))
    describe(project, {"name": "log", "containerEdits": {"env": ["X=Y"]}})

    project.dockerfile("FROM busybox", f"RUN --device={KIND} true")
    assert [False] == list(project.cached(*options(devices, "device")).values())[-1:]


@pytest.mark.parametrize("text", ["devices", "network.host=x", "device=a/b,alias", 'device="a', "device=gpu"])
def test_entitlements_that_do_not_exist(project: Project, text: str) -> None:
    """They are refused with what there is."""
    project.dockerfile("FROM busybox")

    assert "--allow" in project.fails("--allow", text, status=2)[0]
    assert "--cdi-spec-dir: nowhere is not a directory" in project.fails("--cdi-spec-dir", "nowhere", status=2)[0]
