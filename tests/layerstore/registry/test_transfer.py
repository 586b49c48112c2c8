"""Whole images to and from the distribution's registry, with skopeo at the other end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore import Compression, CorruptContent, DiffId, Digest, Store
from layerstore.oci import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, ManifestError
from layerstore.platforms import Platform
from layerstore.reference import InvalidReference, Reference
from layerstore.registry.auth import AuthFiles, Credentials
from layerstore.registry.client import Client, GivenCredentials
from layerstore.registry.config import Registries
from layerstore.registry.errors import AuthError, RegistryError, UnknownImage
from layerstore.registry.http import Network
from layerstore.registry.transfer import pull, push, resolve
from tests.layerstore.conftest import MakeImage, image_in, texts_of
from tests.layerstore.registry.conftest import (
    PASSWORD,
    USER,
    Answer,
    FakeRegistry,
    RealRegistry,
    Request,
    blob_answer,
)

HOST = Platform("linux", "amd64")
QUICK = Network(attempts=3, backoff=0.001, timeout=5)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(network=QUICK) as one:
        yield one


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """A second, empty store."""
    with Store.open(tmp_path / "other") as opened:
        yield opened


def text(size: int, seed: int = 0) -> str:
    return random.Random(seed).randbytes(size // 2).hex()


def test_what_is_pushed_is_pulled(
    store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """An image goes to a registry and comes back the same: ID, layers, content, manifest."""
    image = make_image("one", text(300_000), "three")
    reference = Reference.parse(f"{registry.host}/transfer/round:1")

    sent = push(store, image, reference, client)
    came = pull(other, reference, HOST, client)

    assert (image.id, image.layers, sent.digest) == (came.id, came.layers, came.manifest)
    assert texts_of(store, image) == texts_of(other, came)
    assert (reference.canonical,) == came.names
    assert sent.digest == resolve(reference, client)
    assert [] == other.check()


def test_skopeo_reads_what_is_pushed(
    store: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """The manifest and every blob of a pushed image satisfy another implementation."""
    reference = Reference.parse(f"{registry.host}/transfer/skopeo:1")
    sent = push(store, make_image("a", "b"), reference, client)

    shown = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{reference.canonical}"))

    assert (sent.digest, 2) == (shown["Digest"], len(shown["Layers"]))


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_a_pulled_image_is_pushed_as_it_came(
    form: str, tmp_path: Path, store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """What skopeo pushed, as OCI or Docker manifest, keeps its manifest digest through a pull and a push elsewhere."""
    first = Reference.parse(f"{registry.host}/transfer/first-{form}:1")
    push(store, make_image("a", "b"), first, client)
    theirs = f"{registry.host}/transfer/theirs-{form}:1"
    registry.skopeo(
        *("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", form),
        *(f"docker://{first.canonical}", f"docker://{theirs}"),
    )
    digest = resolve(Reference.parse(theirs), client)

    image = pull(other, Reference.parse(theirs), HOST, client)
    sent = push(other, image, Reference.parse(f"{registry.host}/transfer/again-{form}:2"), client)

    assert (digest, digest) == (image.manifest, sent.digest)
    assert ["a", "b"] == texts_of(other, image)


def make_index(
    client: Client, registry: RealRegistry, repository: str, images: list[tuple[Platform | None, Descriptor]]
) -> Reference:
    """Write an index over manifests that are in `repository` and return its reference."""
    reference = Reference.parse(f"{registry.host}/{repository}:multi")
    index = Index(manifests=tuple(one._replace(platform=platform) for platform, one in images))
    client.put_manifest(client.destination(reference), "multi", index.to_json(), OCI_INDEX)
    return reference


def test_an_index_is_resolved_by_platform(
    store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """From an image for several platforms the asked one is taken; the digest of the name is that of the index."""
    repository = "transfer/multi"
    offered: list[tuple[Platform | None, Descriptor]] = [
        (Platform("unknown", "unknown"), push_one(store, client, registry, make_image, "attest"))
    ]
    for architecture in ("arm64", "amd64", "s390x"):
        sent = push_one(store, client, registry, make_image, architecture)
        offered.append((Platform("linux", architecture), sent))
    reference = make_index(client, registry, repository, offered)

    mine = pull(other, reference, HOST, client)
    theirs = pull(other, reference, Platform("linux", "arm64"), client)

    assert (["amd64"], ["arm64"]) == (texts_of(other, mine), texts_of(other, theirs))
    assert offered[2][1].digest == mine.manifest
    assert resolve(reference, client) not in (mine.manifest, theirs.manifest)
    with pytest.raises(UnknownImage, match="not offered for linux/riscv64") as caught:
        pull(other, reference, Platform("linux", "riscv64"), client)
    assert "choose with --platform: linux/arm64, linux/amd64, linux/s390x" == caught.value.hint


def push_one(
    store: Store, client: Client, registry: RealRegistry, make_image: MakeImage, architecture: str
) -> Descriptor:
    image = make_image(architecture, architecture=architecture)
    return push(store, image, Reference.parse(f"{registry.host}/transfer/multi:{architecture}"), client)


def test_pull_by_digest(
    store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """A digest reference is found by that reference in the store afterwards."""
    sent = push(store, make_image("x"), Reference.parse(f"{registry.host}/transfer/digest:1"), client)
    reference = Reference.parse(f"{registry.host}/transfer/digest@{sent.digest}")

    image = pull(other, reference, HOST, client)

    assert sent.digest == image.manifest
    assert image == other.images.get(reference.canonical)


@pytest.mark.parametrize("compression", list(Compression))
def test_compressions(
    compression: Compression,
    store: Store,
    other: Store,
    client: Client,
    registry: RealRegistry,
    make_image: MakeImage,
) -> None:
    """Layers travel in every compression, say which in their media type, and come out the same."""
    reference = Reference.parse(f"{registry.host}/transfer/{compression.value}:1")
    push(store, make_image("a" * 5000), reference, client, compression=compression)

    document = client.fetch(reference)[1]
    image = pull(other, reference, HOST, client)

    assert [compression.media_type] == [layer.media_type for layer in Manifest.from_json(document.data).layers]
    assert ["a" * 5000] == texts_of(other, image)


def test_a_compression_asked_for_once_is_not_kept(
    store: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """Pushing with --compression leaves the manifest alone that the image has."""
    image = make_image("a")
    plain = push(store, image, Reference.parse(f"{registry.host}/transfer/once:1"), client)
    image = store.images.get(image.id) or image
    push(store, image, Reference.parse(f"{registry.host}/transfer/once:2"), client, compression=Compression.ZSTD)
    image = store.images.get(image.id) or image

    assert plain == push(store, image, Reference.parse(f"{registry.host}/transfer/once:3"), client)


def test_progress(store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage) -> None:
    """Every layer reports its way up to its size, once with `done`; what is there already reports only that."""
    reference = Reference.parse(f"{registry.host}/transfer/progress:1")
    push(store, make_image(text(2 << 20), text(1 << 20, 1)), reference, client)
    lock = threading.Lock()
    events: list[tuple[str, int, int | None, bool]] = []

    def note(*event: object) -> None:
        with lock:
            events.append(event)  # type: ignore[arg-type]

    image = pull(other, reference, HOST, client, progress=note)
    done = {name: current == total for name, current, total, ended in events if ended}
    moving = [event for event in events if not event[3]]
    events.clear()
    pull(other, reference, HOST, client, progress=note)

    assert [True] * 2 == list(done.values())
    assert len(moving) > 2
    assert len(image.layers) == len(events)
    assert all(event[3] for event in events)


def test_what_the_registry_has_is_not_sent(store: Store, fake: FakeRegistry, make_image: MakeImage) -> None:
    """A layer is asked for first, and neither read nor sent if it is there."""
    fake.script = lambda request: Answer(201) if request.method == "PUT" else Answer(200)
    with Client(network=QUICK) as client:
        push(store, make_image("a", "b"), Reference.parse(f"{fake.host}/app:1"), client)

    assert 3 == len(fake.asked("HEAD"))
    assert ["/v2/app/manifests/1"] == fake.asked("PUT")
    assert [] == fake.asked("POST")


def test_layers_are_mounted_from_their_repository(
    store: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """Layers of an image from the same registry are taken over inside the registry, not sent again."""
    base = Reference.parse(f"{registry.host}/transfer/base:1")
    image = make_image(text(100_000, 7))
    push(store, image, base, client)
    store.images.tag(image, base.canonical)
    seen: list[int] = []

    push(
        store,
        image,
        Reference.parse(f"{registry.host}/transfer/derived:1"),
        client,
        progress=lambda _id, current, _total, done: None if done else seen.append(current),
    )

    assert [] == seen


def test_what_the_store_has_is_not_fetched(
    store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage
) -> None:
    """A second image over the same layer fetches only what is new."""
    shared = text(50_000, 3)
    one, two = (Reference.parse(f"{registry.host}/transfer/shared-{n}:1") for n in (1, 2))
    push(store, make_image(shared), one, client)
    push(store, make_image(shared, "new"), two, client)
    pull(other, one, HOST, client)
    moved: set[str] = set()

    image = pull(other, two, HOST, client, progress=lambda name, _c, _t, done: None if done else moved.add(name))

    assert 1 == len(moved)
    assert [shared, "new"] == texts_of(other, image)


def test_a_closed_registry(
    store: Store, other: Store, closed_registry: RealRegistry, make_image: MakeImage, tmp_path: Path
) -> None:
    """Credentials of config.json open a registry for push and pull; without or with wrong ones the error says login."""
    host = closed_registry.host
    files = AuthFiles([tmp_path / "config.json"])
    files.store(host, Credentials(username=USER, password=PASSWORD))
    reference = Reference.parse(f"{host}/private/app:1")

    with Client(credentials=files, network=QUICK) as client:
        client.login(host)
        sent = push(store, make_image("secret"), reference, client)
        assert sent.digest == pull(other, reference, HOST, client).manifest
    with Client(network=QUICK) as stranger, pytest.raises(AuthError, match="wants a name and a password") as caught:
        pull(other, reference, HOST, stranger)
    assert f"log in with `pybuild login {host}`" == caught.value.hint
    wrong = GivenCredentials(host, Credentials(username=USER, password="wrong"))
    with Client(credentials=wrong, network=QUICK) as liar, pytest.raises(AuthError):
        liar.login(host)


def test_mirrors(
    store: Store, other: Store, client: Client, registry: RealRegistry, make_image: MakeImage, tmp_path: Path
) -> None:
    """An image of a registry that is out of reach is read from the first mirror that has it, under its own name."""
    push(store, make_image("mirrored"), Reference.parse(f"{registry.host}/mirror/team/app:1"), client)
    config = tmp_path / "registries.conf"
    config.write_text(
        f'''
        [[registry]]
        prefix = "example.invalid"
        [[registry.mirror]]
        location = "{registry.host}/empty"
        [[registry.mirror]]
        location = "{registry.host}/mirror"
        '''
    )

    with Client(Registries.load(config), network=QUICK) as mirrored:
        image = pull(other, Reference.parse("example.invalid/team/app:1"), HOST, mirrored)
        with pytest.raises(RegistryError, match=r"cannot reach the registry example\.invalid") as caught:
            pull(other, Reference.parse("example.invalid/team/none:1"), HOST, mirrored)

    assert caught.value.hint.startswith(f"its mirrors failed as well: cannot read {registry.host}/empty/team/none:1")
    assert ("example.invalid/team/app:1",) == image.names
    assert ["mirrored"] == texts_of(other, image)


class Served:
    """Scripts a registry that serves one image of one layer; what it sends for the layer can be spoiled."""

    def __init__(self, fake: FakeRegistry, store: Store) -> None:
        image = image_in(store, text(400_000, 11), name="docker.io/library/served:1")
        layer = store.layers.blob(image.layers[0])
        self.layer = store.blobs.read(layer.digest)
        self.config = image.config
        config = Descriptor(
            media_type="application/vnd.oci.image.config.v1+json", digest=Digest(image.id), size=len(image.config)
        )
        self.manifest = Manifest(config=config, layers=(layer,)).to_json()
        self.sent = self.layer
        self.cuts: Iterator[int] = iter(())
        fake.script = self.answer
        self.reference = Reference.parse(f"{fake.host}/served:1")

    def answer(self, request: Request) -> Answer:
        if "/manifests/" in request.path:
            return Answer(200, self.manifest, {"Content-Type": OCI_MANIFEST})
        if request.path.endswith(Digest.of(self.config)):
            return Answer(200, self.config)
        return blob_answer(self.sent, request, cut=next(self.cuts, None))


def test_a_layer_that_breaks_off_is_finished(store: Store, other: Store, client: Client, fake: FakeRegistry) -> None:
    """A pull survives connections that drop in the middle of a layer, and what is kept has the right digest."""
    served = Served(fake, store)
    served.cuts = iter((50_000, 50_000))

    image = pull(other, served.reference, HOST, client)

    assert [text(400_000, 11)] == texts_of(other, image)


def test_a_layer_with_the_wrong_digest(store: Store, other: Store, client: Client, fake: FakeRegistry) -> None:
    """A layer of the right size and the wrong content is refused by digest, and nothing of it is kept."""
    served = Served(fake, store)
    served.sent = served.layer[:-9] + b"x" + served.layer[-8:]

    with pytest.raises(RegistryError, match="sent wrong content for the layer sha256:"):
        pull(other, served.reference, HOST, client)

    assert other.blobs.size(Digest.of(served.layer)) is None
    assert other.blobs.size(Digest.of(served.sent)) is None
    assert other.images.get(served.reference.canonical) is None
    assert [] == list((other.root / "tmp").iterdir())


def test_a_layer_that_is_not_what_the_config_says(
    store: Store, other: Store, client: Client, fake: FakeRegistry
) -> None:
    """A config that lies about a layer's diff ID cannot smuggle content in: the lie shows when the layer is used."""
    served = Served(fake, store)
    lie = DiffId.of(b"somebody else's layer")
    config = json.loads(served.config)
    config["rootfs"]["diff_ids"] = [lie]
    served.config = json.dumps(config).encode()
    layer = Manifest.from_json(served.manifest).layers[0]
    wrong = Descriptor(
        media_type="application/vnd.oci.image.config.v1+json", digest=Digest.of(served.config), size=len(served.config)
    )
    served.manifest = Manifest(config=wrong, layers=(layer,)).to_json()

    image = pull(other, served.reference, HOST, client)

    with pytest.raises(CorruptContent, match=f"should hold the layer {lie}"):
        other.layers.tree(image.layers[0])


