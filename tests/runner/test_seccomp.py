"""The filter: its decisions computed by an interpreter here, and made by the kernel for a process that tries."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest

from runner import Directory, ExitStatus, Mount, Seccomp, SpecError, default_mounts, defaultfilters, generate
from runner.caps import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from runner.filters import ready_filter
from runner.seccomp import compile_filter, load
from runner.syscall_table import numbers
from tests.runner.conftest import Bench

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def decide(program: bytes, arch: int, number: int, *args: int) -> int:
    """Interpret a filter for one system call: classic BPF, as much of it as filters use."""
    data = struct.pack("<iIQ6Q", number & 0x7FFFFFFF, arch, 0, *(*args, *(0,) * (6 - len(args))))
    code = list(struct.iter_unpack("<HBBI", program))
    position = accumulator = 0
    while True:
        operation, true, false, operand = code[position]
        position += 1
        match operation:
            case 0x20:
                accumulator = int.from_bytes(data[operand : operand + 4], "little")
            case 0x54:
                accumulator &= operand
            case 0x05:
                position += operand
            case 0x15:
                position += true if accumulator == operand else false
            case 0x25:
                position += true if accumulator > operand else false
            case 0x35:
                position += true if accumulator >= operand else false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(operation)


@pytest.fixture(scope="module")
def default() -> bytes:
    """The default profile with docker's default capabilities, for x86_64."""
    return compile_filter(load(None, DEFAULT_CAPABILITIES, machine="x86_64"))


@pytest.mark.parametrize(
    ("name", "args", "verdict"),
    [
        ("read", (), ALLOW),
        ("openat", (), ALLOW),
        ("chroot", (), ALLOW),
        ("fchmodat2", (), ALLOW),
        ("ptrace", (), ALLOW),
        ("mount", (), EPERM),
        ("unshare", (), EPERM),
        ("bpf", (), EPERM),
        ("io_uring_setup", (), EPERM),
        ("keyctl", (), EPERM),
        ("userfaultfd", (), EPERM),
        ("clone3", (), ENOSYS),
        ("clone", (0x11,), ALLOW),
        ("clone", (0x10000000,), EPERM),
        ("clone", (0x00020000 | 0x11,), EPERM),
        ("socket", (2,), ALLOW),
        ("socket", (16,), ALLOW),
        ("socket", (38,), EPERM),
        ("socket", (40,), EPERM),
        ("socket", (12,), EPERM),
        ("socket", (46,), EPERM),
        ("socket", (1 << 32,), EPERM),
        ("personality", (0,), ALLOW),
        ("personality", (0x20008,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x40000,), EPERM),
    ],
)
def test_default_profile(default: bytes, name: str, args: tuple[int, ...], verdict: int) -> None:
    """The default profile decides as docker documents it."""
    assert decide(default, X86_64, numbers("SCMP_ARCH_X86_64")[name], *args) == verdict


def test_every_call_by_another_route(default: bytes) -> None:
    """Every number of every ABI: allowed exactly if a rule without conditions names it, ENOSYS above all known ones."""
    profile = load(None, DEFAULT_CAPABILITIES, machine="x86_64")
    plain = {name for rule in profile.rules if not rule.conditions and rule.action == ALLOW for name in rule.names}
    named = {name for rule in profile.rules for name in rule.names}
    conditional = {name for rule in profile.rules if rule.conditions for name in rule.names} - plain
    special = conditional | {"clone3"}
    wrong = []
    for abi, arch in (("SCMP_ARCH_X86_64", X86_64), ("SCMP_ARCH_X86", I386), ("SCMP_ARCH_X32", X86_64)):
        table = numbers(abi)
        base = 0x40000000 if abi == "SCMP_ARCH_X32" else 0
        last = max(number for name, number in table.items() if name in named)
        by_number: dict[int, set[str]] = {}
        for name, number in table.items():
            by_number.setdefault(number, set()).add(name)
        for number in range(base, base + 1000):
            names = by_number.get(number, set())
            expected = ALLOW if names & plain else EPERM if number <= last else ENOSYS
            if not names & special and decide(default, arch, number) != expected:
                wrong.append((abi, number, names))

    assert wrong == []


