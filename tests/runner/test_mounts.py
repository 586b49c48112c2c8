"""Mounts, mount points and the root filesystem, as seen from inside and as left behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runner import (
    Device,
    Directory,
    ExitStatus,
    FileMount,
    Mount,
    Overlay,
    OverlayMount,
    ProcessSpec,
    SetupError,
    Spec,
    SpecError,
    default_mounts,
    privileged,
)
from runner.mounts import from_wire
from runner.plan import mount_operations
from tests.runner.conftest import PATH, Bench

pytestmark = pytest.mark.root


def bind(source: Path, destination: str, *options: str) -> Mount:
    """Return a bind mount."""
    return Mount(destination=destination.encode(), type="bind", source=str(source), options=options)


def test_default_mounts(bench: Bench) -> None:
    """/proc, /dev, /sys and cgroups are mounted as in a docker container, with its flags and sizes."""
    table = {line.split()[2]: line.split() for line in bench.sh("mount").splitlines()}
    options = {point: fields[5] for point, fields in table.items()}

    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"} <= set(table)
    assert options["/proc"].startswith("(rw,nosuid,nodev,noexec")
    assert options["/sys"].startswith("(ro,nosuid,nodev,noexec")
    assert "size=65536k" in options["/dev/shm"]
    assert all(value.startswith("(ro,") for point, value in options.items() if point.startswith("/sys/fs/cgroup"))
    assert [point for point in table if point == "/run"] == []


def test_device_nodes(bench: Bench) -> None:
    """/dev has the standard nodes and links, to the kernel's memory only where the kernel shows it; they work."""
    script = "ls /dev; head -c 3 /dev/zero | wc -c; echo x > /dev/null; readlink /dev/ptmx; echo full > /dev/full"
    status, text = bench.run(bench.spec("sh", "-c", script))
    expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    core = ["core"] if os.path.exists("/proc/kcore") else []

    assert text.split()[: len(core) + 16] == [*core, *expected.split(), "3", "pts/ptmx"]
    assert status != ExitStatus(0, None)


def test_own_and_host_devices(bench: Bench) -> None:
    """A device can be added, with mode and owner; a privileged container sees those of the host."""
    device = Device(path=b"/dev/net/mine", type="c", major=1, minor=3, file_mode=0o640, uid=1, gid=2)
    script = "stat -c '%a %u %g %t:%T' /dev/net/mine; echo x > /dev/net/mine"

    assert bench.sh(script, devices=(device,)) == "640 1 2 1:3\n"
    status, text = bench.run(privileged(bench.spec("sh", "-c", "ls /dev | wc -l")))
    assert status == ExitStatus(0, None)
    assert int(text) > 15


def test_masked_and_readonly_paths(bench: Bench) -> None:
    """Kernel secrets are hidden, kernel settings cannot be changed; in a privileged container they can be seen."""
    script = "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic"
    status, text = bench.run(bench.spec("sh", "-c", script))

    assert text.split()[:2] == ["0", "0"]
    assert text.count("Read-only file system") == 1
    assert status == ExitStatus(1, None)
    status, text = bench.run(privileged(bench.spec("sh", "-c", "mount -t tmpfs none /tmp && grep -c . /proc/keys")))
    assert status == ExitStatus(0, None)


