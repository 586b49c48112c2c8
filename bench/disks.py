"""File systems of their own for what is compared: ext4 as mkfs makes it, in sparse images on loop devices.

What one tool deletes or writes then does not slow down the next: where ext4 has no journal, files are made slowly for
up to five minutes after many were deleted, by whomever. Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_LOOP = 7
"""The major number of loop devices."""


class _Failed(Exception):
    """A program that is needed is not there, or ended with an error, which was shown; the message says it in a word."""


def separate(places: Sequence[Path]) -> str:
    """Make each of `places`, all in one directory, a file system of its own, or none; what they then are on, in words.

    For the process inside `bench.sandbox`: file systems and loop devices go with its mount namespace, and so does what
    is in them, since the images have no names any more. All images grow as they are filled, up to the free space.
    """
    beneath = _file_system(places[0].parent)
    done: list[Path] = []
    try:
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            _mount(place)
            done.append(place)
    except _Failed as error:
        for place in done:
            _call("umount", place)
        return f"one {beneath} for all ({error})"
    return f"for each its own ext4 with a journal and without barriers, in images on {beneath}"


def give_back(place: Path) -> None:
    """Return to the disk what was deleted in the file system of `place`, where that is on a loop device."""
    if os.major(os.stat(place).st_dev) != _LOOP:
        return
    while not os.path.ismount(place):
        place = place.parent
    with contextlib.suppress(_Failed):
        _call("fstrim", place)


def _mount(place: Path) -> None:
    image = place.with_name(f"{place.name}.ext4")
    disk = os.statvfs(place)
    with open(image, "xb") as file:
        file.truncate(disk.f_bavail * disk.f_frsize)
    try:
        _call("mkfs.ext4", "-q", "-F", image)
        # Such a device lets go of its image when it is unmounted. Barriers would wait for the disk twice, once for each
        # of the file systems, and 20 empty steps take a sixth longer than without an image; without barriers a 20th.
        _call("mount", "-o", "loop,nobarrier", image, place)
    finally:
        image.unlink()
    with contextlib.suppress(_Failed):  # not every file system can, below the image
        # Otherwise all data is in memory twice, and copied by a thread of the kernel that nobody's figures show.
        _call("losetup", "--direct-io=on", _call("findmnt", "-n", "-o", "SOURCE", "--mountpoint", place).strip())
    (place / "lost+found").rmdir()


def _call(*words: str | os.PathLike[str]) -> str:
    """What a program prints. _Failed."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise _Failed(f"no {words[0]!s}") from error
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        raise _Failed(f"{words[0]!s} failed")
    return done.stdout


def _file_system(place: Path) -> str:
    """The type of the file system that a directory is on."""
    device = os.stat(place).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == number:
            return kind.split()[0]
    return "unknown"
