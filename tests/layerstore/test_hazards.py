"""Crashes at every step, power cuts, full disks, many processes at once, and the collection of what is left."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import (
    CacheKey,
    CacheRecord,
    Compression,
    Contents,
    DiffId,
    Digest,
    Entry,
    Forms,
    Inline,
    Kind,
    NotFound,
    Store,
    StoreUnusable,
    durable,
)
from layerstore.lease import sweeping

HOUR_NS = 3_600_000_000_000
ROOT = Path(__file__).parents[2]


def later() -> int:
    """A clock that runs an hour ahead, so that litter is old at once."""
    return time.time_ns() + HOUR_NS


@pytest.fixture
def shm() -> Iterator[Path]:
    """A directory in memory: syncing it costs nothing, and crashes are many here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
        yield Path(made)


def file(path: bytes, data: bytes) -> Entry:
    return Entry(path, Kind.FILE, size=len(data), source=Inline(data))


def work(root: Path) -> None:
    """Touch every way in which the store is written."""
    with Store.open(root, clock=later) as store:
        with store.lease():
            first = store.layers.write([file(b"d/f", b"data"), file(b"d/g", bytes(300_000))], forms=Forms.TREE)
            second = store.layers.write([file(b"x", b"only blob")], forms=Forms.BLOB, compression=Compression.GZIP)
            upper = store.layers.prepare()
            (upper.path / "new").write_bytes(b"new")
            third = store.layers.commit(upper, store.layers.view([first.diff_id]))
            store.layers.tree(second.diff_id)
            version(store)
            chain = [first.diff_id, second.diff_id, third.diff_id]
            image = store.images.put(b"{}", layers=chain, names=["n:1"])
            store.cache.put(CacheRecord(CacheKey.of(b"k"), (third.diff_id,)))
            manifest = store.layers.blob(third.diff_id, Compression.ZSTD).digest
            store.images.set_manifest(image, manifest)
        store.blobs.put_bytes(b"nobody needs this")
        store.images.tag(image, "n:2")
        store.images.untag("n:1")
        store.sweep(store.gc())


def version(store: Store) -> None:
    """Write a layer, one that is kept as what differs from it, and the whole tree of that."""
    entries = [file(b"v/%d" % number, b"v") for number in range(8)]
    base = store.layers.write(entries, contents=Contents())
    entries[0] = file(b"v/0", b"new")
    new = store.layers.write(entries[:-1], contents=Contents(), like=base.diff_id)
    store.layers.view([new.diff_id])
    store.layers.tree(new.diff_id)


def run_until(root: Path, stop: int) -> bool:
    """Do the work in a child that dies before its step number `stop`; return whether it got to the end."""
    pid = os.fork()
    if not pid:
        count = 0

        def die(_name: str) -> None:
            nonlocal count
            count += 1
            if count == stop:
                os._exit(9)

        durable.fault = die
        try:
            work(root)
        except BaseException:  # noqa: BLE001 - the parent sees the status
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9), f"step {stop} ended with {status}"
    return status == 0


def test_crash_at_every_step(shm: Path) -> None:
    """Whatever the last step was: check finds nothing wrong, the next run completes, and gc takes the litter."""
    stop = 1
    while not run_until(shm / f"{stop}", stop):
        root = shm / f"{stop}"
        if (root / "store.db").exists():
            with Store.open(root) as store:
                assert [] == store.check(), f"after a crash at step {stop}"
        work(root)
        with Store.open(root, clock=later) as store:
            store.sweep(store.gc())
            assert [] == store.check()
            assert [] == os.listdir(root / "tmp") + os.listdir(root / "work"), f"after a crash at step {stop}"
            image = store.images.get("n:2")
            assert image is not None
            assert b"data" == store.layers.view(image.layers).read(b"d/f")
        subprocess.run(["rm", "-rf", root], check=True)
        stop += 1
    assert stop > 40


def test_litter_of_the_living_stays(shm: Path) -> None:
    """An upper directory that somebody holds is not litter, however old; once let go, it is."""
    with Store.open(shm / "s", clock=later) as store:
        upper = store.layers.prepare()
        (upper.path / "f").write_bytes(b"x")
        store.sweep(store.gc())
        assert upper.path.is_dir()
        assert upper.work.is_dir()
        upper.close()
        store.sweep(store.gc())
        assert not upper.path.exists()
        store.sweep(store.gc())
        assert [] == os.listdir(store.root / "work")


