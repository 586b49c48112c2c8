"""Layers that are sent while they are still being written."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore import Compression, Digest, Entry, Forms, Image, Inline, Kind, Store, StoreError
from layerstore.growing import GivenUp, Growing
from layerstore.reference import Reference
from layerstore.registry.ahead import Ahead
from layerstore.registry.auth import Credentials
from layerstore.registry.client import Client, GivenCredentials
from layerstore.registry.errors import AuthError
from layerstore.registry.http import Network
from layerstore.registry.transfer import push
from tests.layerstore.conftest import MakeImage, image_in
from tests.layerstore.registry.conftest import PASSWORD, USER, Answer, FakeRegistry, RealRegistry, Request

QUICK = Network(attempts=3, backoff=0.001, timeout=5)
LARGE = 6_000_000
TEXT = random.Random(1).randbytes(LARGE).hex()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(network=QUICK) as one:
        yield one


@pytest.fixture
def image(make_image: MakeImage) -> Image:
    """An image with a layer that stays large when it is compressed, and a small one."""
    return make_image(TEXT, "small")


class Uploads:
    """A registry that keeps what it is sent; `first` has what a method is answered with once, PUT for a large blob."""

    def __init__(self, fake: FakeRegistry) -> None:
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}
        self.first: dict[str, Answer] = {}
        self.has: set[str] = set()
        self.numbers = itertools.count()
        fake.script = self.answer

    def answer(self, request: Request) -> Answer:
        """Do what the distribution specification says of uploads."""
        place, _, query = request.path.partition("?")
        name = place.rpartition("/")[2]
        if request.method in self.first and (request.method != "PUT" or len(self.parts.get(name, b"")) > LARGE):
            return self.first.pop(request.method)
        match request.method:
            case "HEAD":
                return Answer(200 if name in self.blobs or name in self.has else 404)
            case "POST":
                name = f"upload{next(self.numbers)}"
                self.parts[name] = b""
                return Answer(202, headers={"Location": f"/v2/a/blobs/uploads/{name}"})
            case "PATCH":
                self.parts[name] += request.body
                return Answer(202, headers={"Location": f"/v2/a/blobs/uploads/{name}"})
            case "PUT" if "/blobs/" in place:
                data = self.parts.pop(name) + request.body
                digest = query.removeprefix("digest=").replace("%3A", ":")
                if Digest.of(data) != digest:
                    return Answer(400)
                self.blobs[digest] = data
                return Answer(201)
            case "DELETE":
                self.parts.pop(name)
                return Answer(204)
        return Answer(201)


def layers_of(store: Store, image: Image) -> list[str]:
    """The digests of an image's blobs."""
    return [store.layers.blob(diff_id).digest for diff_id in image.layers]


def test_a_large_layer_is_sent_while_it_is_packed(
    store: Store, client: Client, fake: FakeRegistry, image: Image
) -> None:
    """It goes in chunks, before its digest is known, and is not sent again; a small one goes whole."""
    served = Uploads(fake)

    push(store, image, Reference.parse(f"{fake.host}/a:1"), client)

    assert {*layers_of(store, image), image.id} == set(served.blobs)
    assert ({}, 1) == (served.parts, len(fake.asked("PATCH")))
    large = layers_of(store, image)[0]
    assert [] == [request for request in fake.requests if request.method == "PUT" and len(request.body) > LARGE]
    assert LARGE < len(served.blobs[large])


def test_real_registries_take_it(
    store: Store, client: Client, registry: RealRegistry, image: Image, tmp_path: Path
) -> None:
    """What the distribution's registry got is read back by skopeo, which verifies each digest."""
    reference = Reference.parse(f"{registry.host}/ahead/real:1")

    push(store, image, reference, client)

    registry.skopeo("copy", "--src-tls-verify=false", f"docker://{reference.canonical}", f"dir:{tmp_path}/copy")
    assert {digest.removeprefix("sha256:") for digest in layers_of(store, image)} <= set(os.listdir(tmp_path / "copy"))


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_one_that_fails_is_sent_the_ordinary_way(
    method: str, store: Store, client: Client, fake: FakeRegistry, image: Image
) -> None:
    """Whatever request is refused once, the layer arrives in the end, and no upload is left behind."""
    served = Uploads(fake)
    served.first[method] = Answer(500 if method == "POST" else 404)

    push(store, image, Reference.parse(f"{fake.host}/a:1"), client)

    assert {*layers_of(store, image), image.id} == set(served.blobs)
    assert {} == served.parts


def test_nothing_is_sent_before_the_registry_lets_us_in(
    store: Store, closed_registry: RealRegistry, fake: FakeRegistry, image: Image
) -> None:
    """A name and a password are asked for before the first byte; without them no body goes out."""
    fake.script = lambda _: Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with Client(network=QUICK) as stranger, pytest.raises(AuthError):
        push(store, image, Reference.parse(f"{fake.host}/a:1"), stranger)
    assert ([], [b""]) == (fake.asked("PATCH"), list({request.body for request in fake.requests}))

    reference = Reference.parse(f"{closed_registry.host}/ahead/closed:1")
    known = GivenCredentials(closed_registry.host, Credentials(username=USER, password=PASSWORD))
    with Client(network=QUICK, credentials=known) as friend:
        sent = push(store, image, reference, friend, compression=Compression.ZSTD)
        assert sent.digest == friend.resolve(reference)