def test_layers_and_diff_ids_must_agree(store: Store, other: Store, client: Client, fake: FakeRegistry) -> None:
    """A manifest with more layers than its config has diff IDs is malformed."""
    served = Served(fake, store)
    manifest = Manifest.from_json(served.manifest)
    served.manifest = manifest._replace(layers=manifest.layers * 2).to_json()

    with pytest.raises(ManifestError, match="has 2 layers but its config names 1"):
        pull(other, served.reference, HOST, client)


def test_an_artifact_is_no_image(store: Store, other: Store, client: Client, fake: FakeRegistry) -> None:
    """A Helm chart or the like is refused by its config's media type."""
    served = Served(fake, store)
    manifest = Manifest.from_json(served.manifest)
    config = manifest.config._replace(media_type="application/vnd.cncf.helm.config.v1+json")
    served.manifest = manifest._replace(config=config).to_json()

    with pytest.raises(ManifestError, match="is no container image"):
        pull(other, served.reference, HOST, client)


def test_the_first_failure_ends_the_others(store: Store, other: Store, fake: FakeRegistry) -> None:
    """When one layer cannot be had, the pull ends with that error while others are still on their way."""
    image = image_in(store, "bad", *(text(200_000, n) for n in range(20, 26)), name="docker.io/library/many:1")
    layers = tuple(store.layers.blob(diff_id) for diff_id in image.layers)
    blobs = {layer.digest: store.blobs.read(layer.digest) for layer in layers}
    blobs[Digest(image.id)] = image.config
    config = Descriptor(
        media_type="application/vnd.oci.image.config.v1+json", digest=Digest(image.id), size=len(image.config)
    )
    manifest = Manifest(config=config, layers=layers).to_json()

    def answer(request: Request) -> Answer:
        if "/manifests/" in request.path:
            return Answer(200, manifest, {"Content-Type": OCI_MANIFEST})
        digest = Digest(request.path.rpartition("/")[2])
        return Answer(403) if digest == layers[0].digest else blob_answer(blobs[digest], request)

    fake.script = answer

    with Client(network=QUICK) as client, pytest.raises(AuthError, match="denies it"):
        pull(other, Reference.parse(f"{fake.host}/many:1"), HOST, client, jobs=2)