def test_nothing_of_the_runtime_reaches_the_layer(bench: Bench, tmp_path: Path) -> None:
    """Mount points made for the container are gone afterwards, with the directories they had copied up."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    extra = (
        bind(hosts, "etc/hosts", "ro"),
        bind(hosts, "etc/resolv.conf", "ro"),
        bind(hosts, "etc/one/two/file", "ro"),
        Mount(destination=b"deep/er/point", type="tmpfs"),
    )
    script = "cat /etc/hosts; echo x > /dev/shm/lost; echo x > /deep/er/point/x; echo x >> /etc/hosts || echo refused"
    before = os.stat(bench.upper).st_mtime_ns
    text = bench.run(bench.spec("sh", "-c", script, mounts=(*default_mounts(), *extra)))[1]

    assert text.splitlines()[0::2][:1] == ["127.0.0.1 localhost"]
    assert text.splitlines()[-1] == "refused"
    assert bench.changes() == []
    assert os.stat(bench.upper).st_mtime_ns == before


def test_what_the_step_did_stays(bench: Bench, tmp_path: Path) -> None:
    """Only points that are still empty vanish, and a parent the step changed keeps the step's change and time."""
    source = tmp_path / "source"
    source.mkdir()
    mounts = (*default_mounts(), bind(source, "srv/cache"), bind(source, "etc/kept/point"), bind(source, "root/point"))
    script = "mkdir /srv/kept; chmod 700 /etc/kept; echo x > /srv/cache/x; chmod 711 /root; touch -d @1000000000 /root"
    bench.sh(script, mounts=mounts)

    assert bench.changes() == ["root", "srv", "srv/kept"]
    assert os.stat(bench.upper / "root").st_mode & 0o777 == 0o711
    assert os.stat(bench.upper / "root").st_mtime == 1000000000
    assert (source / "x").read_text() == "x\n"


def test_a_parent_that_existed_keeps_its_time(bench: Bench, tmp_path: Path) -> None:
    """A directory of the upper that only got a mount point has the time it had before."""
    (bench.upper / "etc").mkdir()
    os.utime(bench.upper / "etc", (1000000000, 1000000000))
    bench.sh("true", mounts=(*default_mounts(), FileMount(destination=b"etc/secret", data=b"s")))

    assert bench.changes() == ["etc"]
    assert os.stat(bench.upper / "etc").st_mtime == 1000000000


def test_bare_image(tmp_path: Path, bench: Bench) -> None:
    """From nothing: the upper itself is the root; /dev, /proc and /sys stay behind, as with the reference."""
    mounts = (*default_mounts(), bind(bench.base / "bin", "bin"))
    rootfs = Overlay(lowers=(), upper=bench.upper, work=bench.work)
    bench.run(bench.spec("/bin/busybox", "touch", "/made", mounts=mounts)._replace(rootfs=rootfs))

    assert bench.changes() == ["dev", "made", "proc", "sys"]


def test_bind_mounts(bench: Bench, tmp_path: Path) -> None:
    """Files and directories can be bound, writable or read-only, and hide what the image has there."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_text("from outside\n")
    mounts = (
        *default_mounts(),
        bind(source, "root", "rw"),
        bind(source, "mnt/ro", "rbind", "ro"),
        bind(source / "file", "etc/passwd", "ro"),
    )
    script = "cat /etc/passwd; ls /root; echo new > /root/new; touch /mnt/ro/no; touch /etc/passwd"
    _, text = bench.run(bench.spec("sh", "-c", script, mounts=mounts))

    assert text.split("\n")[:3] == ["from outside", "file", "sub"]
    assert text.count("Read-only file system") == 2
    assert (source / "new").read_text() == "new\n"
    assert bench.changes() == []


def test_parents_are_mounted_first(bench: Bench, tmp_path: Path) -> None:
    """Nested mounts work in whatever order they are given."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    (inner / "here").touch()
    mounts = (bind(inner, "mnt/a/b"), bind(outer, "mnt"), *default_mounts())

    assert bench.sh("ls /mnt/a/b", mounts=mounts) == "here\n"
    assert [path.name for path in outer.rglob("*")] == ["a", "b"]


def test_tmpfs_size_and_mode(bench: Bench) -> None:
    """A tmpfs has the given size and mode and starts empty."""
    mounts = (*default_mounts(), Mount(destination=b"root", type="tmpfs", options=("size=1m", "mode=0711", "uid=7")))
    script = "stat -c '%a %u' /root; dd if=/dev/zero of=/root/x bs=1k count=2000 2>/dev/null; stat -c %s /root/x"

    assert bench.sh(script, mounts=mounts) == "711 7\n1048576\n"


