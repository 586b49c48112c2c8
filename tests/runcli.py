"""`pybuild` as a user calls it, against a store with an image around a static busybox, and a look at what it leaves."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerstore import Entry, Inline, Kind, Store
from layerstore.layers import Forms

REPOSITORY = Path(__file__).parent.parent
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8"}

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nmira:x:2000:2001:Mira:/home/mira:/bin/sh\n"
GROUP = b"root:x:0:\nbin:x:2:\nmira:x:2001:\nnet:x:2002:mira\n"


@dataclass(frozen=True)
class Ended:
    """How a call ended."""

    status: int
    out: str
    err: str


@dataclass
class Cli:
    """One store and the calls against it."""

    root: Path

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "builder", "--root", str(self.root), *words]

    def __call__(self, *words: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Ended:
        """Call it and wait."""
        done = subprocess.run(
            self.argv(*words),
            input=stdin,
            capture_output=True,
            cwd=REPOSITORY,
            env={**ENVIRON, **(environ or {})},
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *words: str, stdin: bytes = b"") -> Ended:
        """`pybuild run --rm` without a network."""
        return self("run", "--rm", "--network", "none", *words, stdin=stdin)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and let it run; its output comes through pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(self.argv(*words), cwd=REPOSITORY, env=ENVIRON, **pipes)

    def ps(self) -> list[dict[str, Any]]:
        """All containers, as JSON has them."""
        return [json.loads(line) for line in self("ps", "-a", "--format", "json").out.splitlines()]

    def add_image(self, name: str, *, marker: bytes = b"", **config: object) -> None:
        """Put an image with this config into the store; its one layer is busybox, with a file `/marker` if wanted."""
        with Store.open(self.root) as store, store.lease():
            more = [Entry(b"marker", Kind.FILE, size=len(marker), source=Inline(marker))] if marker else []
            layer = store.layers.write([*_entries(), *more], forms=Forms.TREE)
            document = {
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64"),
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], **config},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            }
            names = [f"docker.io/library/{name}:latest"]
            store.images.put(json.dumps(document).encode(), layers=[layer.diff_id], names=names)


def _entries() -> Iterator[Entry]:
    for path, mode, uid, gid in (
        (b"bin", 0o755, 0, 0),
        (b"etc", 0o755, 0, 0),
        (b"root", 0o700, 0, 0),
        (b"tmp", 0o1777, 0, 0),
        (b"data", 0o750, 2000, 2001),
        (b"srv", 0o711, 0, 2),
    ):
        yield Entry(path, Kind.DIR, mode, uid, gid)
    busybox = shutil.which("busybox") or "/bin/busybox"
    size = os.stat(busybox).st_size
    yield Entry(b"bin/busybox", Kind.FILE, 0o755, size=size, source=os.fsencode(os.path.realpath(busybox)))
    listing = subprocess.run([busybox, "--list"], capture_output=True, check=True).stdout
    for applet in sorted(set(listing.split()) - {b"busybox"}):
        yield Entry(b"bin/" + applet, Kind.SYMLINK, 0o777, target=b"busybox")
    for path, data in ((b"etc/passwd", PASSWD), (b"etc/group", GROUP), (b"data/seed", b"seed\n")):
        yield Entry(path, Kind.FILE, 0o644, size=len(data), source=Inline(data))


def host_state(root: Path) -> dict[str, list[str]]:
    """What containers of the store at `root` may not leave behind; others may use the machine meanwhile."""
    links = sorted(name for name in os.listdir("/sys/class/net") if name.startswith("pb"))
    groups = sorted(filter(_is_empty, _groups()))
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    return {"links": links, "groups": groups, "mounts": mounts, "processes": _processes(root)}


def _groups() -> Iterator[str]:
    """The control groups of containers, which have ids for names."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        if os.path.basename(folder) == "pybuild":
            yield from (os.path.join(folder, name) for name in names if len(name) == 64)


def _is_empty(group: str) -> bool:
    """Whether a control group is one that nobody is in: left behind, or just about to be joined or removed."""
    try:
        return not Path(group, "cgroup.procs").read_text()
    except OSError:
        return False


def _processes(root: Path) -> list[str]:
    """Processes of pybuild that were called for the store at `root`, or have a file of it open."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        process = Path("/proc", entry)
        try:
            name = (process / "comm").read_text().strip()
            files = [os.readlink(file) for file in (process / "fd").iterdir()]
            called = str(root).encode() in (process / "cmdline").read_bytes()
        except OSError:
            continue
        if entry != str(os.getpid()) and (called or any(file.startswith(f"{root}/") for file in files)):
            found.append(name)
    return sorted(found)


def wait_for(condition: Any, seconds: float = 10.0) -> Any:
    """What `condition` returns once that is true; AssertionError if it never is."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return result


def read_until(fd: int, wanted: bytes, seconds: float = 10.0, *, before: bytes = b"") -> bytes:
    """Read until `wanted` was seen, its beginning maybe in `before`; all that was read. AssertionError if it is not."""
    data = b""
    deadline = time.monotonic() + seconds
    while wanted not in before + data:
        left = deadline - time.monotonic()
        assert left > 0, data
        assert select.select([fd], [], [], left)[0], data
        try:
            block = os.read(fd, 65536)
        except OSError:
            block = b""
        assert block, data
        data += block
    return data


def end(process: subprocess.Popen[bytes], signum: int | None = None) -> int:
    """Send a signal, wait, close the pipes, and return the status."""
    if signum is not None:
        process.send_signal(signum)
    try:
        status = process.wait(30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        raise
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return status