def test_a_digest_cannot_be_pushed_to(store: Store, client: Client, make_image: MakeImage) -> None:
    """A push needs a tag: the digest follows from the content."""
    reference = Reference.parse("localhost:1/app").with_digest(Digest.of(b""))

    with pytest.raises(InvalidReference, match="it has a digest"):
        push(store, make_image("a"), reference, client)


def test_two_processes_pull_at_once(
    store: Store, client: Client, registry: RealRegistry, make_image: MakeImage, tmp_path: Path
) -> None:
    """Several processes that pull the same image into one store end well, with one image that is whole."""
    reference = Reference.parse(f"{registry.host}/transfer/race:1")
    push(store, make_image(text(2 << 20, 5), "b"), reference, client)
    program = (
        "import sys; from pathlib import Path; from layerstore import Store\n"
        "from layerstore.platforms import Platform; from layerstore.reference import Reference\n"
        "from layerstore.registry.client import Client; from layerstore.registry.transfer import pull\n"
        "with Store.open(Path(sys.argv[1])) as store, Client() as client:\n"
        "    print(pull(store, Reference.parse(sys.argv[2]), Platform('linux', 'amd64'), client).id)\n"
    )
    root = Path(__file__).parents[3]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "shared"), reference.canonical],
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        )
        for _ in range(3)
    ]
    printed = {process.communicate(timeout=60)[0] for process in processes}

    assert [0, 0, 0] == [process.returncode for process in processes]
    assert 1 == len(printed)
    with Store.open(tmp_path / "shared") as shared:
        assert [] == shared.check()


