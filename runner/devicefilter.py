"""Which devices a version 2 control group may use: a BPF program made from rules in the words of devices.allow.

Version 2 has no file for devices; the kernel asks a program (BPF_PROG_TYPE_CGROUP_DEVICE), which sees type, access and
numbers (linux/bpf.h, struct bpf_cgroup_dev_ctx) and answers 1 or 0. The program lives as long as the group.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from runner.errors import RunnerError
from runner.limits import parse_device_rule
from runner.syscalls import bpf

_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2

_LOAD_WORD, _SHIFT_RIGHT, _AND, _JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER = 0x61, 0x77, 0x57, 0x55, 0x5D
_MOVE, _MOVE_REGISTER, _EXIT = 0xB7, 0xBF, 0x95
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}


def program(rules: Iterable[str]) -> bytes:
    """The instructions (struct bpf_insn) that allow what a rule allows and nothing else."""
    code = [
        _instruction(_LOAD_WORD, 2, 1, offset=0),  # r2 = access << 16 | type
        _instruction(_LOAD_WORD, 4, 1, offset=4),  # r4 = major
        _instruction(_LOAD_WORD, 5, 1, offset=8),  # r5 = minor
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_SHIFT_RIGHT, 3, value=16),  # r3 = access
        _instruction(_AND, 2, value=0xFFFF),  # r2 = type
    ]
    for rule in rules:
        code += _rule(*parse_device_rule(rule))
    code += [_instruction(_MOVE, 0, value=0), _instruction(_EXIT)]
    return b"".join(code)


def attach(group: Path, rules: Iterable[str]) -> None:
    """Let members of the version 2 group use only the devices that `rules` allow; RunnerError if the kernel refuses."""
    code = program(rules)
    try:
        loaded = bpf(_PROG_LOAD, struct.pack("=II", _PROG_TYPE_CGROUP_DEVICE, len(code) // 8), code, b"GPL\0")
        try:
            directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                bpf(_PROG_ATTACH, struct.pack("=IIII", directory, loaded, _CGROUP_DEVICE, _ALLOW_MULTI))
            finally:
                os.close(directory)
        finally:
            os.close(loaded)
    except OSError as error:
        raise RunnerError(
            f"devices: the access filter of {group} is refused: {error.strerror}",
            hint="it needs CONFIG_CGROUP_BPF and CAP_SYS_ADMIN (or CAP_BPF and CAP_NET_ADMIN)",
        ) from error


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> list[bytes]:
    """Each test that fails jumps behind the rule; the jumps are filled in when its length is known."""
    tests: list[tuple[int, int, int, int]] = []  # opcode, register, source, value
    if kind != "a":
        tests.append((_JUMP_UNEQUAL, 2, 0, _TYPES[kind]))
    mask = sum(_ACCESS[letter] for letter in set(access))
    if mask != 7:
        tests += [(_MOVE_REGISTER, 1, 3, 0), (_AND, 1, 0, mask), (_JUMP_UNEQUAL_REGISTER, 1, 3, 0)]
    if major is not None:
        tests.append((_JUMP_UNEQUAL, 4, 0, major))
    if minor is not None:
        tests.append((_JUMP_UNEQUAL, 5, 0, minor))
    length = len(tests) + 2
    code = []
    for position, (opcode, register, other, value) in enumerate(tests):
        jumps = opcode in {_JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER}
        offset = length - position - 1 if jumps else 0
        code.append(_instruction(opcode, register, other, offset=offset, value=value))
    return [*code, _instruction(_MOVE, 0, value=1), _instruction(_EXIT)]


def _instruction(opcode: int, register: int = 0, other: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, other << 4 | register, offset, value)
