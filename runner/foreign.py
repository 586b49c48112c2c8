"""Programs for other processors: whether this kernel runs them, by itself or through an emulator (binfmt_misc).

It is tried with a program of a few instructions per architecture, since handlers cannot be looked at from everywhere:
/proc/sys/fs/binfmt_misc is not mounted in most containers, though what is registered on the host works in them. Where
it is mounted, it tells which emulator an image has to hold.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import NamedTuple

_BASE = 0x400000
_TIMEOUT = 30.0
# exec'd after a chroot, as the programs of an image are: an emulator that was not registered with flag F (its file is
# opened then, not when it is needed) is not found there.
_ENTER = "import os, sys; os.chroot(sys.argv[1]); os.execv('/probe', ['/probe'])"


class Reach(Enum):
    """Where programs for an architecture run."""

    NOWHERE = "not at all"
    HOST = "on the host, and in images that hold the emulator"
    EVERYWHERE = "in every image"


class _Machine(NamedTuple):
    """An ELF header's machine, flags, class and byte order, and the instructions that end a process with status 0."""

    number: int
    code: str
    flags: int = 0
    bits: int = 64
    big: bool = False


_MACHINES = {
    "386": _Machine(3, "b801000000 31db cd80", bits=32),
    "amd64": _Machine(62, "b83c000000 31ff 0f05"),
    "arm": _Machine(40, "0170a0e3 0000a0e3 000000ef", flags=0x05000200, bits=32),
    "arm64": _Machine(183, "a80b80d2 000080d2 010000d4"),
    "loong64": _Machine(258, "0b748103 04001500 00002b00", flags=0x43),
    "mips64": _Machine(8, "240213c2 24040000 0000000c", flags=0x80000007, big=True),
    "mips64le": _Machine(8, "c2130224 00000424 0c000000", flags=0x80000007),
    "ppc64le": _Machine(21, "01000038 00006038 02000044", flags=2),
    "riscv64": _Machine(243, "9308d005 13050000 73000000", flags=5),
    "s390x": _Machine(22, "a7290000 0a01", big=True),
}


def reach(architecture: str, scratch: Path) -> Reach:
    """Try where programs for `architecture` (in OCI's words: arm64, ppc64le) run; takes some 20 ms.

    `scratch` is a directory for the program, on a file system that lets programs run.
    """
    if architecture not in _MACHINES:
        return Reach.NOWHERE
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        program = Path(directory, "probe")
        program.write_bytes(elf(architecture))
        program.chmod(0o755)
        if _ends_well([sys.executable, "-I", "-S", "-c", _ENTER, directory]):
            return Reach.EVERYWHERE
        return Reach.HOST if _ends_well([str(program)]) else Reach.NOWHERE


def emulator(architecture: str) -> str | None:
    """Return the path of the emulator that programs for `architecture` need in their own root, if that can be seen.

    That is the one of a handler without flag F; see the kernel's admin-guide/binfmt-misc.
    """
    program = elf(architecture)
    for directory in _mount_points():
        for name in sorted(os.listdir(directory)):
            if name not in ("register", "status"):
                found = _interpreter(Path(directory, name).read_text(), program)
                if found is not None:
                    return found
    return None


def _mount_points() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        fields = [line.split(" - ") for line in file]
    return [before.split()[4] for before, after in fields if after.split()[0] == "binfmt_misc"]


def _interpreter(handler: str, program: bytes) -> str | None:
    """Return the interpreter of a handler as binfmt_misc shows it, if it runs `program` and lacks flag F."""
    lines = handler.splitlines()
    values = dict(line.partition(" ")[::2] for line in lines)
    flags = values.get("flags:", "")
    if lines[:1] != ["enabled"] or "F" in flags or "magic" not in values:
        return None
    magic, offset = bytes.fromhex(values["magic"]), int(values.get("offset", "0"))
    mask = bytes.fromhex(values["mask"]) if "mask" in values else b"\xff" * len(magic)
    shown = program[offset : offset + len(magic)]
    # The kernel keeps the magic masked.
    same = len(shown) == len(magic) and all(
        a & m == b & m for a, b, m in zip(shown, magic, mask, strict=True)
    )  # fmt: skip
    return values.get("interpreter") if same else None


def elf(architecture: str, code: bytes = b"") -> bytes:
    """Return a static program (ELF, one segment at 0x400000) that runs `code`, or ends at once with status 0."""
    machine = _MACHINES[architecture]
    order = ">" if machine.big else "<"
    code = code or bytes.fromhex(machine.code)
    ident = b"\x7fELF" + bytes((machine.bits // 32, 2 if machine.big else 1, 1, 0)) + bytes(8)
    wide = machine.bits == 64
    header, segment = (64, 56) if wide else (52, 32)
    size = header + segment + len(code)
    word = "Q" if wide else "I"
    start = struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        2, machine.number, 1, _BASE + header + segment, header, 0, machine.flags, header, segment, 1, 0, 0, 0,
    )  # fmt: skip
    if wide:
        load = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    else:
        load = struct.pack(f"{order}IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x10000)
    return ident + start + load + code


def _ends_well(argv: list[str]) -> bool:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT, env={}, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == os.EX_OK
