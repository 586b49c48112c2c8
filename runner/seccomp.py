"""System call filters: a profile in docker's JSON format, resolved for a machine and compiled to classic BPF.

Runs in the caller; the launcher only installs the bytes. Follows seccomp(2), the kernel's seccomp_filter.rst, and what
libseccomp and runc make of such a profile.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

from runner.errors import SpecError
from runner.syscall_table import X32_BIT, numbers

_DEFAULT_PROFILE = Path(__file__).with_name("seccomp_default.json")

# linux/bpf_common.h, linux/seccomp.h, linux/audit.h
_LD_ABS, _AND, _RET = 0x20, 0x54, 0x06
_JA, _JEQ, _JGT, _JGE = 0x05, 0x15, 0x25, 0x35
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16
_KILL_PROCESS, _KILL_THREAD, _TRAP, _ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
_TRACE, _LOG, _ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
_MAX_JUMP = 255
_AUDIT_ARCH = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0xC000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
_MACHINES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}
_NARROW = {"SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"}
_ACTIONS = {
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_TRAP": _TRAP,
}
_OPERATORS = {
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
}

Code = list[tuple[int, int, int, int]]  # (code, jump if true, jump if false, operand) of struct sock_filter


class Condition(NamedTuple):
    """A comparison of one argument with `value`; for SCMP_CMP_MASKED_EQ that is the mask and `datum` what is left."""

    argument: int
    operator: str
    value: int
    datum: int = 0


class Rule(NamedTuple):
    """What happens to the named system calls if all conditions hold; `action` is a SECCOMP_RET_* value."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()


class Profile(NamedTuple):
    """A profile resolved for one machine and one set of capabilities; architectures are native first."""

    default: int
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]