def test_gc_keeps_what_is_needed(shm: Path) -> None:
    """Images, recent cache records and their layers stay; the rest goes, files and records alike."""
    now = time.time_ns()
    with Store.open(shm / "s", clock=lambda: now) as store:
        layers = [store.layers.write([file(b"f", b"%d" % number)], forms=Forms.TREE) for number in range(4)]
        for layer in layers:
            store.layers.blob(layer.diff_id, Compression.GZIP)
        store.images.put(b"{}", layers=[layers[0].diff_id], names=["n:1"])
        store.cache.put(CacheRecord(CacheKey.of(b"old"), (layers[1].diff_id,)))
        now += HOUR_NS
        store.cache.put(CacheRecord(CacheKey.of(b"new"), (layers[2].diff_id,)))
        now += HOUR_NS
        plan = store.gc(keep_used_since=now - HOUR_NS)
        assert {layers[1].diff_id, layers[3].diff_id} == set(plan.layers)
        assert 5 == len(plan.describe())
        assert store.sweep(plan) > 0
        assert {layers[0].diff_id.hex, layers[2].diff_id.hex} == set(os.listdir(store.root / "trees"))
        assert [] == store.cache.find(CacheKey.of(b"old"))
        assert 1 == len(store.cache.find(CacheKey.of(b"new")))
        assert [] == store.check()
        with pytest.raises(NotFound):
            store.layers.tree(layers[3].diff_id)


def test_gc_never_takes_what_a_lease_used(shm: Path) -> None:
    """What was looked up within a living lease stays, though the plan was made before or nothing else needs it."""
    now = time.time_ns()
    with Store.open(shm / "s", clock=lambda: now) as store, Store.open(shm / "s", clock=lambda: now) as other:
        layer = store.layers.write([file(b"f", b"1")], forms=Forms.TREE)
        now += HOUR_NS
        early = other.gc()
        assert (layer.diff_id,) == early.layers
        with store.lease():
            now += 1
            assert None is not store.layers.find(layer.diff_id)
            other.sweep(early)
            assert None is not store.layers.find(layer.diff_id)
            now += HOUR_NS
            other.sweep(other.gc())
            assert store.layers.tree(layer.diff_id).is_dir()
        now += HOUR_NS
        other.sweep(other.gc())
        assert None is store.layers.find(layer.diff_id)


def test_a_lease_that_looks_back_keeps_what_it_reads_without_writing(shm: Path) -> None:
    """What was used shortly before is read without a write, and no sweep takes it, whenever that was planned."""
    now = time.time_ns()
    key = CacheKey.of(b"step")
    with Store.open(shm / "s", clock=lambda: now) as store, Store.open(shm / "s", clock=lambda: now) as other:
        layer = store.layers.write([file(b"f", b"1")], forms=Forms.TREE)
        image = store.images.put(b"{}", layers=[layer.diff_id], names=["n:1"])
        store.cache.put(CacheRecord(key, (layer.diff_id,)))
        now += HOUR_NS // 2
        early = other.gc(keep_used_since=now)
        assert (key, early.cache[0][1]) == early.cache[0]
        with store.lease(lookback=HOUR_NS) as lease:
            lease.sync()
            before = changes(store)
            assert 1 == len(store.cache.find(key))
            assert image == store.images.put(b"{}", layers=[layer.diff_id], names=["n:1"])
            assert before == changes(store)
            now += HOUR_NS
            other.sweep(early)
            other.sweep(other.gc(keep_used_since=now))
            assert 1 == len(store.cache.find(key))
        now += HOUR_NS
        with store.lease(lookback=HOUR_NS):
            assert 1 == len(store.cache.find(key))
            assert before < changes(store)
        now += 1
        other.sweep(other.gc(keep_used_since=now))
        assert [] == store.cache.find(key)


def changes(store: Store) -> int:
    """How often the database was written to by this thread, in rows."""
    return store._home.db._connection().total_changes


def test_a_lease_waits_for_a_sweep(shm: Path) -> None:
    """A lease that begins while a sweep has already looked for leases waits until what goes has gone."""
    with Store.open(shm / "s") as store:
        entered = threading.Event()

        def begin() -> None:
            with store.lease():
                entered.set()

        with sweeping(store._home):
            thread = threading.Thread(target=begin)
            thread.start()
            assert not entered.wait(0.1)
        assert entered.wait(10)
        thread.join()
        assert [] == os.listdir(store.root / "locks")