def test_file_in_memory(bench: Bench) -> None:
    """A file mount has its mode and owner, cannot be written and runs only if its mode has x."""
    mounts = (
        *default_mounts(),
        FileMount(destination=b"run/secrets/pin", data=b"0000", uid=3, gid=4),
        FileMount(destination=b"script", data=b"#!/bin/sh\necho ran\n", mode=0o755),
        FileMount(destination=b"bad", data=b"#!/bin/sh\necho ran\n", mode=0o644),
    )
    script = "cat /run/secrets/pin; stat -c ' %a %u %g' /run/secrets/pin; /script; /bad; echo x > /script"
    _, text = bench.run(bench.spec("sh", "-c", script, mounts=mounts))

    assert text.splitlines()[:2] == ["0000 400 3 4", "ran"]
    assert ("Permission denied" in text, "Read-only file system" in text) == (True, True)
    assert bench.changes() == []


def test_layers_as_a_mount(bench: Bench, tmp_path: Path) -> None:
    """Layers can be mounted somewhere; what is written there goes to their own upper."""
    parts = {name: tmp_path / name for name in ("top", "bottom", "scratch", "scratch-work")}
    for path in parts.values():
        path.mkdir()
    (parts["top"] / "both").write_text("top\n")
    (parts["bottom"] / "both").write_text("bottom\n")
    (parts["bottom"] / "deep").write_text("deep\n")
    layers = OverlayMount(
        destination=b"mnt",
        lowers=(parts["top"], parts["bottom"]),
        upper=parts["scratch"],
        work=parts["scratch-work"],
    )
    mounts = (*default_mounts(), layers)

    assert bench.sh("cat /mnt/*; echo new > /mnt/new", mounts=mounts) == "top\ndeep\n"
    assert [path.name for path in parts["scratch"].iterdir()] == ["new"]
    closed = layers._replace(read_only=True)
    assert bench.run(bench.spec("touch", "/mnt/x", mounts=(*default_mounts(), closed)))[0] == ExitStatus(1, None)


def test_read_only_root(bench: Bench, tmp_path: Path) -> None:
    """A read-only root cannot be written; what is mounted in it can, and mount points are still made."""
    rootfs = Overlay(lowers=(bench.base,), upper=bench.upper, work=bench.work, read_only=True)
    mounts = (*default_mounts(), bind(tmp_path, "new/point"))
    spec = bench.spec("sh", "-c", "touch /x; echo y > /new/point/y; echo z > /dev/shm/z", mounts=mounts)._replace(
        rootfs=rootfs
    )
    text = bench.run(spec)[1]

    assert text == "touch: /x: Read-only file system\n"
    assert (tmp_path / "y").read_text() == "y\n"
    assert bench.changes() == []


@pytest.mark.parametrize("target", ["/../../../../outside", "../../../../../../outside", "/outside", "chain"])
def test_targets_never_leave_the_root(bench: Bench, tmp_path: Path, target: str) -> None:
    """A link in the image leads a mount to a place inside the image, whatever it says."""
    (bench.upper / "trap").symlink_to(target)
    (bench.upper / "chain").symlink_to("/proc/../outside")
    mounts = (*default_mounts(), FileMount(destination=b"trap", data=b"inside\n", mode=0o444))

    assert bench.sh("cat /outside", mounts=mounts) == "inside\n"
    assert bench.changes() == ["chain", "trap"]
    assert not Path("/outside").exists()


def test_magic_links_are_not_followed(bench: Bench) -> None:
    """A mount through /proc/self/root or the like is refused: it would lead to the host."""
    (bench.upper / "trap").symlink_to("/proc/self/root/tmp")
    with pytest.raises(SetupError) as caught:
        bench.sh("true", mounts=(*default_mounts(), Mount(destination=b"trap/x", type="tmpfs")))

    assert caught.value.stage == "mounts"


def test_missing_source(bench: Bench) -> None:
    """A source that does not exist is an error with its path, and leaves no mount point behind."""
    with pytest.raises(SetupError) as caught:
        bench.sh("true", mounts=(*default_mounts(), bind(Path("/nothing/there"), "new/point")))

    assert (caught.value.stage, caught.value.errno, caught.value.path) == ("mounts", 2, "/nothing/there")