def load(path: Path | None, capabilities: frozenset[str], *, machine: str = "", release: str = "") -> Profile:
    """Read the profile at `path`, docker's default one if None, keeping the rules that apply.

    `capabilities` are the container's, `machine` and `release` as in uname(2), by default this host's. SpecError for a
    profile that cannot be read or means nothing to this kernel.
    """
    uname = os.uname()
    machine, release = machine or uname.machine, release or uname.release
    name = path or _DEFAULT_PROFILE
    hint = "profiles are in docker's JSON format"
    try:
        document = json.loads(name.read_bytes())
    except OSError as error:
        raise SpecError(f"cannot read the seccomp profile {name}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"the seccomp profile {name} is not JSON: {error}", hint=hint) from error
    if machine not in _MACHINES:
        raise SpecError(f"no system call filter for {machine}", hint="run without a filter: seccomp=unconfined")
    try:
        return _resolve(document, capabilities, machine, _version(release))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecError(f"the seccomp profile {name} is not valid: {error!r}", hint=hint) from error


def _resolve(document: dict[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]) -> Profile:
    native, go_name = _MACHINES[machine]
    default = _action(document["defaultAction"], document.get("defaultErrnoRet"))
    architectures = tuple(document.get("architectures") or ())
    for entry in document.get("archMap") or ():
        if entry["architecture"] == native:
            architectures = (native, *(entry.get("subArchitectures") or ()))
    architectures = tuple(name for name in architectures if name in _AUDIT_ARCH)
    if native not in architectures:
        architectures = (native, *architectures)
    rules: list[Rule] = []
    for entry in document.get("syscalls") or ():
        if not _applies(entry, capabilities, go_name, kernel):
            continue
        action = _action(entry["action"], entry.get("errnoRet"))
        if action == default:
            continue
        names = tuple(entry.get("names") or (entry["name"],))
        conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
        if len({condition.argument for condition in conditions}) < len(conditions):
            # As in runc: several conditions on one argument are alternatives.
            rules += [Rule(names, action, (condition,)) for condition in conditions]
        else:
            rules.append(Rule(names, action, conditions))
    return Profile(default, architectures, tuple(rules))


def _applies(entry: dict[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    if machine in (excludes.get("arches") or ()) or capabilities.intersection(excludes.get("caps") or ()):
        return False
    return not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))


def _version(release: str) -> tuple[int, int]:
    major, minor = release.split(".", 2)[:2]
    return int(major), int(minor.partition("-")[0])


def _action(name: str, errno_return: int | None) -> int:
    action = _ACTIONS[name]
    if action in {_ERRNO, _TRACE}:
        action |= (errno.EPERM if errno_return is None else errno_return) & 0xFFFF
    return action


def _condition(argument: dict[str, Any]) -> Condition:
    if argument["op"] not in _OPERATORS or not 0 <= argument["index"] <= 5:
        raise ValueError(argument)
    return Condition(argument["index"], argument["op"], argument["value"], argument.get("valueTwo") or 0)


def compile_filter(profile: Profile) -> bytes:
    """Return the profile as an array of struct sock_filter, for the machine's byte order (little-endian)."""
    pieces: list[tuple[int, Code]] = []
    wide = [name for name in profile.architectures if name != "SCMP_ARCH_X32"]
    for name in wide:
        table = _Table(profile, name)
        if name == "SCMP_ARCH_X86_64":
            if "SCMP_ARCH_X32" in profile.architectures:
                table.add(_Table(profile, "SCMP_ARCH_X32"))
            else:
                table.kill_from(X32_BIT)
        pieces.append((_AUDIT_ARCH[name], [(_LD_ABS, 0, 0, _OFFSET_NUMBER), *table.code()]))
    program: Code = [(_LD_ABS, 0, 0, _OFFSET_ARCH)]
    for audit, piece in pieces:
        program += [(_JEQ, 1, 0, audit), (_JA, 0, 0, len(piece)), *piece]
    program.append((_RET, 0, 0, _KILL_PROCESS))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


class _Table:
    """What happens to every number of one architecture: ranges in order, each with the code that ends in a verdict."""

    def __init__(self, profile: Profile, architecture: str) -> None:
        known = numbers(architecture)
        narrow = architecture in _NARROW
        verdicts: dict[int, list[Rule]] = {}
        for rule in profile.rules:
            for name in rule.names:
                if name in known:
                    verdicts.setdefault(known[name], []).append(rule)
        base = X32_BIT if architecture == "SCMP_ARCH_X32" else 0
        self.starts: list[tuple[int, Code]] = []
        default: Code = [(_RET, 0, 0, profile.default)]
        self._mark(base, default)
        for number in sorted(verdicts):
            self._mark(number, _verdict(verdicts[number], profile.default, narrow=narrow))
            self._mark(number + 1, default)
        if verdicts and profile.default == _ERRNO | errno.EPERM:
            # As in runc: a call newer than all the profile names does not exist, so that libraries fall back.
            last = max(number for number in verdicts if number < base + 0x8000)
            private = [start for start in self.starts if start[0] > last + 1]
            self.starts = [start for start in self.starts if start[0] <= last]
            self._mark(last + 1, [(_RET, 0, 0, _ERRNO | errno.ENOSYS)])
            for start, code in private:
                self._mark(start, code)

    def _mark(self, start: int, code: Code) -> None:
        if self.starts and self.starts[-1][0] == start:
            self.starts.pop()
        if not self.starts or self.starts[-1][1] != code:
            self.starts.append((start, code))

    def add(self, higher: _Table) -> None:
        """Append the ranges of a table that begins above this one."""
        self.starts += higher.starts

    def kill_from(self, start: int) -> None:
        """Let every number from `start` on end the process."""
        self._mark(start, [(_RET, 0, 0, _KILL_PROCESS)])

    def code(self) -> Code:
        """Return a binary search for the range of the loaded number."""
        return _search(self.starts)


def _search(starts: list[tuple[int, Code]]) -> Code:
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    low, high = _search(starts[:middle]), _search(starts[middle:])
    if len(low) <= _MAX_JUMP:
        return [(_JGE, len(low), 0, starts[middle][0]), *low, *high]
    return [(_JGE, 0, 1, starts[middle][0]), (_JA, 0, 0, len(low)), *low, *high]


def _verdict(rules: list[Rule], default: int, *, narrow: bool) -> Code:
    """Return code that decides one call: conditional rules in order, then an unconditional one or the default."""
    last = default
    code: Code = []
    for rule in rules:
        if not rule.conditions:
            last = rule.action
    for rule in rules:
        if rule.conditions and rule.action != last:
            code += _conditional(rule, narrow=narrow)
    return [*code, (_RET, 0, 0, last)]


def _conditional(rule: Rule, *, narrow: bool) -> Code:
    body: Code = [(_RET, 0, 0, rule.action)]
    for condition in reversed(rule.conditions):
        body = _compare(condition, body, narrow=narrow)
    return body


def _compare(condition: Condition, then: Code, *, narrow: bool) -> Code:
    """Return code that runs `then` if the condition holds and falls through behind it if not.

    Arguments are 64 bits wide, the accumulator 32: the upper half decides first. On 32-bit ABIs only the lower half
    counts, as with libseccomp.
    """
    low_offset = _OFFSET_ARGS + 8 * condition.argument
    value, size = condition.value & 0xFFFFFFFFFFFFFFFF, len(then)
    high, low = value >> 32, value & 0xFFFFFFFF
    load_high, load_low = (_LD_ABS, 0, 0, low_offset + 4), (_LD_ABS, 0, 0, low_offset)
    match condition.operator:
        case "SCMP_CMP_EQ":
            check = [] if narrow else [load_high, (_JEQ, 0, size + 2, high)]
            return [*check, load_low, (_JEQ, 0, size, low), *then]
        case "SCMP_CMP_NE":
            check = [] if narrow else [load_high, (_JEQ, 0, 2, high)]
            return [*check, load_low, (_JEQ, size, 0, low), *then]
        case "SCMP_CMP_MASKED_EQ":
            datum = condition.datum & value
            check = [load_high, (_AND, 0, 0, high), (_JEQ, 0, size + 3, datum >> 32)]
            return [
                *([] if narrow or not high else check),
                load_low,
                (_AND, 0, 0, low),
                (_JEQ, 0, size, datum & 0xFFFFFFFF),
                *then,
            ]
        case _:
            return [*_ordered(condition.operator, load_high, load_low, value, size, narrow=narrow), *then]


def _ordered(
    operator: str,
    load_high: tuple[int, int, int, int],
    load_low: tuple[int, int, int, int],
    value: int,
    size: int,
    *,
    narrow: bool,
) -> Code:
    """Return the test for <, ≤, > or ≥: falls into what follows if it holds, else jumps `size` further."""
    high, low = value >> 32, value & 0xFFFFFFFF
    jump = _JGE if operator in {"SCMP_CMP_LT", "SCMP_CMP_GE"} else _JGT
    if operator in {"SCMP_CMP_GT", "SCMP_CMP_GE"}:
        check = [load_high, (_JGT, 3, 0, high), (_JEQ, 0, size + 2, high)]
        return [*([] if narrow else check), load_low, (jump, 0, size, low)]
    check = [load_high, (_JGT, size + 3, 0, high), (_JEQ, 0, 2, high)]
    return [*([] if narrow else check), load_low, (jump, size, 0, low)]