def test_power_cut_drops_what_was_not_synced(shm: Path) -> None:
    """Records of another boot that were never synced go with their content; synced ones stay."""
    with Store.open(shm / "s") as store:
        with store.lease():
            kept = store.layers.write([file(b"f", b"kept")], forms=Forms.TREE | Forms.BLOB)
            image = store.images.put(b"{}", layers=[kept.diff_id], names=["n:1"])
            store.cache.put(CacheRecord(CacheKey.of(b"kept"), (kept.diff_id,)))
        lost = store.layers.write([file(b"f", b"lost")], forms=Forms.TREE | Forms.BLOB)
        store.cache.put(CacheRecord(CacheKey.of(b"lost"), (lost.diff_id,)))
        store.images.put(b"{1}", layers=[lost.diff_id], names=["n:2"])
        store._home.db.write("UPDATE meta SET value = 'another boot' WHERE key = 'boot'")
        for table in ("layers", "blobs", "images", "cache"):
            store._home.db.write(f"UPDATE {table} SET boot = 'another boot' WHERE boot IS NOT NULL")
    with Store.open(shm / "s") as store:
        assert image == store.images.get("n:1")
        assert None is store.images.get("n:2")
        assert None is store.layers.find(lost.diff_id)
        assert 1 == len(store.cache.find(CacheKey.of(b"kept")))
        assert [] == store.cache.find(CacheKey.of(b"lost"))
        assert [kept.diff_id.hex] == os.listdir(store.root / "trees")
        assert [] == store.check()
        assert [] == os.listdir(store.root / "tmp")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 10 MB."""
    where = tmp_path / "small"
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(where), b"tmpfs", 0, b"size=10m") != 0:
        pytest.skip("mounting a tmpfs needs CAP_SYS_ADMIN")
    try:
        yield where
    finally:
        assert libc.umount2(os.fsencode(where), 0) == 0


@pytest.mark.root
@pytest.mark.parametrize(
    "fill",
    [
        lambda store: store.layers.write([file(b"f", os.urandom(8 << 20))], forms=Forms.TREE),
        lambda store: store.layers.write([file(b"f", os.urandom(8 << 20))], forms=Forms.BLOB),
        lambda store: store.blobs.put_bytes(os.urandom(8 << 20)),
        lambda store: [store.images.put(os.urandom(1 << 20), layers=[]) for _ in range(8)],
    ],
)
def test_disk_full(small_disk: Path, fill: Callable[[Store], object]) -> None:
    """A full disk is one error with a way out; what was finished stays, and the store goes on when there is room."""
    (small_disk / "ballast").write_bytes(bytes(4 << 20))
    with Store.open(small_disk / "s") as store:
        with store.lease():
            before = store.layers.write([file(b"f", b"before")], forms=Forms.TREE)
        with pytest.raises(StoreUnusable) as caught:
            fill(store)
        assert "free some space" in caught.value.hint
        assert [] == os.listdir(store.root / "tmp")
        (small_disk / "ballast").unlink()
        assert None is not store.layers.find(before.diff_id)
        store.layers.write([file(b"f", b"after")], forms=Forms.TREE | Forms.BLOB)
        assert [] == store.check()


WRITER = """
import sys
from pathlib import Path
from layerstore import *
root, seed = Path(sys.argv[1]), int(sys.argv[2])
def file(path, data):
    return Entry(path, Kind.FILE, size=len(data), source=Inline(data))
with Store.open(root) as store, store.lease():
    for number in range(12):
        shared = store.layers.write([file(b"f", b"%d" % number)], forms=Forms.TREE)
        own = store.layers.write([file(b"f", b"%d %d" % (seed, number))], forms=Forms.TREE | Forms.BLOB)
        store.layers.blob(shared.diff_id, Compression.GZIP)
        upper = store.layers.prepare()
        (upper.path / "x").write_bytes(b"%d" % (number % 3))
        top = store.layers.commit(upper, store.layers.view([shared.diff_id]))
        many = [file(b"v/%d" % at, b"v") for at in range(9)]
        base = store.layers.write(many, contents=Contents())
        many[seed] = file(b"v/%d" % seed, b"%d" % number)
        new = store.layers.write(many, contents=Contents(), like=base.diff_id)
        store.images.put(b"%d %d" % (seed, number), layers=[new.diff_id], names=[])
        store.cache.put(CacheRecord(CacheKey.of(b"%d" % number), (top.diff_id,)))
        store.images.put(b"%d" % number, layers=[shared.diff_id, own.diff_id, top.diff_id], names=["n:%d" % number])
        with store.lock("key"):
            path = root.parent / "counter"
            path.write_text(str(int(path.read_text()) + 1))
        if seed == 0:
            store.sweep(store.gc())