def test_six_hundred_layers(bench: Bench, tmp_path: Path) -> None:
    """More layers than the kernel stacks at once: order and whiteouts hold across the seam."""
    layers = [bench.base]
    for number in range(600):
        layer = tmp_path / ("layer-with-a-long-name-" + "x" * 180) / str(number)
        (layer / "n").mkdir(parents=True)
        (layer / "n" / str(number)).touch()
        (layer / "last").write_text(f"{number}\n")
        layers.insert(0, layer)
    os.mknod(layers[0] / "n/3", 0o020000, 0)  # the topmost layer takes away what the fourth brought
    rootfs = Overlay(lowers=tuple(layers), upper=bench.upper, work=bench.work)
    status, text = bench.run(
        bench.spec("sh", "-c", "cat /last; ls /n | wc -l; ls /n/3; echo hi > /n/5")._replace(rootfs=rootfs)
    )

    assert text.splitlines()[:2] == ["599", "599"]
    assert "No such file" in text
    assert status == ExitStatus(0, None)
    assert bench.changes() == ["n", "n/5"]


def test_too_many_layers(bench: Bench) -> None:
    """Beyond what can be stacked there is an error that says so."""
    rootfs = Overlay(lowers=(bench.base,) * 1000, upper=bench.upper, work=bench.work)
    with pytest.raises(SetupError, match="more than 999 layers"):
        bench.run(bench.spec("true")._replace(rootfs=rootfs))


def test_directory_as_root(bench: Bench, tmp_path: Path) -> None:
    """A directory of the host can be the root; changes are made in it, mount points are taken away again."""
    root = tmp_path / "root"
    shutil.copytree(bench.base, root, symlinks=True)
    spec = Spec(
        rootfs=Directory(path=root),
        process=ProcessSpec(args=("sh", "-c", "echo hello > /made"), env=(PATH,)),
        mounts=(*default_mounts(), Mount(destination=b"a/b", type="tmpfs")),
    )

    assert bench.run(spec) == (ExitStatus(0, None), "")
    assert (root / "made").read_text() == "hello\n"
    assert not (root / "a").exists()


def test_layer_is_a_whole_difference(bench: Bench) -> None:
    """A renamed directory is copied, not redirected: the upper can become a layer by itself."""
    bench.sh("mkdir /d && rm /etc/group && rm -r /root && mkdir /root")
    attributes = {
        name
        for path in [bench.upper, *bench.upper.rglob("*")]
        for name in os.listxattr(path, follow_symlinks=False)
        if name.startswith("trusted.overlay.")
    }

    assert attributes <= {
        "trusted.overlay.opaque",
        "trusted.overlay.origin",
        "trusted.overlay.impure",
        "trusted.overlay.uuid",
    }
    assert os.stat(bench.upper / "etc/group").st_rdev == 0
    assert os.getxattr(bench.upper / "root", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(destination=b"", type="tmpfs"), "root of the container"),
        (Mount(destination=b"x", type="bind", source="relative"), "not an absolute path"),
        (Mount(destination=b"x", type="bind", source="/tmp", options=("sise=1",)), "sise=1"),
    ],
)
def test_mounts_that_make_no_sense(bench: Bench, mount: Mount, message: str) -> None:
    """They are refused with a message before anything starts."""
    with pytest.raises(SpecError, match=message):
        bench.sh("true", mounts=(*default_mounts(), mount))


def test_operations_describe_themselves_and_travel(bench: Bench, tmp_path: Path) -> None:
    """The plan is data: it can be shown without root, and is the same after its way to the launcher."""
    mounts = (bind(tmp_path, "mnt/x", "ro"), *default_mounts(), FileMount(destination=b"s", data=b"secret"))
    operations = mount_operations(bench.spec("true", mounts=mounts))
    lines = [operation.describe() for operation in operations]

    assert lines[0] == "proc /proc nosuid,nodev,noexec"
    assert f"bind /mnt/x from {tmp_path} ro" in lines
    assert "secret" not in " ".join(lines)
    assert [from_wire(operation.wire()).describe() for operation in operations] == lines
