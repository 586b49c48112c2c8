"""Overlays of many layers by the way that kernels before 6.7 need, tried in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

PROGRAM = """
    import os, sys
    from runner import syscalls
    from runner.overlay import mount_by_names
    top, count = os.fsencode(sys.argv[1]), int(sys.argv[2])
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    lowers = tuple(b"%s/%d" % (top, number) for number in range(count))
    options = (b"redirect_dir=off", b"metacopy=off", b"index=off", b"xino=off")
    fd = mount_by_names(lowers, options, top + b"/upper", top + b"/work", 0)
    print(len(os.listdir(os.open(".", os.O_RDONLY, dir_fd=fd))), open("/proc/sys/kernel/ostype").read().strip())
    print(open(os.open("last", os.O_RDONLY, dir_fd=fd)).read())
    os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
"""


def test_short_names(tmp_path: Path) -> None:
    """Five hundred layers fit into the one page of options; the order holds, and changes go to the upper."""
    for number in range(500):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / f"f{number}").touch()
        (tmp_path / str(number) / "last").write_text(str(number))
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), "500"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=os.getcwd()).stdout

    assert output.split() == ["501", "Linux", "0"]
    assert [path.name for path in (tmp_path / "upper").iterdir()] == ["new"]
