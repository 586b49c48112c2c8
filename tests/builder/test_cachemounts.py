"""Cache mounts: who gets which directory, who waits for whom, and what gc takes; the age of logs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.cachemounts import CacheMounts
from builder.logs import KEPT_SECONDS, sweep_logs
from builder.ops import CacheMount
from layerstore import Store


def mount(sharing: str = "shared", **changes: object) -> CacheMount:
    """A cache mount of this process's own user."""
    plain = CacheMount(
        target="/c", id="c", sharing=sharing, mode=0o755, uid=os.getuid(), gid=os.getgid(), read_only=False
    )
    made: CacheMount = plain.replace(**changes)
    return made


def leave(_path: Path) -> None:
    """Fill with nothing."""


def test_the_same_id_is_the_same_directory(tmp_path: Path) -> None:
    """What one step leaves, the next one finds; another id, mode, seed or namespace is another cache."""
    with Store.open(tmp_path) as store:
        caches = CacheMounts(store=store)
        with caches.hold(mount(), seed="", fill=leave) as path:
            (path / "kept").touch()
        with caches.hold(mount("locked"), seed="", fill=leave) as path:
            assert (path / "kept").exists()
        for other, seed in ((mount(id="d"), ""), (mount(mode=0o700), ""), (mount(), "seed")):
            with caches.hold(other, seed=seed, fill=leave) as path:
                assert [] == list(path.iterdir())
        with CacheMounts(store=store, namespace="n").hold(mount(), seed="", fill=leave) as path:
            assert [] == list(path.iterdir())


def test_private_takes_another_directory_while_one_is_used(tmp_path: Path) -> None:
    """Two private users at once never see each other; a later one finds the first directory again."""
    with Store.open(tmp_path) as store:
        caches = CacheMounts(store=store)
        private = mount("private")
        with caches.hold(private, seed="", fill=leave) as first, caches.hold(private, seed="", fill=leave) as second:
            assert first != second
        with caches.hold(mount("private"), seed="", fill=leave) as again:
            assert first == again


def test_locked_waits(tmp_path: Path) -> None:
    """A second locked user gets the directory only when the first has left it."""
    with Store.open(tmp_path) as store:
        caches = CacheMounts(store=store)
        entered = threading.Event()

        def use() -> None:
            with caches.hold(mount("locked"), seed="", fill=leave):
                entered.set()

        other = threading.Thread(target=use)
        with caches.hold(mount("locked"), seed="", fill=leave):
            other.start()
            assert not entered.wait(0.2)
        other.join(10)
        assert entered.is_set()


@pytest.mark.parametrize("sharing", ["shared", "private", "locked"])
def test_gc_takes_what_nobody_uses(tmp_path: Path, sharing: str) -> None:
    """A cache in use stays, whatever its sharing; afterwards it goes."""
    with Store.open(tmp_path) as store:
        caches = CacheMounts(store=store)
        with caches.hold(mount(sharing), seed="", fill=leave) as path:
            assert 0 == caches.sweep()
            assert path.is_dir()
        assert 1 == caches.sweep()
        assert not path.exists()


def test_old_logs_go(tmp_path: Path) -> None:
    """Logs stay for a week after the build."""
    now = 1_800_000_000.0
    for name, age in (("old", KEPT_SECONDS + 1), ("new", KEPT_SECONDS - 1)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (now - age, now - age))

    assert 1 == sweep_logs(tmp_path, now=now)
    assert ["new"] == [path.name for path in tmp_path.iterdir()]
    assert 0 == sweep_logs(tmp_path / "missing", now=now)
