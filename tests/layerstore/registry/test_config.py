"""registries.conf: which table fits, where it leads, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerstore.reference import Reference
from layerstore.registry.config import Registries, is_loopback
from layerstore.registry.errors import RegistryConfigError

TEXT = """
unqualified-search-registries = ["ignored.example"]

[[registry]]
prefix = "example.com/foo"
location = "internal.example/bar"
[[registry.mirror]]
location = "mirror-0.example/mirror-for-foo"
[[registry.mirror]]
location = "mirror-1.example/mirrors/foo"
insecure = true

[[registry]]
location = "example.com"
insecure = true

[[registry]]
prefix = "*.wild.example"
[[registry.mirror]]
location = "mirror.example/wild"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "mirror.example/tags"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "*.moved.example"
location = "new.example/all"

[[registry]]
location = "blocked.example"
blocked = true

[[registry]]
location = "blocked.example/but/this"

[[registry]]
prefix = "digests.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example/digests"
"""
DIGEST = "@sha256:" + "0" * 64


@pytest.fixture
def registries(tmp_path: Path) -> Registries:
    (tmp_path / "registries.conf").write_text(TEXT)
    return Registries.load(tmp_path / "registries.conf")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("debian", ["docker.io/library/debian"]),
        (
            "example.com/foo/app:1",
            ["mirror-0.example/mirror-for-foo/app", "mirror-1.example/mirrors/foo/app !", "internal.example/bar/app"],
        ),
        (
            "example.com/foo",
            ["mirror-0.example/mirror-for-foo", "mirror-1.example/mirrors/foo !", "internal.example/bar"],
        ),
        ("example.com/foobar", ["example.com/foobar !"]),
        ("example.com:5000/x", ["example.com:5000/x !"]),
        ("example.community/x", ["example.community/x"]),
        ("a.wild.example/x:1", ["mirror.example/tags/x", "a.wild.example/x"]),
        ("a.b.wild.example/x" + DIGEST, ["mirror.example/wild/x", "a.b.wild.example/x"]),
        ("wild.example/x", ["wild.example/x"]),
        ("a.moved.example/x/y", ["new.example/all/x/y"]),
        ("blocked.example/but/this:1", ["blocked.example/but/this"]),
        ("digests.example/x:1", ["digests.example/x"]),
        ("digests.example/x" + DIGEST, ["mirror.example/digests/x", "digests.example/x"]),
        ("localhost:5000/x", ["localhost:5000/x !"]),
        ("127.9.9.9/x", ["127.9.9.9/x !"]),
        ("[::1]:5000/x", ["[::1]:5000/x !"]),
        ("128.0.0.1/x", ["128.0.0.1/x"]),
    ],
)
def test_sources(registries: Registries, name: str, expected: list[str]) -> None:
    """The longest prefix decides; mirrors come first; `!` marks what may be spoken to without TLS."""
    sources = registries.sources(Reference.parse(name))

    assert expected == [f"{source}{' !' if source.insecure else ''}" for source in sources]


def test_writing_goes_where_the_name_says(registries: Registries) -> None:
    """Mirrors and rewriting are for reading; whether TLS is needed holds for both."""
    assert "example.com/foo/app" == str(registries.destination(Reference.parse("example.com/foo/app")))
    assert registries.destination(Reference.parse("example.com/x")).insecure
    assert registries.server("example.com").insecure
    assert not registries.server("other.example").insecure


def test_blocked(registries: Registries) -> None:
    """A blocked registry is neither read nor written."""
    for ask in (registries.sources, registries.destination):
        with pytest.raises(RegistryConfigError, match=r"blocked\.example/x:latest is blocked") as caught:
            ask(Reference.parse("blocked.example/x"))
        assert "the table for blocked.example says blocked = true" == caught.value.hint


def test_docker_hub_has_a_host_of_its_own() -> None:
    """What is called docker.io is served by another host."""
    (source,) = Registries().sources(Reference.parse("debian"))

    assert "registry-1.docker.io" == source.host


def test_drop_ins_win(tmp_path: Path) -> None:
    """Files of the drop-in directory are read after the main file, in the order of their names."""
    (tmp_path / "registries.conf").write_text('[[registry]]\nlocation = "a.example"\n')
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "20.conf").write_text('[[registry]]\nprefix = "a.example"\nlocation = "twenty.example"\n')
    (directory / "10.conf").write_text('[[registry]]\nprefix = "a.example"\nlocation = "ten.example"\n')
    (directory / "30.txt").write_text("not toml [")

    registries = Registries.load(tmp_path / "registries.conf", directory)

    assert ["twenty.example/x"] == [str(one) for one in registries.sources(Reference.parse("a.example/x"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid TOML"),
        ("[registries.search]\nregistries = []", "version 1 of its format"),
        ("registry = 1", "registry is not a list of tables"),
        ("registry = [1]", "[[registry]] 1: not a table"),
        ("[[registry]]", "neither prefix nor location"),
        ('[[registry]]\nlocation = "https://x"', "location is 'https://x'"),
        ('[[registry]]\nlocation = "x.example"\ninsecure = "yes"', "insecure is 'yes', not true or false"),
        ('[[registry]]\nlocation = "x.example"\nmirror = [1]', "mirror is not a list of tables"),
        ('[[registry]]\nlocation = "x.example"\n[[registry.mirror]]', "mirror 1: location is not set"),
        (
            '[[registry]]\nlocation = "x.example"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "no"',
            "pull-from-mirror is 'no'",
        ),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong with a file is said with the file and the table."""
    path = tmp_path / "registries.conf"
    path.write_text(text)

    with pytest.raises(RegistryConfigError) as caught:
        Registries.load(path)

    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that was named has to be there."""
    with pytest.raises(RegistryConfigError, match="No such file"):
        Registries.load(tmp_path / "none")


def test_loopback() -> None:
    """Loopback is an address, not a beginning of a name."""
    assert [True, True, True, True, False, False, False] == [
        is_loopback(host)
        for host in (
            "localhost",
            "localhost:1",
            "127.255.0.1:80",
            "[::1]:5",
            "127.example.com",
            "localhost.evil",
            "[::2]",
        )
    ]
