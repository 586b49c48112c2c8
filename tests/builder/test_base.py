"""Base images as entries: what the cases take for granted, and what a program needs to start."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from builder import base
from builder.debian import Debian, default_suite, install
from builder.elf import Elf, read_cache
from builder.errors import BuildError, UsageError
from builder.hostroot import collect, merged
from layerstore.entry import Entry, Inline, Kind

CASES = Path(__file__).resolve().parent.parent / "cases"
KINDS = {Kind.FILE: "file", Kind.DIR: "dir", Kind.SYMLINK: "symlink"}


def data(entry: Entry) -> bytes:
    """What a file holds."""
    match entry.source:
        case Inline(content):
            return content
        case bytes() as path:
            return Path(os.fsdecode(path)).read_bytes()
    raise AssertionError(entry)


def record(entry: Entry) -> dict[str, object]:
    """An entry in the form of the cases."""
    made: dict[str, object] = {"type": KINDS[entry.kind], "uid": entry.uid, "gid": entry.gid}
    if entry.kind is Kind.SYMLINK:
        return {**made, "target": entry.target.decode()}
    made["mode"] = f"{entry.mode:04o}"
    if entry.kind is Kind.FILE:
        made |= {"size": entry.size, "sha256": hashlib.sha256(data(entry)).hexdigest()}
    return made


def test_busybox_is_the_base_of_the_cases() -> None:
    """`pybuild base busybox` makes exactly the tree that the recorded cases build on."""
    expected = json.loads((CASES / "base.json").read_text())["tree"]
    entries, _ = base.busybox()
    found = {"/" + entry.path.decode(): record(entry) for entry in entries if entry.path}
    # The cases depend on no byte of the program itself, only on what it is called.
    for one in (expected["/bin/busybox"], found["/bin/busybox"]):
        del one["size"], one["sha256"]
    for one in expected.values():
        one.pop("text", None)

    assert expected == found


def test_busybox_has_one_time() -> None:
    """Every entry has the time of the program, so that the image is a function of it."""
    entries, seconds = base.busybox()

    assert {seconds * 1_000_000_000} == {entry.mtime_ns for entry in entries}
    assert entries == base.busybox()[0]


def test_merged() -> None:
    """Of two entries with one path the first list's stays; directories come before what is in them."""
    first = [Entry(b"a-b", Kind.DIR), Entry(b"a", Kind.DIR, 0o700)]
    second = [Entry(b"a", Kind.DIR, 0o755), Entry(b"a/b", Kind.FILE), Entry(b"", Kind.DIR)]

    assert [b"", b"a", b"a/b", b"a-b"] == [entry.path for entry in merged(first, second)]
    assert 0o700 == next(entry.mode for entry in merged(first, second) if entry.path == b"a")


def ldd(path: str) -> set[str]:
    """The real paths of what the machine's own loader would map for a program."""
    text = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    words = [word for line in text.splitlines() for word in line.split() if word.startswith("/")]
    return {os.path.realpath(word) for word in words}


@pytest.mark.parametrize("program", ["sh", "ls", "python3"])
def test_the_closure_is_what_the_loader_maps(program: str) -> None:
    """Reading headers finds the same libraries as ldd, which asks the loader itself."""
    path = shutil.which(program, path="/usr/bin:/bin")
    assert path is not None
    found = {
        os.path.realpath("/" + entry.path.decode())
        for entry in collect([path])
        if entry.kind is Kind.FILE and b".so" in entry.path and not entry.path.startswith(b"etc/")
    }
    by_name = {name for name in found if os.path.basename(name).startswith(("libnss_", "libresolv"))}

    assert ldd(path) == found - by_name


def test_links_on_the_way_are_kept() -> None:
    """Where /bin is a link, it is one in the image, and every directory on the way is there."""
    entries = {entry.path: entry for entry in collect(["sh"])}
    for path in entries:
        parent = os.path.dirname(path)
        assert parent in entries
        assert Kind.DIR is entries[parent].kind
    shell = os.path.realpath("/bin/sh").encode()[1:]

    assert Kind.FILE is entries[shell].kind


def test_a_script_brings_its_interpreter(tmp_path: Path) -> None:
    """A `#!` line is followed, and through env to the program that it starts."""
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env -S bash\n")
    script.chmod(0o755)
    paths = {entry.path for entry in collect([str(script)])}

    assert os.path.realpath("/usr/bin/env").encode()[1:] in paths
    assert os.path.realpath("/bin/bash").encode()[1:] in paths


