"""Programs of this machine with everything they need to start, as the entries of one layer.

Follows interpreters, shared libraries and symbolic links; what a program opens while it runs (plugins, data) has to be
named.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from builder.elf import Elf, Libraries
from builder.errors import BuildError
from layerstore.entry import Entry, Kind
from layerstore.files import capability

SEARCH_PATH = (b"/usr/local/sbin", b"/usr/local/bin", b"/usr/sbin", b"/usr/bin", b"/sbin", b"/bin")
"""Where programs are looked for, and what PATH is in the image."""

# fmt: off
DEFAULT_PROGRAMS = (
    "sh", "basename", "cat", "chgrp", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "du",
    "echo", "env", "expr", "false", "find", "grep", "gzip", "head", "hostname", "id", "ln", "ls", "mkdir",
    "mknod", "mktemp", "mv", "nproc", "od", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir",
    "sed", "seq", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "tar", "tee", "test", "touch", "tr",
    "true", "uname", "uniq", "wc", "which", "whoami", "xargs", "yes",
)
# fmt: on
"""What the image has when nobody says what: a shell and what scripts commonly call, as far as the host has it."""

_NAME_SERVICE = (b"libnss_files.so.2", b"libnss_dns.so.2", b"libresolv.so.2")
"""What glibc loads by name to look up users and hosts, so that no header says it."""
_MERGED = (b"/bin", b"/lib", b"/lib32", b"/lib64", b"/sbin")
_MAX_LINKS = 40
_SHEBANG_LIMIT = 256


class HostRoot:
    """Collects paths of the host and hands them out as entries, sorted and with their directories."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._libraries = Libraries()
        self._seen: set[bytes] = set()

    def add_program(self, name: str, *, required: bool = True) -> None:
        """Add the program `name` (a path, or found in SEARCH_PATH) and what it needs; BuildError if there is none."""
        path = _which(os.fsencode(name))
        if path is None:
            if required:
                raise BuildError(f"this machine has no program called {name}", hint="install it, or check its spelling")
            return
        self.add_path(path)

    def add_path(self, path: bytes) -> None:
        """Add a file with what it needs to start, or a directory with everything below it. `path` is absolute.

        What files in a directory need is left out where this machine lacks it: not all of them are meant to start.
        """
        real = self._walk(path)
        if os.path.isdir(b"/" + real):
            for folder, names, files in os.walk(b"/" + real):
                names.sort()
                for name in [*names, *files]:
                    self._add_below(os.path.join(folder, name))
        else:
            self._needs(b"/" + real, (), strict=True)

    def entries(self) -> Iterator[Entry]:
        """Yield everything collected, directories before what is in them."""
        # Where /bin is a link to usr/bin, scripts still say #!/bin/sh.
        for name in _MERGED:
            if os.path.islink(name):
                self._walk(name)
        if self._libraries.used_cache:
            self._walk(b"/etc/ld.so.cache")
        yield _entry(b"")
        for path in sorted(self._paths, key=lambda path: path.split(b"/")):
            yield _entry(path)

    def _add_below(self, path: bytes) -> None:
        """Add what was found in a directory: links stay links, and programs bring along what they need."""
        self._paths.add(path[1:])
        if os.path.isfile(path):
            self._needs(b"/" + self._walk(path), (), strict=False)

    def _walk(self, path: bytes) -> bytes:
        """Add every component of `path` and of the links on the way; return where it ends, relative to the root."""
        done: list[bytes] = []
        left = path.split(b"/")[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if done:
                    done.pop()
                continue
            here = b"/".join([*done, part])
            try:
                mode = os.lstat(b"/" + here).st_mode
            except FileNotFoundError:
                raise BuildError(f"{os.fsdecode(path)} does not exist", hint="check its spelling") from None
            self._paths.add(here)
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise BuildError(f"{os.fsdecode(path)}: too many levels of symbolic links")
                target = os.readlink(b"/" + here)
                if target.startswith(b"/"):
                    done.clear()
                left += target.split(b"/")[::-1]
            else:
                done.append(part)
        return b"/".join(done)

    def _needs(self, path: bytes, inherited: tuple[bytes, ...], *, strict: bool) -> None:
        """Add the interpreter and the libraries of the file at `path`, and theirs; BuildError if `strict` lacks one."""
        if path in self._seen:
            return
        self._seen.add(path)
        elf = Elf.read(path)
        if elf is None:
            if strict:
                self._script(path)
            return
        if elf.interpreter:
            self._walk(elf.interpreter)
        rpaths = () if elf.runpath else (*elf.rpath, *inherited)
        for name in elf.needed:
            self._library(name, elf, path, rpaths, required=strict)
            if name.startswith(b"libc.so."):
                for service in _NAME_SERVICE:
                    self._library(service, elf, path, rpaths, required=False)

    def _library(self, name: bytes, user: Elf, path: bytes, inherited: tuple[bytes, ...], *, required: bool) -> None:
        found = self._libraries.find(name, user=user, origin=os.path.dirname(path), inherited=inherited)
        if found is not None:
            self._needs(b"/" + self._walk(found), inherited, strict=required)
        elif required:
            raise BuildError(
                f"{os.fsdecode(path)} needs the library {os.fsdecode(name)}, which this machine does not have",
                hint="the program does not start here either: install the package that has the library",
            )

    def _script(self, path: bytes) -> None:
        """Add the interpreter that a script's first line names, and the program that `env` is told to start."""
        with open(path, "rb") as file:
            first = file.readline(_SHEBANG_LIMIT)
        if not first.startswith(b"#!"):
            return
        words = first[2:].split()
        if not words:
            return
        self.add_path(words[0])
        if os.path.basename(words[0]) == b"env":
            for word in words[1:]:
                if not word.startswith(b"-") and b"=" not in word:
                    self.add_program(os.fsdecode(word))
                    break


def collect(programs: Sequence[str]) -> Iterator[Entry]:
    """Return the entries of `programs`: names, absolute paths of files, or of directories; the default set if empty."""
    root = HostRoot()
    for name in programs:
        if os.path.isdir(name):
            root.add_path(os.fsencode(os.path.abspath(name)))
        else:
            root.add_program(name)
    if not programs:
        for name in DEFAULT_PROGRAMS:
            root.add_program(name, required=name == "sh")
    return root.entries()


def merged(*layers: Iterable[Entry]) -> list[Entry]:
    """Return the entries of several lists as one, sorted; where two have one path, the first list has it."""
    found: dict[bytes, Entry] = {}
    for entries in layers:
        for entry in entries:
            found.setdefault(entry.path, entry)
    return sorted(found.values(), key=lambda entry: entry.path.split(b"/") if entry.path else [])


def _which(name: bytes) -> bytes | None:
    if b"/" in name:
        return os.path.abspath(name) if os.path.isfile(name) else None
    for directory in SEARCH_PATH:
        candidate = os.path.join(directory, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _entry(path: bytes) -> Entry:
    """Return the entry of a path of the host, owned by root as everything in a base image."""
    status = os.lstat(b"/" + path)
    mode = stat.S_IMODE(status.st_mode)
    mtime = status.st_mtime_ns
    if stat.S_ISDIR(status.st_mode):
        # The time of a directory tells when the host last installed something: nothing that belongs to the image.
        return Entry(path, Kind.DIR, mode)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, Kind.SYMLINK, 0o777, mtime_ns=mtime, target=os.readlink(b"/" + path))
    size = status.st_size
    return Entry(path, Kind.FILE, mode, mtime_ns=mtime, size=size, xattrs=capability(b"/" + path), source=b"/" + path)
