"""Image references and platforms: the cases of docker/distribution and containerd."""

from __future__ import annotations

import subprocess
import sys

import pytest

from layerstore.digest import Digest
from layerstore.platforms import InvalidPlatform, Platform
from layerstore.reference import InvalidReference, Reference

F = "f" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("test.com:5000", "docker.io/library/test.com:5000", "test.com:5000"),
        ("test:5000/repo", "test:5000/repo:latest", "test:5000/repo:latest"),
        ("test:5000/repo:tag", "test:5000/repo:tag", "test:5000/repo:tag"),
        (f"test:5000/repo@sha256:{F}", f"test:5000/repo@sha256:{F}", f"test:5000/repo@sha256:{F}"),
        (f"debian:12@sha256:{F}", f"docker.io/library/debian:12@sha256:{F}", f"debian:12@sha256:{F}"),
        ("lowercase:Uppercase", "docker.io/library/lowercase:Uppercase", "lowercase:Uppercase"),
        ("Uppercase/lowercase:tag", "Uppercase/lowercase:tag", "Uppercase/lowercase:tag"),
        ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080", "foo/foo_bar.com:8080"),
        ("192.168.1.1:5000/repo:5050", "192.168.1.1:5000/repo:5050", "192.168.1.1:5000/repo:5050"),
        ("[::1]:5000/repo", "[::1]:5000/repo:latest", "[::1]:5000/repo:latest"),
        ("[2001:db8::1]/repo", "[2001:db8::1]/repo:latest", "[2001:db8::1]/repo:latest"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com"),
        ("a/b__c/d---e/f.g", "docker.io/a/b__c/d---e/f.g:latest", "a/b__c/d---e/f.g:latest"),
        ("a/" * 127 + "a:t", "docker.io/" + "a/" * 127 + "a:t", "a/" * 127 + "a:t"),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128, "app:" + "t" * 128),
    ],
)
def test_references(text: str, canonical: str, familiar: str) -> None:
    """Names, defaults, ports, addresses and digests; the canonical form parses to itself."""
    reference = Reference.parse(text)

    assert (canonical, familiar) == (reference.canonical, reference.familiar)
    assert reference == Reference.parse(canonical)
    assert reference == Reference.parse(familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (":justtag", "is no repository name"),
        (f"@sha256:{F}", "is no repository name"),
        ("repo@sha256:" + "f" * 34, "has 64 lower-case hex digits"),
        ("repo@sha256:" + "F" * 64, "has 64 lower-case hex digits"),
        (f"repo@sha512:{F}{F}", "algorithm sha512 is not supported"),
        ("repo@nonsense", "'nonsense' is no digest"),
        ("Uppercase:tag", "must be lowercase"),
        ("test:5000/Uppercase/lowercase:tag", "must be lowercase"),
        ("a/" * 128 + "a:tag", "more than 255 characters"),
        ("aa/asdf$$^/aa", "is no repository name"),
        ("a//b", "is no repository name"),
        ("a/b/", "is no repository name"),
        ("a..b/c", "is no host name"),
        ("-a/b", "is no repository name"),
        ("[fe80::1%eth0]:5000/repo", "is no host name"),
        ("[2001:db8::1]", "is no repository name"),
        ("https://example.com/app", "it has a scheme"),
        ("app:", "'' is no tag"),
        ("app:-x", "'-x' is no tag"),
        ("app:" + "t" * 129, "is no tag"),
        ("app:1\n", "is no tag"),
        ("app name", "is no repository name"),
        (F, "cannot be called like an image ID"),
        ("äpp", "is no repository name"),
    ],
)
def test_what_is_no_reference(text: str, message: str) -> None:
    """Every malformed reference is refused with the part that is wrong."""
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)

    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Debian:Bookworm", "did you mean debian:Bookworm?"),
        ("test:5000/Up/App:Tag", "did you mean test:5000/up/app:Tag?"),
        ("https://example.com/app", "leave out https://"),
    ],
)
def test_hints(text: str, hint: str) -> None:
    """Common mistakes come with what was meant."""
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)

    assert hint == caught.value.hint


def test_parts() -> None:
    """What a registry is asked for, and references with another tag or digest."""
    digest = Digest("sha256:" + F)
    reference = Reference.parse("team/app:1")

    assert ("docker.io", "team/app", "1") == (reference.registry, reference.repository, reference.target)
    assert digest == reference.with_digest(digest).target
    assert digest == Reference.parse(f"team/app:1@{digest}").target
    assert "team/app:2" == reference.with_digest(digest).with_tag("2").familiar
    with pytest.raises(InvalidReference):
        reference.with_tag("a b")


HOST = Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("Linux/AMD64", "linux/amd64"),
        ("macos/arm64", "darwin/arm64"),
        ("linux", "linux/amd64"),
        ("windows", "windows/amd64"),
        ("arm64", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("s390x", "linux/s390x"),
    ],
)
def test_platforms(text: str, expected: str) -> None:
    """Platforms in all their spellings have one form, which parses to itself."""
    platform = Platform.parse(text, host=HOST)

    assert expected == str(platform)
    assert platform == Platform.parse(expected, host=HOST)


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/a/b/c", "nonsense", "linux/a b", "linux//v8"])
def test_what_is_no_platform(text: str) -> None:
    """Malformed platforms are refused with the form they should have."""
    with pytest.raises(InvalidPlatform) as caught:
        Platform.parse(text, host=HOST)

    assert "OS/ARCH" in caught.value.hint


@pytest.mark.parametrize(
    ("platform", "candidates"),
    [
        ("linux/amd64", "linux/amd64 linux/386"),
        ("linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"),
        ("linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm/v6", "linux/arm/v6 linux/arm/v5"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_what_runs_where(platform: str, candidates: str) -> None:
    """A processor runs what older ones of its family run, best first."""
    assert candidates.split() == [str(one) for one in Platform.parse(platform, host=HOST).candidates]


def test_references_are_cheap() -> None:
    """Parsing a reference and a config loads nothing heavy: every cached build does it."""
    program = (
        "import sys; from layerstore.reference import Reference; from layerstore.oci import parse_config; "
        "Reference.parse('debian'); "
        "print([m for m in ('urllib3', 'ssl', 'http', 'dataclasses', 'tarfile', 'zstandard') if m in sys.modules])"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert "[]\n" == printed
