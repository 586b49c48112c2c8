"""Cache keys: every field of an operation counts that should, and none that should not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from builder.cachekey import definition, differences, ingredients, key_of
from builder.copy import CopySpec, PathSource, TextSource
from builder.ops import BindMount, CacheMount, CopyOp, MkdirOp, RemoteFile, RunOp, SecretMount, TmpfsMount

RUN = RunOp(args=("/bin/sh", "-c", "make"), env=("A=1", "PATH=/bin"), cwd="/", user="")
COPY = CopyOp(spec=CopySpec(sources=(PathSource(b"a"),), dest=b"/x"))


def random_text(random_: random.Random, most: int) -> str:
    """A short text of few characters, so that concatenations often collide."""
    return "".join(random_.choice("a1:") for _ in range(random_.randint(0, most)))


def key(op: Any) -> str:
    """The key of an operation without inputs."""
    return key_of(ingredients(op, ()))


@pytest.mark.parametrize(
    "change",
    [
        {"args": ("/bin/sh", "-c", "make all")},
        {"args": ("/bin/sh", "-c", "ma", "ke")},
        {"env": ("A=2", "PATH=/bin")},
        {"env": ("A=1", "B=", "PATH=/bin")},
        {"cwd": "/src"},
        {"user": "daemon"},
        {"network": "none"},
        {"security": "insecure"},
        {"hostname": "other"},
        {"extra_hosts": (("db", "192.0.2.1"),)},
        {"shm_size": 1 << 20},
        {"ulimits": ("nofile=1024",)},
        {"scripts": (("EOF", b"#!/bin/sh\n"),)},
        {"platform": "linux/arm64"},
        {"mounts": (TmpfsMount(target="/t", size=0),)},
        {"mounts": (CacheMount(target="/c", id="c", sharing="shared", mode=0o755, uid=0, gid=0, read_only=False),)},
        {"mounts": (BindMount(target="/b", source="/", input=1, read_only=True),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_counts_for_a_run(change: dict[str, Any]) -> None:
    """Each of these changes what the process sees."""
    assert key(RUN) != key(RUN.replace(**change))


def test_what_does_not_count_for_a_run() -> None:
    """Proxy arguments, addresses of extra hosts, and how a cache is shared; how it is found and begun does count."""
    hosts = RUN.replace(extra_hosts=(("db", "192.0.2.1"),))
    cache = CacheMount(target="/c", id="one", sharing="shared", mode=0o755, uid=0, gid=0, read_only=False)
    other = CacheMount(target="/c", id="two", sharing="locked", mode=0o700, uid=7, gid=7, read_only=False)

    assert key(RUN) == key(RUN.replace(proxies=("HTTP_PROXY=http://proxy.invalid",)))
    assert key(hosts) == key(hosts.replace(extra_hosts=(("db", "192.0.2.2"),)))
    assert key(RUN.replace(mounts=(cache,))) == key(RUN.replace(mounts=(cache.replace(sharing="locked"),)))
    for name in ("id", "mode", "uid"):
        changed = cache.replace(**{name: getattr(other, name)})
        assert key(RUN.replace(mounts=(cache,))) != key(RUN.replace(mounts=(changed,)))


def test_a_secret_counts_by_name_only() -> None:
    """Whether a secret is there or required does not change the key; where it appears does."""
    secret = SecretMount(id="t", target="/s", env=None, required=False, mode=0o400, uid=0, gid=0)

    assert key(RUN.replace(mounts=(secret,))) == key(RUN.replace(mounts=(secret.replace(required=True),)))
    assert key(RUN.replace(mounts=(secret,))) != key(RUN.replace(mounts=(secret.replace(env="T"),)))


@pytest.mark.parametrize(
    "change",
    [
        {"sources": (PathSource(b"b"),)},
        {"sources": (TextSource(b"a", b"text"),)},
        {"dest": b"/y"},
        {"dest": b"/x/"},
        {"chown": "1:2"},
        {"chmod": "644"},
        {"link": True},
        {"parents": True},
        {"exclude": ("*.md",)},
        {"unpack": True},
        {"unpack_remote": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_counts_for_a_copy(change: dict[str, Any]) -> None:
    """Each of these changes the layer."""
    assert key(COPY) != key(CopyOp(spec=COPY.spec.replace(**change)))


def test_the_working_directory_counts_for_relative_destinations_only() -> None:
    """COPY a /x is the same step wherever WORKDIR is."""
    relative = COPY.spec.replace(dest=b"x")

    assert key(COPY) == key(CopyOp(spec=COPY.spec.replace(workdir=b"/w")))
    assert key(CopyOp(spec=relative)) != key(CopyOp(spec=relative.replace(workdir=b"/w")))


def test_downloads_count_with_their_checksum() -> None:
    """The same URL with another digest is another step."""
    one, other = (
        RemoteFile(url="http://x.invalid/a", name=b"a", checksum=text) for text in (None, "sha256:" + 64 * "0")
    )

    assert key(COPY.replace(remotes=(one,))) != key(COPY.replace(remotes=(other,)))


def test_no_two_lists_run_into_one_another() -> None:
    """Moving a character from one ingredient to the next changes the key (a seeded search for collisions)."""
    random_ = random.Random(7)
    seen: dict[str, tuple[tuple[str, str], ...]] = {}
    for _ in range(3000):
        listed = tuple((random_text(random_, 3), random_text(random_, 6)) for _ in range(random_.randint(0, 4)))
        assert seen.setdefault(key_of(listed), listed) == listed


def test_the_explainer_sees_what_the_hasher_sees() -> None:
    """Two operations have the same key exactly when no difference can be told."""
    before, after = (tuple(definition(MkdirOp(path=path, user=""))) for path in ("/a", "/b"))

    assert [] == differences(before, before)
    assert ["path: /a → /b"] == differences(before, after)