def test_other_architectures_are_killed(default: bytes) -> None:
    """A call by an ABI that the profile does not know ends the process."""
    assert decide(default, AARCH64, 63) == KILL
    assert decide(compile_filter(load(None, DEFAULT_CAPABILITIES, machine="aarch64")), X86_64, 0) == KILL


def test_aarch64() -> None:
    """The same profile for aarch64 and its 32-bit calls."""
    program = compile_filter(load(None, DEFAULT_CAPABILITIES, machine="aarch64"))
    table, arm = numbers("SCMP_ARCH_AARCH64"), numbers("SCMP_ARCH_ARM")

    assert decide(program, AARCH64, table["openat"]) == ALLOW
    assert decide(program, AARCH64, table["mount"]) == EPERM
    assert decide(program, AARCH64, table["clone"], 0x10000000) == EPERM
    assert decide(program, 0x40000028, arm["cacheflush"]) == ALLOW
    assert decide(program, 0x40000028, arm["mount"]) == EPERM


def test_capabilities_open_calls() -> None:
    """A capability brings the calls it is for, and clone3 is real with CAP_SYS_ADMIN."""
    program = compile_filter(load(None, ALL_CAPABILITIES, machine="x86_64"))
    table = numbers("SCMP_ARCH_X86_64")
    names = ("mount", "unshare", "clone3", "bpf", "reboot", "ptrace", "settimeofday", "open_by_handle_at")

    assert {decide(program, X86_64, table[name]) for name in names} == {ALLOW}
    assert decide(program, X86_64, table["clone"], 0x10000000) == ALLOW
    assert decide(program, X86_64, table["kexec_load"]) == EPERM


@pytest.mark.parametrize(
    ("operator", "value", "datum", "holds"),
    [
        ("SCMP_CMP_EQ", 5 << 32 | 7, 0, [5 << 32 | 7]),
        ("SCMP_CMP_NE", 7, 0, [0, 6, 8, 5 << 32 | 7, 5 << 32 | 6, 6 << 32, 1 << 63]),
        ("SCMP_CMP_LT", 5 << 32 | 7, 0, [0, 6, 7, 8, 5 << 32 | 6]),
        ("SCMP_CMP_LE", 5 << 32 | 7, 0, [0, 6, 7, 8, 5 << 32 | 6, 5 << 32 | 7]),
        ("SCMP_CMP_GE", 5 << 32 | 7, 0, [5 << 32 | 7, 6 << 32, 1 << 63]),
        ("SCMP_CMP_GT", 5 << 32 | 7, 0, [6 << 32, 1 << 63]),
        ("SCMP_CMP_MASKED_EQ", 5 << 32 | 6, 5 << 32 | 6, [5 << 32 | 7, 5 << 32 | 6]),
    ],
)
def test_comparisons_are_64_bits_wide(tmp_path: Path, operator: str, value: int, datum: int, holds: list[int]) -> None:
    """Each operator holds for exactly the right values, on both sides of every half."""
    argument = {"index": 1, "value": value, "valueTwo": datum, "op": operator}
    program = compile_filter(load(_profile(tmp_path, argument), frozenset(), machine="x86_64"))
    samples = [0, 6, 7, 8, 5 << 32 | 6, 5 << 32 | 7, 6 << 32, 1 << 63]

    assert [one for one in samples if decide(program, X86_64, 0, 99, one) == ALLOW] == [
        one for one in samples if one in holds
    ]


def _profile(tmp_path: Path, *arguments: object) -> Path:
    path = tmp_path / "profile.json"
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arguments}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5, "syscalls": [rule]}))
    return path