"""


def test_many_processes_share_one_store(shm: Path) -> None:
    """Five processes write the same and different things while one collects garbage: nothing is lost or torn."""
    (shm / "counter").write_text("0")
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, shm / "s", str(seed)], cwd=ROOT, stderr=subprocess.PIPE)
        for seed in range(5)
    ]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert (0, b"") == (child.returncode, err)
    assert "60" == (shm / "counter").read_text()
    with Store.open(shm / "s") as store:
        assert [] == store.check()
        assert 12 == len([image for image in store.images.list() if image.names])
        for image in store.images.list():
            store.layers.view(image.layers)
        assert [] == os.listdir(store.root / "tmp") + os.listdir(store.root / "work")


def test_many_processes_create_one_store(shm: Path) -> None:
    """Eight processes open a store that is not there yet at the same moment; each gets it, whole."""
    for round_ in range(10):
        start, go = os.pipe()
        children = []
        for _ in range(8):
            pid = os.fork()
            if not pid:
                os.close(go)
                os.read(start, 1)
                try:
                    Store.open(shm / f"{round_}").close()
                except BaseException:  # noqa: BLE001 - the parent sees the status
                    os._exit(1)
                os._exit(0)
            children.append(pid)
        os.close(start)
        os.close(go)
        assert [0] * 8 == [os.waitpid(pid, 0)[1] for pid in children]


def test_threads_share_one_store(shm: Path) -> None:
    """Threads of one process use one Store at once."""
    failures: list[BaseException] = []
    found: set[DiffId] = set()

    def use(store: Store, seed: int) -> None:
        try:
            for number in range(20):
                layer = store.layers.write([file(b"f", b"%d" % (number % 4))], forms=Forms.TREE)
                found.add(layer.diff_id)
                store.layers.blob(layer.diff_id, Compression.ZSTD)
                store.cache.put(CacheRecord(CacheKey.of(b"%d" % seed), (layer.diff_id,)))
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    with Store.open(shm / "s") as store:
        threads = [threading.Thread(target=use, args=(store, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == failures
        assert 4 == len(found)
        assert [] == store.check()


def test_waiting_for_a_lock(shm: Path) -> None:
    """The second who wants a key waits; those who share it do not."""
    order: list[str] = []
    with Store.open(shm / "s") as store:

        def second() -> None:
            with store.lock("docker.io/library/a:1"):
                order.append("second")

        with store.lock("docker.io/library/a:1"):
            thread = threading.Thread(target=second)
            thread.start()
            time.sleep(0.05)
            order.append("first")
        thread.join()
        with store.lock("k", shared=True), store.lock("k", shared=True):
            order.append("both")
        assert ["first", "second", "both"] == order
        assert 1 == len(os.listdir(store.root / "locks"))
        store.sweep(store.gc())
        assert [] == os.listdir(store.root / "locks")


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A large file passes through fixed buffers: hashing, packing and unpacking 300 MB takes far less memory."""
    program = f"""
import os, resource
from pathlib import Path
from layerstore import *
path = {str(tmp_path / "big")!r}
with open(path, "wb") as file:
    file.truncate(300 << 20)
with Store.open(Path({str(tmp_path / "s")!r})) as store:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layer = store.layers.write(
        [Entry(b"big", Kind.FILE, size=300 << 20, source=path.encode())],
        forms=Forms.BLOB, compression=Compression.GZIP)
    store.layers.tree(layer.diff_id)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    used = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True).stdout
    assert int(used) < 40_000


def test_determinism_between_places(shm: Path) -> None:
    """The same work in two stores gives the same layers and the same blobs."""

    def digests(root: Path) -> list[Digest]:
        with Store.open(root) as store:
            made = store.layers.write([file(b"b/c", b"1"), file(b"a", b"2")], forms=Forms.TREE)
            return [made.diff_id, *(store.layers.blob(made.diff_id, kind).digest for kind in Compression)]

    assert digests(shm / "one") == digests(shm / "two")
