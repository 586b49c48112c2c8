"""A stream whose pieces are worked on in a thread of their own."""

from __future__ import annotations

import io
import threading
import time

import pytest

from layerstore import Contents, CorruptContent, Digest, Entry, Forms, Inline, Kind, Store
from layerstore.conveyor import Conveyor
from layerstore.join import TarSink, join


def test_pieces_are_taken_in_order() -> None:
    """All of them, in the order in which they came, by another thread, and few wait at a time."""
    taken: list[bytes] = []
    threads = set()
    behind = []

    def take(piece: bytes) -> None:
        time.sleep(0.0005)
        threads.add(threading.current_thread())
        taken.append(piece)

    conveyor = Conveyor(take)
    for number in range(100):
        conveyor.put(b"%d" % number)
        behind.append(number - len(taken))
    conveyor.finish()
    assert [b"%d" % number for number in range(100)] == taken
    assert 1 == len(threads - {threading.current_thread()})
    assert max(behind) <= 6


def test_what_goes_wrong_is_told_to_who_puts() -> None:
    """An error ends the thread; the next piece, or the end, raises it."""

    def fail(piece: bytes) -> None:
        raise OSError(28, piece.decode())

    def put_many() -> None:
        for piece in [b"first"] * 1000:
            conveyor.put(piece)

    conveyor = Conveyor(fail)
    with pytest.raises(OSError, match="first"):
        put_many()
    with pytest.raises(OSError, match="first"):
        conveyor.finish()
    conveyor.abandon()


def test_a_block_ends_its_conveyor() -> None:
    """All pieces are taken when the block has ended well; where it fails, that is raised and the thread ends."""
    taken: list[bytes] = []
    with Conveyor(taken.append) as conveyor:
        for _ in range(20):
            conveyor.put(b"piece")
    assert [b"piece"] * 20 == taken

    def fail() -> None:
        with Conveyor(taken.append) as conveyor:
            conveyor.put(b"last")
            raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert before == threading.active_count()


def test_a_blob_is_hashed_beside_its_source(store: Store) -> None:
    """A large blob is put whole, and with the digest of its bytes; one that is not what it should be is not kept."""
    data = bytes(range(256)) * 40_000
    digest = Digest.of(data)
    assert (digest, len(data)) == store.blobs.put(io.BytesIO(data), expected=digest)
    assert data == store.blobs.read(digest)
    other = Digest.of(b"other")
    with pytest.raises(CorruptContent, match="should have been"):
        store.blobs.put(io.BytesIO(data), expected=other)
    assert None is store.blobs.size(other)


def test_a_layer_that_is_given_up_leaves_no_thread() -> None:
    """When the source of a large layer fails, the thread is gone when the error is seen."""
    before = threading.active_count()
    entries = [Entry(b"%d" % number, Kind.FILE, size=1 << 20, source=Inline(bytes(1 << 20))) for number in range(9)]

    def failing() -> object:
        yield from entries
        assert before + 1 == threading.active_count()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), TarSink() as tar:
        join(failing(), tar, None)  # type: ignore[arg-type]
    assert before == threading.active_count()


@pytest.mark.parametrize("size", [(4 << 20) - 5000, (4 << 20) + 1, 12_345_678])
def test_digests_do_not_depend_on_threads(store: Store, size: int) -> None:
    """A layer's digest is the same whether its tar was hashed along the way or not, and so are its file's."""
    data = bytes(range(251)) * (size // 251)
    entries = [Entry(b"a", Kind.FILE, size=len(data), source=Inline(data))]
    plain = TarSink()
    join(entries, plain, None)
    layer = store.layers.write(entries, forms=Forms.TREE | Forms.BLOB, contents=Contents())
    assert (plain.finish(), plain.size) == (layer.diff_id, layer.size)
    assert [] == store.check()
