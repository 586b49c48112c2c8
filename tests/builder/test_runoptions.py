"""The words of `docker run`: sizes, volumes, mounts, environment files."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.runoptions import (
    BindVolume,
    NamedVolume,
    TmpfsVolume,
    Volume,
    environment,
    parse_labels,
    parse_mount,
    parse_size,
    parse_tmpfs,
    parse_volume,
)

CWD = Path("/home/mira")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64m", 64 << 20), ("1.5g", 3 << 29), ("10kb", 10 << 10), ("2GiB", 2 << 30), ("7b", 7)],
)
def test_sizes(text: str, size: int) -> None:
    """Bytes, or powers of 1024 with docker's letters."""
    assert size == parse_size(text, "--memory")


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1 2", "0x10", "1e9"])
def test_sizes_that_are_none(text: str) -> None:
    """Everything else is refused, and the option named."""
    with pytest.raises(UsageError, match="--memory"):
        parse_size(text, "--memory")


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/there", NamedVolume(name="", anonymous=True, target="/there")),
        ("data:/there", NamedVolume(name="data", target="/there")),
        ("data:/there:ro,nocopy", NamedVolume(name="data", target="/there", read_only=True, copy=False)),
        ("/here:/there/", BindVolume(source=Path("/here"), target="/there", create=True)),
        ("./here:/there:ro", BindVolume(source=CWD / "here", target="/there", read_only=True, create=True)),
        ("..:/a/../b", BindVolume(source=Path("/home"), target="/b", create=True)),
        ("/a:/b:rslave", BindVolume(source=Path("/a"), target="/b", create=True, propagation="rslave")),
    ],
)
def test_volumes(text: str, volume: Volume) -> None:
    """A source with a slash or a leading dot is a path of the host, else a volume."""
    assert volume == parse_volume(text, CWD)


@pytest.mark.parametrize("text", ["", "a:", ":/b", "a:b", "/a:/b:fast", "/a:/b:ro:rw", "/a:/", "/a:/.."])
def test_volumes_that_are_none(text: str) -> None:
    """Relative targets, the root, unknown options and missing parts are refused with a hint."""
    with pytest.raises(UsageError) as caught:
        parse_volume(text, CWD)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("type=bind,src=/a,dst=/b,ro", BindVolume(source=Path("/a"), target="/b", read_only=True)),
        ("type=bind,source=a,target=/b,readonly=false", BindVolume(source=CWD / "a", target="/b")),
        ("src=v,destination=/b", NamedVolume(name="v", target="/b")),
        ("dst=/b,volume-nocopy", NamedVolume(name="", anonymous=True, target="/b", copy=False)),
        ("type=tmpfs,dst=/b,tmpfs-size=1k,tmpfs-mode=700", TmpfsVolume(target="/b", options=("size=1024", "mode=700"))),
    ],
)
def test_mounts(text: str, volume: Volume) -> None:
    """Keys and their other names, as docker has them."""
    assert volume == parse_mount(text, CWD)


@pytest.mark.parametrize(
    "text",
    [
        "type=magic,dst=/b",
        "type=bind,dst=/b",
        "type=bind,src=/a",
        "type=bind,src=/a,dst=/b,size=4",
        "type=bind,src=/a,dst=/b,ro=perhaps",
        "type=bind,src=/a,dst=/b,bind-propagation=far",
        "type=tmpfs,dst=/b,tmpfs-mode=rwx",
    ],
)
def test_mounts_that_are_none(text: str) -> None:
    """What a mount cannot have or lacks is named."""
    with pytest.raises(UsageError) as caught:
        parse_mount(text, CWD)

    assert caught.value.hint


def test_tmpfs() -> None:
    """A target, and options as mount(8) has them."""
    assert TmpfsVolume(target="/b", options=("size=1m", "exec")) == parse_tmpfs("/b:size=1m,exec")


def test_environment() -> None:
    """Files come before words; a bare name takes the caller's value, takes one away, or means nothing in a file."""
    files = {"vars": "\ufeff# comment\n\nA=1\n  B=x=y # no comment\nHOST\nNONE\n"}

    found = environment(["C=", "HOST", "GONE"], ["vars"], {"HOST": "mine"}, files.__getitem__)

    assert ("A=1", "B=x=y # no comment", "HOST=mine", "C=", "HOST=mine", "GONE") == found


@pytest.mark.parametrize("line", ["=value", "A B=1", "A =1"])
def test_environment_files_with_mistakes(line: str) -> None:
    """A line that names no variable is refused, with its number."""
    with pytest.raises(UsageError, match="vars:2"):
        environment([], ["vars"], {}, {"vars": f"OK=1\n{line}\n"}.__getitem__)


def test_labels() -> None:
    """A label without a value has an empty one."""
    assert (("a", "b=c"), ("d", "")) == parse_labels(["a=b=c", "d"])
    with pytest.raises(UsageError):
        parse_labels(["=x"])