def test_conditions_on_one_argument_are_alternatives(tmp_path: Path) -> None:
    """As in runc: two conditions on one argument mean either, on two arguments both."""
    either = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    both = [{"index": index, "value": 1, "op": "SCMP_CMP_EQ"} for index in (0, 1)]

    program = compile_filter(load(_profile(tmp_path, *either), frozenset(), machine="x86_64"))
    assert [decide(program, X86_64, 0, value) == ALLOW for value in (1, 2, 3)] == [True, True, False]
    program = compile_filter(load(_profile(tmp_path, *both), frozenset(), machine="x86_64"))
    assert [decide(program, X86_64, 0, *pair) == ALLOW for pair in ((1, 1), (1, 2), (2, 1))] == [True, False, False]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"defaultAction": "nothing"}', '{"defaultAction": "SCMP_ACT_KILL", "syscalls": [1]}']
)
def test_profiles_that_are_none(tmp_path: Path, text: str) -> None:
    """A file that is no profile is refused by name."""
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=str(path)):
        load(path, frozenset())


def test_profile_that_is_missing(tmp_path: Path) -> None:
    """So is a file that is not there."""
    with pytest.raises(SpecError, match="cannot read"):
        load(tmp_path / "nothing", frozenset())


def test_jumps_stay_inside(default: bytes) -> None:
    """No jump leads outside, the program is within the kernel's limit and ends in a verdict."""
    code = list(struct.iter_unpack("<HBBI", default))

    assert len(code) <= 4096
    assert code[-1][0] == 0x06
    for position, (operation, true, false, operand) in enumerate(code[:-1]):
        furthest = operand if operation == 0x05 else max(true, false) if operation in {0x15, 0x25, 0x35} else 0
        assert position + 1 + furthest < len(code)


TRY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for call in sys.argv[1:]:
    number, *args = map(int, call.split(","))
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(one) for one in args))
        os._exit(ctypes.get_errno())
    print(call, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86_64 processor: the numbers are its own")
def test_the_kernel_agrees(bench: Bench, tmp_path: Path, default: bytes) -> None:
    """A program that tries calls in a container gets what the filter computes; without a filter, other answers."""
    table = numbers("SCMP_ARCH_X86_64")
    tried = [
        ("unshare", 0),
        ("keyctl", 0),
        ("clone3", 0, 0),
        ("socket", 38, 5),
        ("socket", 1, 1, 0),
        ("personality", 0x40000),
    ]
    calls = [",".join(map(str, (table[str(name)], *args))) for name, *args in tried]
    expected = [decide(default, X86_64, *map(int, call.split(","))) for call in calls]
    errnos = [verdict & 0xFFFF if verdict != ALLOW else 0 for verdict in expected]

    assert _try(bench, tmp_path, calls, filtered=True) == errnos
    assert 1 not in _try(bench, tmp_path, calls, filtered=False)[:3]


def _try(bench: Bench, tmp_path: Path, calls: list[str], *, filtered: bool) -> list[int]:
    """Run the calls in a container on the host's own programs, read-only, and return the errno of each."""
    program = tmp_path / "try.py"
    program.write_text(TRY)
    spec = bench.spec(os.path.realpath(sys.executable), "-I", "-S", "/mnt/try.py", *calls)
    mounts = (*default_mounts(), Mount(destination=b"mnt", type="bind", source=str(tmp_path), options=("ro",)))
    spec = spec._replace(rootfs=Directory(path=Path("/"), read_only=True), mounts=mounts)
    status, text = bench.run(spec if filtered else spec._replace(seccomp=None))

    assert status == ExitStatus(0, None)
    return [int(line.split()[1]) for line in text.splitlines()]


@pytest.mark.root
def test_custom_profile_is_in_force(bench: Bench, tmp_path: Path) -> None:
    """A profile file that forbids one call forbids it in the container."""
    path = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    status, text = bench.run(bench.spec("mkdir", "/x", seccomp=Seccomp(profile=path)))

    assert (status, "No space left" in text) == (ExitStatus(1, None), True)


def test_the_ready_filter_is_the_compiled_one() -> None:
    """`defaultfilters.py` is what `python -m runner.generate` writes, and is what this kernel's filter would be."""
    compiled = compile_filter(load(None, DEFAULT_CAPABILITIES))

    assert generate.generate_filters() == Path(defaultfilters.__file__).read_text()
    assert compiled == ready_filter()