def test_what_the_registry_has_by_then_is_not_finished(
    store: Store, client: Client, fake: FakeRegistry, tmp_path: Path
) -> None:
    """When the digest is known and the registry turns out to have the blob, the upload is given back."""
    served = Uploads(fake)
    with Store.open(tmp_path / "twin") as twin:
        [digest] = layers_of(twin, image_in(twin, TEXT, name="docker.io/library/twin:1"))
    served.has = {digest}
    asked = threading.Event()

    def answer(request: Request) -> Answer:
        if request.path.endswith(digest):
            asked.set()
        if request.method == "POST" and not served.parts:
            asked.wait(5)  # a slow registry: the blob is packed before it has begun to arrive
            time.sleep(0.1)
        return served.answer(request)

    fake.script = answer
    one = image_in(store, TEXT, name="docker.io/library/one:1")
    push(store, one, Reference.parse(f"{fake.host}/a:1"), client)

    assert ({one.id}, {}) == (set(served.blobs), served.parts)
    assert 1 == len(fake.asked("DELETE"))


def test_a_layer_that_fails_is_not_finished(store: Store, client: Client, fake: FakeRegistry) -> None:
    """A layer whose source fails half way is taken back, and nothing more is heard of it."""
    served = Uploads(fake)
    data = random.Random(2).randbytes(LARGE)

    def failing() -> Iterator[Entry]:
        yield Entry(b"a", Kind.FILE, size=LARGE, source=Inline(data))
        yield Entry(b"b", Kind.FILE, size=9, source=b"/nowhere/at/all")

    with (
        Ahead(lambda: client, Reference.parse(f"{fake.host}/a:1")) as ahead,
        store.layers.watched(ahead.follow),
        pytest.raises(StoreError, match="vanished"),
    ):
        store.layers.write(failing(), forms=Forms.BLOB)

    assert ({}, {}) == (served.blobs, served.parts)
    assert [] == fake.asked("PUT")


def test_a_build_that_is_over_leaves_no_upload(store: Store, client: Client, fake: FakeRegistry) -> None:
    """What has not arrived when nobody wants it any more is given up, however long the registry takes."""
    Uploads(fake)
    serve, held = fake.script, threading.Event()

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            held.wait(5)
        return serve(request)

    fake.script = answer
    with Ahead(lambda: client, Reference.parse(f"{fake.host}/a:1")) as ahead, store.layers.watched(ahead.follow):
        data = random.Random(3).randbytes(LARGE)
        layer = store.layers.write([Entry(b"a", Kind.FILE, size=LARGE, source=Inline(data))], forms=Forms.BLOB)
        held.set()
    assert layer == store.layers.find(layer.diff_id)
    assert [] == [thread.name for thread in threading.enumerate() if thread.name == "upload"]


def test_a_push_leaves_nothing_that_only_memory_has(store: Store, client: Client, fake: FakeRegistry) -> None:
    """The blobs that a push made are not waited for: after a power cut they are made again."""
    Uploads(fake)
    with store.lease():
        image = image_in(store, TEXT, name="docker.io/library/one:1")
    push(store, image, Reference.parse(f"{fake.host}/a:1"), client)
    first = layers_of(store, image)
    with contextlib.closing(sqlite3.connect(store.root / "store.db")) as db, db:
        db.execute("UPDATE blobs SET boot = 'before' WHERE boot IS NOT NULL")
        db.execute("UPDATE meta SET value = 'before' WHERE key = 'boot'")

    with Store.open(store.root) as later:
        assert [None] == [later.blobs.size(Digest(digest)) for digest in first]
        push(later, image, Reference.parse(f"{fake.host}/a:2"), client)
        assert (first, []) == (layers_of(later, image), later.check())


def test_readers_follow_the_writer(tmp_path: Path) -> None:
    """Each gets all bytes from the beginning, those that come later too; after the end, nothing; canceled, an error."""
    with open(tmp_path / "blob", "w+b", buffering=0) as file:
        growing = Growing(file.fileno())
        file.write(b"abc")
        growing.grew(3)

        def grow() -> None:
            file.write(b"de")
            growing.grew(5)
            growing.end(Digest.of(b""))

        with growing.open() as one, growing.open() as two:
            assert (b"ab", b"c") == (bytes(one.read(2)), bytes(one.read(9)))
            later = threading.Timer(0.02, grow)
            later.start()
            assert (b"de", b"") == (bytes(one.read(9)), bytes(one.read(9)))
            assert b"abcde" == two.read(9)
            assert (Digest.of(b""), (Digest.of(b""), 5)) == (growing.digest(), growing.whole)
            growing.cancel()
            with pytest.raises(GivenUp):
                two.read(1)
            with pytest.raises(GivenUp):
                growing.digest()
        later.join()
        growing.close()
