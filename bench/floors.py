"""The floors: programs in C that do the bare work of a build, without a cache, an image or a store."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A shell script that does the bare work in `place`; `again` is what has to be gone before it is run again."""

    name: str
    script: str
    place: Path
    again: Path | None = None

    def ready(self) -> None:
        """Before each run; not measured."""
        self.place.mkdir(parents=True, exist_ok=True)
        if self.again is not None:
            shutil.rmtree(self.again, ignore_errors=True)

    def commands(self) -> Sequence[Command]:
        """What is measured."""
        path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
        environ = {"PATH": path, "LC_ALL": "C"}
        return [Command(argv=["sh", "-e", "-c", self.script], environ=environ, cwd=self.place)]


def walk(context: Path) -> Floor:
    """A stat of every file, and an interpreter that starts."""
    script = f"{_python()}; find {_quoted(context)} -printf '%p %m %s %T@ %C@\\n' > /dev/null"
    return Floor(name="python -c pass; find -printf", script=script, place=context)


def tar(context: Path) -> Floor:
    """Every file read and hashed."""
    return Floor(name="tar | sha256sum", script=f"tar -C {_quoted(context)} -c . | sha256sum", place=context)


def copy(context: Path, to: Path) -> Floor:
    """Every file copied."""
    return Floor(name="cp -a", script=f"cp -a {_quoted(context)} {_quoted(to)}", place=to.parent, again=to)


def links(context: Path, to: Path) -> Floor:
    """A hard link for every file."""
    return Floor(name="cp -al", script=f"cp -al {_quoted(context)} {_quoted(to)}", place=to.parent, again=to)


def containers(root: Path, count: int) -> Floor:
    """Namespaces, a root directory and a program in them, so many times."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(os.path.realpath(busybox), root / "true")
    one = f"unshare --mount --pid --ipc --uts --cgroup --fork chroot {_quoted(root)} /true"
    script = one if count == 1 else f"for n in $(seq {count}); do {one}; done"
    return Floor(name="unshare chroot true" + (f" × {count}" if count > 1 else ""), script=script, place=root)


def write(program: str, to: Path) -> Floor:
    """An awk program of busybox that writes into the working directory, and all that is read and hashed."""
    quoted = _quoted(to)
    script = f"mkdir {quoted}; cd {quoted}; busybox awk {shlex.quote(program)}; tar -c . | sha256sum"
    return Floor(name="awk; tar | sha256sum", script=script, place=to.parent, again=to)


def upload(blob: Path, host: str) -> Floor:
    """A file hashed and sent to a registry in one request, which hashes it as well."""
    quoted = _quoted(blob)
    script = (
        f"digest=sha256:$(tar -cf - {quoted} 2> /dev/null | sha256sum | cut -d ' ' -f 1); "
        f"where=$(curl -fsS -X POST -D - -o /dev/null http://{host}/v2/floor/blobs/uploads/"
        " | tr -d '\\r' | sed -n 's/^[Ll]ocation: //p'); "
        f"tar -cf - {quoted} 2> /dev/null | curl -fsS -T - -H 'Content-Type: application/octet-stream'"
        ' "$where&digest=$digest"'
    )
    return Floor(name="tar | sha256sum; curl", script=script, place=blob.parent)


def interpreter() -> Floor:
    """A Python that starts and ends."""
    return Floor(name="python -c pass", script=f"exec {_python()}", place=Path("/"))


def _python() -> str:
    return f"{shlex.quote(os.path.realpath(sys.executable))} -I -S -c pass"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
