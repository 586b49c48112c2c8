"""Capability sets: the kernel's names and numbers, docker's default set, dropping and verifying (capabilities(7)).

It knows nothing of users and namespaces beyond the calling process.
"""

from __future__ import annotations

from runner import syscalls

# linux/capability.h, in the order of their numbers.
CAPABILITIES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
ALL_CAPABILITIES: frozenset[str] = frozenset(CAPABILITIES)
DEFAULT_CAPABILITIES: frozenset[str] = frozenset(
    {
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)


def mask(names: frozenset[str]) -> int:
    """Return the bit mask of the named capabilities; ValueError for a name the kernel does not have."""
    bits = 0
    for name in names:
        bits |= 1 << CAPABILITIES.index(name)
    return bits


def supported() -> int:
    """Return the mask of the capabilities this kernel knows: a prefix of the list above."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return (2 << int(file.read())) - 1


def available() -> frozenset[str]:
    """Return the capabilities that the calling process could pass on: its bounding set."""
    held = bounding()
    return frozenset(name for number, name in enumerate(CAPABILITIES) if held >> number & 1)


def bounding() -> int:
    """Return the mask of the calling process's bounding set, as proc(5) tells it: one read instead of forty calls."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapBnd:"):
                return int(line[7:], 16)
    raise OSError(2, "no capabilities in /proc/self/status", "CapBnd")


def limit_bounding(wanted: int) -> None:
    """Drop everything outside the mask `wanted` from the bounding set, which never grows again, and verify it."""
    for number in range(supported().bit_length()):
        if not wanted >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    missing = wanted ^ bounding()
    if missing:
        name = CAPABILITIES[missing.bit_length() - 1]
        raise OSError(1, "this capability is not ours to give", name)


def limit(wanted: int) -> None:
    """Hold exactly the mask `wanted` as permitted and effective, none inheritable or ambient, and verify it.

    An execve by uid 0 then gives what the bounding set allows, by any other user what the file brings.
    """
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.capset(wanted, wanted, 0)
    if syscalls.capget() != (wanted, wanted, 0):
        raise OSError(1, "capabilities differ from what was set", "capset")
