"""What a program needs to start: its interpreter and shared libraries, read from its ELF headers.

Knows the file format (System V gABI, chapters 4 and 5) and the dynamic loader's search order (ld.so(8)); starts
nothing, so that programs of other machines can be read too.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

from builder.errors import BuildError

_MAGIC = b"\x7fELF"
_BITS = {1: 32, 2: 64}
_ORDERS = {1: "<", 2: ">"}
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 15, 29
_LONGEST_NAME = 4096

_CACHE = b"/etc/ld.so.cache"
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_ENTRY = struct.Struct("=iIIIQ")
_CACHE_HEADER = 48

DEFAULT_DIRECTORIES = (b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """One ELF file: `bits` is 32 or 64, `machine` the number of its architecture, paths are as written in the file."""

    bits: int
    machine: int
    interpreter: bytes
    needed: tuple[bytes, ...]
    rpath: tuple[bytes, ...]
    runpath: tuple[bytes, ...]

    @classmethod
    def read(cls, path: bytes) -> Elf | None:
        """Read the headers of the file at `path`; None if it is no ELF file. BuildError if it is a broken one."""
        with open(path, "rb") as file:
            if file.read(4) != _MAGIC:
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                try:
                    return _parse(data)
                except (struct.error, IndexError, ValueError) as error:
                    raise BuildError(f"{os.fsdecode(path)}: not a whole ELF file ({error})") from None


class Libraries:
    """Finds shared libraries as the dynamic loader of the host would."""

    def __init__(self) -> None:
        self._cache: dict[bytes, list[bytes]] | None = None
        self.used_cache = False
        """Whether some library was found through /etc/ld.so.cache, which a copy of the programs then needs as well."""

    def find(self, name: bytes, *, user: Elf, origin: bytes, inherited: tuple[bytes, ...]) -> bytes | None:
        """Return the absolute path of the library `name` that the file `user` in the directory `origin` asks for.

        `inherited` are the DT_RPATHs of those that asked for `user`, nearest first. None if there is none.
        """
        if b"/" in name:
            return name if _matches(name, user) else None
        # ld.so(8): DT_RPATH counts only where there is no DT_RUNPATH, and then for everything below as well.
        directories = [] if user.runpath else [*user.rpath, *inherited]
        for directory in [*directories, *user.runpath]:
            candidate = os.path.join(_expanded(directory, origin, user.bits), name)
            if _matches(candidate, user):
                return candidate
        for candidate in self._cached(name):
            if _matches(candidate, user):
                self.used_cache = True
                return candidate
        for directory in DEFAULT_DIRECTORIES:
            candidate = os.path.join(directory, name)
            if _matches(candidate, user):
                return candidate
        return None

    def _cached(self, name: bytes) -> list[bytes]:
        if self._cache is None:
            self._cache = read_cache(_CACHE)
        return self._cache.get(name, [])


def read_cache(path: bytes) -> dict[bytes, list[bytes]]:
    """Return the libraries of a loader cache by name, best first; nothing if there is none (musl) or it is too old."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return {}
    start = data.find(_CACHE_MAGIC)  # before it there may be a cache of the old form
    if start < 0:
        return {}
    data = data[start:]
    (count,) = struct.unpack_from("=I", data, 20)
    found: dict[bytes, list[bytes]] = {}
    for index in range(count):
        _, key, value, _, _ = _CACHE_ENTRY.unpack_from(data, _CACHE_HEADER + index * _CACHE_ENTRY.size)
        found.setdefault(_string(data, key), []).append(_string(data, value))
    return found


def _matches(path: bytes, user: Elf) -> bool:
    """Whether there is a library for the same architecture; the loader goes on searching past those of others."""
    try:
        library = Elf.read(path)
    except (OSError, BuildError):
        return False
    return library is not None and (library.bits, library.machine) == (user.bits, user.machine)


def _expanded(directory: bytes, origin: bytes, bits: int) -> bytes:
    """Replace the loader's tokens (ld.so(8), "Dynamic string tokens")."""
    lib = b"lib64" if bits == 64 else b"lib"
    for token, value in ((b"ORIGIN", origin), (b"LIB", lib), (b"PLATFORM", os.fsencode(os.uname().machine))):
        directory = directory.replace(b"${" + token + b"}", value).replace(b"$" + token, value)
    return directory


def _parse(data: mmap.mmap) -> Elf:
    if data[4] not in _BITS or data[5] not in _ORDERS:
        raise ValueError("unknown class or byte order")
    bits, order = _BITS[data[4]], _ORDERS[data[5]]
    (machine,) = struct.unpack_from(order + "H", data, 18)
    table, size, count = _program_headers(data, order, bits)
    loads: list[tuple[int, int, int]] = []
    dynamic = interpreter = None
    for index in range(count):
        kind, offset, address, length = _segment(data, order, bits, table + index * size)
        if kind == _PT_LOAD:
            loads.append((address, offset, length))
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, length)
        elif kind == _PT_INTERP:
            interpreter = data[offset : offset + length].rstrip(b"\0")
    tags = _dynamic(data, order, bits, *dynamic) if dynamic else []
    values = dict(tags)
    strings = _file_offset(values[_DT_STRTAB], loads) if _DT_STRTAB in values else 0

    def paths(tag: int) -> tuple[bytes, ...]:
        return tuple(part for part in _string(data, strings + values[tag]).split(b":") if part) if tag in values else ()

    return Elf(
        bits=bits,
        machine=machine,
        interpreter=interpreter or b"",
        needed=tuple(_string(data, strings + value) for tag, value in tags if tag == _DT_NEEDED),
        rpath=paths(_DT_RPATH),
        runpath=paths(_DT_RUNPATH),
    )


def _program_headers(data: mmap.mmap, order: str, bits: int) -> tuple[int, int, int]:
    """Return offset, entry size and number of the program headers."""
    if bits == 64:
        (table,) = struct.unpack_from(order + "Q", data, 32)
        size, count = struct.unpack_from(order + "HH", data, 54)
    else:
        (table,) = struct.unpack_from(order + "I", data, 28)
        size, count = struct.unpack_from(order + "HH", data, 42)
    return table, size, count


def _segment(data: mmap.mmap, order: str, bits: int, at: int) -> tuple[int, int, int, int]:
    """Return (type, file offset, address, size in the file) of one program header."""
    if bits == 64:
        kind, _, offset, address, _, length = struct.unpack_from(order + "IIQQQQ", data, at)
    else:
        kind, offset, address, _, length = struct.unpack_from(order + "IIIII", data, at)
    return kind, offset, address, length


def _dynamic(data: mmap.mmap, order: str, bits: int, offset: int, length: int) -> list[tuple[int, int]]:
    """Return the (tag, value) pairs of the dynamic section."""
    entry = struct.Struct(order + ("qQ" if bits == 64 else "iI"))
    pairs: list[tuple[int, int]] = []
    for at in range(offset, offset + length, entry.size):
        tag, value = entry.unpack_from(data, at)
        if tag == 0:
            break
        pairs.append((tag, value))
    return pairs


def _file_offset(address: int, loads: list[tuple[int, int, int]]) -> int:
    for start, offset, length in loads:
        if start <= address < start + length:
            return offset + address - start
    raise ValueError("its string table is not in the file")


def _string(data: mmap.mmap | bytes, at: int) -> bytes:
    end = data.find(b"\0", at, at + _LONGEST_NAME)
    if end < 0:
        raise ValueError("a name without an end")
    return data[at:end]