def test_memory_is_bounded(tmp_path: Path, registry: RealRegistry) -> None:
    """Pushing and pulling a 300 MB layer stays within 100 MB of memory."""
    program = """
import sys
from pathlib import Path
from layerstore import Entry, Kind, Store, Forms
from layerstore.platforms import Platform
from layerstore.reference import Reference
from layerstore.registry.client import Client
from layerstore.registry.transfer import pull, push
import json
big = Path(sys.argv[1]) / "big"
with open(big, "wb") as file:
    file.truncate(300 << 20)
reference = Reference.parse(sys.argv[2])
with Store.open(Path(sys.argv[1]) / "a") as store, Store.open(Path(sys.argv[1]) / "b") as other, Client() as client:
    entries = [Entry(b"big", Kind.FILE, size=300 << 20, source=str(big).encode())]
    layer = store.layers.write(entries, forms=Forms.TREE)
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    image = store.images.put(json.dumps(config).encode(), layers=[layer.diff_id])
    from layerstore import Compression
    push(store, image, reference, client, compression=Compression.NONE)
    pull(other, reference, Platform("linux", "amd64"), client)
# Not getrusage(2): its maximum starts with that of the process this one was forked from.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), f"{registry.host}/transfer/big:1"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])},
    )

    assert int(done.stdout) < 100_000
