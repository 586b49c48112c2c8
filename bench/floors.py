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
    """A shell script that does the bare work in `place`; `$1` in it is a directory that is not there yet."""

    name: str
    script: str
    place: Path

    def commands(self, number: int) -> Sequence[Command]:
        """What is measured, for the run with this number.

        What a run leaves stays there: ext4 without a journal takes no inode again that was freed within a minute, and
        the search for one that was not makes the next files many times slower.
        """
        path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
        environ = {"PATH": path, "LC_ALL": "C"}
        return [Command(argv=["sh", "-e", "-c", self.script, "sh", f"out{number}"], environ=environ, cwd=self.place)]


def walk(context: Path) -> Floor:
    """A stat of every file, and an interpreter that starts."""
    script = f"{_python()}; find {_quoted(context)} -printf '%p %m %s %T@ %C@\\n' > /dev/null"
    return Floor(name="python -c pass; find -printf", script=script, place=context)


def tar(context: Path) -> Floor:
    """Every file read and hashed."""
    return Floor(name="tar | sha256sum", script=f"tar -C {_quoted(context)} -c . | sha256sum", place=context)


def copy(context: Path, place: Path) -> Floor:
    """Every file copied."""
    return Floor(name="cp -a", script=f'cp -a {_quoted(context)} "$1"', place=_made(place))


def links(context: Path, place: Path) -> Floor:
    """A hard link for every file."""
    return Floor(name="cp -al", script=f'cp -al {_quoted(context)} "$1"', place=_made(place))


def containers(root: Path, count: int) -> Floor:
    """Namespaces, a root directory and a program in them, so many times."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    shutil.copy(os.path.realpath(busybox), _made(root) / "true")
    one = f"unshare --mount --pid --ipc --uts --cgroup --fork chroot {_quoted(root)} /true"
    script = one if count == 1 else f"for n in $(seq {count}); do {one}; done"
    return Floor(name="unshare chroot true" + (f" × {count}" if count > 1 else ""), script=script, place=root)


def write(program: str, place: Path) -> Floor:
    """An awk program of busybox that writes into the working directory, and all that is read and hashed."""
    script = f'mkdir "$1"; cd "$1"; busybox awk {shlex.quote(program)}; tar -c . | sha256sum'
    return Floor(name="awk; tar | sha256sum", script=script, place=_made(place))


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


def _made(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    return place


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