def test_a_directory_comes_whole(tmp_path: Path) -> None:
    """A directory is taken with everything below it, links that lead nowhere included."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "file").write_text("x")
    (tmp_path / "d" / "dangling").symlink_to("nothing")
    paths = {"/" + entry.path.decode(): entry.kind for entry in collect([str(tmp_path / "d")])}

    assert Kind.FILE is paths[str(tmp_path / "d" / "e" / "file")]
    assert Kind.SYMLINK is paths[str(tmp_path / "d" / "dangling")]


def test_programs_that_are_not_there() -> None:
    """A missing program is named."""
    with pytest.raises(BuildError, match="no program called no-such-program"):
        list(collect(["no-such-program"]))


def test_files_that_are_no_elf(tmp_path: Path) -> None:
    """Anything else is None; an ELF file that ends too soon is refused by name."""
    path = tmp_path / "file"
    path.write_text("#!/bin/sh\n")
    assert Elf.read(os.fsencode(path)) is None

    path.write_bytes(b"")
    assert Elf.read(os.fsencode(path)) is None

    whole = Path("/bin/ls").resolve().read_bytes()
    for length in (5, 40, 64, 200):
        path.write_bytes(whole[:length])
        with pytest.raises(BuildError, match="not a whole ELF file"):
            Elf.read(os.fsencode(path))


def test_elf_of_another_machine(tmp_path: Path) -> None:
    """Big-endian and 32-bit headers are read as well: here a library with one name and a run path."""
    strings = b"\0libc.so.6\0$ORIGIN/../lib:/opt\0"
    dynamic = struct.pack(">8I", 1, 1, 5, 0x1000, 29, 11, 0, 0)
    headers = 52 + 2 * 32
    at_dynamic, at_strings = headers, headers + len(dynamic)
    size = at_strings + len(strings)
    head = (
        b"\x7fELF"
        + bytes([1, 2, 1])
        + bytes(9)
        + struct.pack(">HHIIIIIHHHHHH", 3, 8, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    )
    load = struct.pack(">8I", 1, at_strings, 0x1000, 0, len(strings), len(strings), 4, 1)
    dyn = struct.pack(">8I", 2, at_dynamic, 0x2000, 0, len(dynamic), len(dynamic), 4, 4)
    path = tmp_path / "library"
    path.write_bytes(head + load + dyn + dynamic + strings)
    elf = Elf.read(os.fsencode(path))

    assert size == path.stat().st_size
    assert elf == Elf(
        bits=32, machine=8, interpreter=b"", needed=(b"libc.so.6",), rpath=(), runpath=(b"$ORIGIN/../lib", b"/opt")
    )


def test_the_loader_s_cache() -> None:
    """The cache is read as ldconfig prints it; where there is none, it is empty."""
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    assert ldconfig is not None
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    expected = {(line.split()[0], line.rpartition("=> ")[2]) for line in printed if "=> " in line}
    found = {
        (name.decode(), path.decode()) for name, paths in read_cache(b"/etc/ld.so.cache").items() for path in paths
    }

    assert expected == found
    assert {} == read_cache(b"/no/cache")


@pytest.mark.parametrize(
    ("text", "suite"),
    [
        ("ID=debian\nVERSION_CODENAME=trixie\n", "trixie"),
        ('ID="debian"\nVERSION_CODENAME="bookworm"\n', "bookworm"),
        ("ID=ubuntu\nVERSION_CODENAME=noble\n", "stable"),
        ("ID=debian\n", "stable"),
        ("", "stable"),
    ],
)
def test_default_suite(text: str, suite: str) -> None:
    """A Debian host's own suite, elsewhere the current stable one."""
    assert suite == default_suite(text)


@pytest.mark.parametrize(
    "wish",
    [
        Debian(suite="--help"),
        Debian(suite=""),
        Debian(suite="sid", include=("a b",)),
        Debian(suite="sid", mirror="x;y"),
    ],
)
def test_names_that_are_none(wish: Debian) -> None:
    """Nothing reaches debootstrap that it could take for an option."""
    with pytest.raises(UsageError):
        wish.check()


def test_without_an_installer(tmp_path: Path) -> None:
    """A machine with neither program is told what to install."""
    with pytest.raises(BuildError, match="neither debootstrap nor mmdebstrap") as caught:
        install(Debian(suite="sid"), str(tmp_path), environ={"PATH": str(tmp_path)}, say=lambda _line: None)

    assert "install one: apt-get install debootstrap" == caught.value.hint


@pytest.mark.root
def test_an_installer_that_fails(tmp_path: Path) -> None:
    """A mirror that is not there is an error with the installer's own words."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "root").mkdir()
    wish = Debian(suite="sid", mirror=f"file://{tmp_path}/mirror")
    said: list[str] = []
    with pytest.raises(BuildError, match="ended with status") as caught:
        install(wish, str(tmp_path / "root"), environ={"PATH": os.environ["PATH"]}, say=said.append)

    assert "--mirror" in caught.value.hint
    assert said
