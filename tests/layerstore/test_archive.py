"""Images in files: what is written satisfies skopeo and umoci, what others write is read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from layerstore import Compression, CorruptContent, DiffId, Digest, Image, ImageIndex, Store, StoreError
from layerstore.archive import DOCKER, OCI, Saved, import_rootfs, save, save_image
from layerstore.archive import load as load_all
from layerstore.loading import InvalidArchive
from layerstore.oci import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, ManifestError
from layerstore.platforms import Platform
from tests.layerstore.conftest import MakeImage, image_in, texts_of

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

NAME = "docker.io/library/made:1"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def saved(store: Store, image: Image, path: Path, form: str) -> Path:
    with open(path, "wb") as out:
        save_image(store, image, [NAME], out, format=form)
    return path


def load(store: Store, source: Any, *, platform: Platform | None = None) -> list[Image]:
    """Load an archive that holds no image for several platforms, or one of them."""
    loaded = load_all(store, source, platform=platform)
    assert not any(isinstance(one, ImageIndex) for one in loaded)
    return [one for one in loaded if isinstance(one, Image)]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """A second, empty store."""
    with Store.open(tmp_path / "other") as opened:
        yield opened


@pytest.mark.parametrize("form", [OCI, DOCKER])
def test_round_trip_of_a_tar(store: Store, other: Store, make_image: MakeImage, tmp_path: Path, form: str) -> None:
    """What is saved is loaded as the same image, under its name, and is whole."""
    image = make_image("a", "b" * 10_000)

    (loaded,) = load(other, saved(store, image, tmp_path / "image.tar", form))

    assert (image.id, image.layers, (NAME,)) == (loaded.id, loaded.layers, loaded.names)
    assert texts_of(store, image) == texts_of(other, loaded)
    assert [] == other.check()


def test_equal_images_make_equal_archives(store: Store, other: Store, tmp_path: Path) -> None:
    """An archive is a function of the image: no time, no owner, no order of a directory."""
    archives = []
    for n, one in enumerate((store, other)):
        image = image_in(one, "a", "b", name=NAME)
        archives.append(saved(one, image, tmp_path / str(n), DOCKER).read_bytes())

    assert archives[0] == archives[1]


@pytest.mark.parametrize("form", [OCI, DOCKER])
def test_skopeo_reads_tars(store: Store, make_image: MakeImage, tmp_path: Path, form: str) -> None:
    """Another implementation reads the archive and makes each other form of it."""
    path = saved(store, make_image("a", "b"), tmp_path / "image.tar", form)
    source = f"oci-archive:{path}:1" if form == OCI else f"docker-archive:{path}:made:1"

    run("skopeo", "copy", source, f"docker-archive:{tmp_path}/docker.tar:x:1")
    run("skopeo", "copy", source, f"oci:{tmp_path}/layout:x")

    assert 2 == len(json.loads(run("skopeo", "inspect", f"oci:{tmp_path}/layout:x"))["Layers"])


def test_skopeo_and_umoci_read_directories(store: Store, make_image: MakeImage, tmp_path: Path) -> None:
    """An OCI layout directory is converted by skopeo and unpacked by umoci."""
    image = make_image("a", "b")
    save(store, [Saved(image, [NAME])], tmp_path / "layout", format=OCI)

    run("skopeo", "copy", f"oci:{tmp_path}/layout:1", f"docker-archive:{tmp_path}/docker.tar:x:1")
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:1", str(tmp_path / "bundle"))

    assert "b" == (tmp_path / "bundle" / "rootfs" / "file-1").read_text()


def test_a_directory_keeps_other_images(store: Store, other: Store, make_image: MakeImage, tmp_path: Path) -> None:
    """Saving into a layout replaces an image of the same name and leaves others."""
    layout = tmp_path / "layout"
    one, two, three = (make_image(text) for text in ("one", "two", "three"))
    save(store, [Saved(one, ["docker.io/library/a:1"]), Saved(two, ["docker.io/library/b:2"])], layout, format=OCI)
    save(store, [Saved(three, ["docker.io/library/a:1"])], layout, format=OCI)

    loaded = {image.names: texts_of(other, image) for image in load(other, layout)}

    assert {("docker.io/library/b:2",): ["two"], ("docker.io/library/a:1",): ["three"]} == loaded
    assert not [name for name in os.listdir(layout) if name.endswith(".part")]


@pytest.mark.parametrize("compression", list(Compression))
def test_compressions(
    store: Store, other: Store, make_image: MakeImage, tmp_path: Path, compression: Compression
) -> None:
    """Layers are written in the compression asked for and read in any."""
    with open(tmp_path / "image.tar", "wb") as out:
        save(store, [Saved(make_image("a" * 9000), [NAME])], out, format=OCI, compression=compression)

    (loaded,) = load(other, tmp_path / "image.tar")

    assert compression.media_type == other.layers.blob(loaded.layers[0]).media_type
    assert ["a" * 9000] == texts_of(other, loaded)


def test_several_names_and_images(store: Store, other: Store, make_image: MakeImage, tmp_path: Path) -> None:
    """One archive holds images with shared layers, several names, or none."""
    one, two = make_image("shared", "one"), make_image("shared", "two", name="docker.io/library/second:1")
    three = make_image("three", name="docker.io/library/third:1")
    names = ["docker.io/library/made:1", "example.com:5000/made:latest"]
    images = [Saved(one, names), Saved(two, ["docker.io/team/two:2"]), Saved(three, [])]
    with open(tmp_path / "image.tar", "wb") as out:
        save(store, images, out, format=DOCKER)

    loaded = load(other, tmp_path / "image.tar")

    expected = {one.id: set(names), two.id: {"docker.io/team/two:2"}, three.id: set()}
    assert expected == {image.id: set(image.names) for image in loaded}
    with tarfile.open(tmp_path / "image.tar") as tar:
        members = tar.getnames()
    assert len(members) == len(set(members))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_compressed_archives(store: Store, other: Store, make_image: MakeImage, tmp_path: Path, packer: str) -> None:
    """A whole archive may be compressed, from a file or a stream that cannot seek; damage is told as such."""
    data = PACKERS[packer](saved(store, make_image("a"), tmp_path / "image.tar", DOCKER).read_bytes())

    class Pipe:
        def __init__(self) -> None:
            self.rest = io.BytesIO(data)

        def read(self, size: int = -1, /) -> bytes:
            return self.rest.read(min(size, 1000) if size >= 0 else 1000)

    (loaded,) = load(other, Pipe())
    assert ["a"] == texts_of(other, loaded)
    with pytest.raises(StoreError):
        load(other, io.BytesIO(data[: len(data) // 2]))


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_writes(store: Store, other: Store, make_image: MakeImage, tmp_path: Path, form: str) -> None:
    """Each form that skopeo writes is read; names come along where the form has them."""
    path = saved(store, make_image("a", "b"), tmp_path / "image.tar", DOCKER)
    target = {"docker-archive": "name:7", "oci-archive": "name:7", "oci": "name:7"}[form]
    run("skopeo", "copy", f"docker-archive:{path}:made:1", f"{form}:{tmp_path}/theirs:{target}")

    (loaded,) = load(other, tmp_path / "theirs")

    assert ("docker.io/library/name:7",) == loaded.names
    assert ["a", "b"] == texts_of(other, loaded)
    assert (form != "docker-archive") == (loaded.manifest is not None)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def layer_tar(text: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "file-0", text.encode())
    return out.getvalue()


def old_archive(change: Callable[[dict[str, Any]], None] | None = None, **names: bytes) -> io.BytesIO:
    """Return an archive as docker 1.10 to 24 wrote it: a directory per layer, shared ones as symlinks."""
    layer = layer_tar("old")
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)] * 2}}
    data = json.dumps(config).encode()
    entry: dict[str, Any] = {
        "Config": f"{Digest.of(data).hex}.json",
        "RepoTags": ["made:1", "example.com/x:2"],
        "Layers": ["aaa/layer.tar", "bbb/layer.tar"],
    }
    if change is not None:
        change(entry)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "aaa/VERSION", b"1.0")
        add(tar, "aaa/layer.tar", names.get("layer", layer))
        link = tarfile.TarInfo("bbb/layer.tar")
        link.type = tarfile.SYMTYPE
        link.linkname = "../aaa/layer.tar"
        tar.addfile(link)
        add(tar, f"{Digest.of(data).hex}.json", data)
        add(tar, "manifest.json", json.dumps([entry]).encode())
        add(tar, "repositories", b"{}")
    out.seek(0)
    return out


def test_old_docker_archives(store: Store) -> None:
    """The form before OCI layouts is read, with its links between layers."""
    (loaded,) = load(store, old_archive())

    assert ("docker.io/library/made:1", "example.com/x:2") == loaded.names
    assert b"old" == store.layers.view(loaded.layers).read(b"file-0")


def test_a_layer_that_is_not_what_the_config_says(store: Store) -> None:
    """A layer with other content than its diff ID is refused by name and digest."""
    with pytest.raises(CorruptContent, match=r"the layer aaa/layer.tar should have been sha256:"):
        load(store, old_archive(layer=layer_tar("new")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Layers": ["aaa/layer.tar"]}, "names 1 layers but"),
        ({"Layers": ["aaa/layer.tar", "ccc/layer.tar"]}, "lacks ccc/layer.tar"),
        ({"Layers": ["aaa/layer.tar", "../../etc/passwd"]}, "lacks ../../etc/passwd"),
        ({"Config": "none.json"}, "lacks none.json"),
        ({"Config": None}, "lacks Config"),
        ({"RepoTags": [1]}, "no text"),
        ({"RepoTags": ["UPPER"]}, "must be lowercase"),
    ],
)
def test_malformed_docker_archives(store: Store, change: dict[str, Any], message: str) -> None:
    """Whatever is wrong with manifest.json is said."""
    with pytest.raises(StoreError) as caught:
        load(store, old_archive(lambda entry: entry.update(change)))

    assert message in caught.value.message


def tar_of(**files: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            add(tar, name.replace("__", "/").replace("_json", ".json"), data)
    out.seek(0)
    return out


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (io.BytesIO(b""), "no image archive"),
        (io.BytesIO(b"not a tar" * 100), "no image archive"),
        (tar_of(x=b"1"), "no image archive"),
        (tar_of(repositories=b"{}"), "no image archive"),
        (tar_of(manifest_json=b"{}"), "not a list of objects"),
        (tar_of(manifest_json=b"[]"), "holds no image"),
        (tar_of(manifest_json=b"["), "not valid JSON"),
        (tar_of(index_json=b"[]"), "expected an object"),
        (tar_of(index_json=b'{"schemaVersion":2,"manifests":[]}'), "holds no image"),
        (tar_of(blobs__sha256__zz=b"1"), "is not called by a digest"),
        (tar_of(**{"blobs__sha256__" + "0" * 64: b"1"}), "content should have been sha256:000"),
    ],
)
def test_what_is_no_archive(store: Store, archive: io.BytesIO, message: str) -> None:
    """Files that are no image archive are refused in words."""
    with pytest.raises(StoreError) as caught:
        load(store, archive)

    assert message in caught.value.message


def layout_of(directory: Path, blobs: list[bytes], manifests: list[Descriptor]) -> Path:
    (directory / "blobs" / "sha256").mkdir(parents=True)
    for data in blobs:
        (directory / "blobs" / "sha256" / Digest.of(data).hex).write_bytes(data)
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(Index(manifests=tuple(manifests)).to_json())
    return directory


def described(data: bytes, media_type: str, **fields: Any) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data), **fields)


def test_a_layout_for_several_platforms(store: Store, tmp_path: Path) -> None:
    """As buildx writes it: an index within the index, attestations among it, and the asked platform is taken."""
    blobs, manifests = [], []
    for architecture in ("amd64", "arm64"):
        layer = layer_tar(architecture)
        config = json.dumps(
            {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]}}
        ).encode()
        manifest = Manifest(
            config=described(config, OCI_CONFIG),
            layers=(described(layer, "application/vnd.oci.image.layer.v1.tar"),),
        ).to_json()
        blobs += [layer, config, manifest]
        manifests.append(described(manifest, OCI_MANIFEST, platform=Platform("linux", architecture)))
    attestation = described(b"{}", OCI_MANIFEST, platform=Platform("unknown", "unknown"))
    inner = Index(manifests=(attestation, *manifests)).to_json()
    names = (("io.containerd.image.name", "docker.io/library/multi:1"),)
    layout = layout_of(tmp_path / "layout", [*blobs, inner], [described(inner, OCI_INDEX, annotations=names)])

    (mine,) = load(store, layout, platform=Platform("linux", "amd64"))
    (theirs,) = load(store, layout, platform=Platform("linux", "arm64"))

    assert (manifests[0].digest, manifests[1].digest) == (mine.manifest, theirs.manifest)
    assert ("docker.io/library/multi:1",) == theirs.names
    with pytest.raises(InvalidArchive, match="has no image for linux/s390x") as caught:
        load(store, layout, platform=Platform("linux", "s390x"))
    assert "it has linux/amd64, linux/arm64" == caught.value.hint

    (both,) = load_all(store, layout)
    assert isinstance(both, ImageIndex)
    assert ("docker.io/library/multi:1",) == both.names
    assert [mine.manifest, theirs.manifest] == [member.image.manifest for member in both.members]
    assert both == store.indexes.get("docker.io/library/multi:1")
    (layout / "blobs" / "sha256" / manifests[1].digest.hex).unlink()
    with Store.open(tmp_path / "sparse") as sparse:
        (only,) = load(sparse, layout)
        assert (mine.id, both.names) == (only.id, only.names)


def test_damaged_and_hostile_layouts(store: Store, tmp_path: Path) -> None:
    """Blobs that are missing, damaged, or links out of the layout are refused by name."""
    layer = layer_tar("x")
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]}}
    ).encode()
    manifest = Manifest(
        config=described(config, OCI_CONFIG), layers=(described(layer, "application/vnd.oci.image.layer.v1.tar"),)
    ).to_json()
    layout = layout_of(tmp_path / "layout", [layer, config, manifest], [described(manifest, OCI_MANIFEST)])
    blob = layout / "blobs" / "sha256" / Digest.of(layer).hex

    blob.write_bytes(layer[:-1] + b"x")
    with pytest.raises(CorruptContent, match="content should have been"):
        load(store, layout)
    blob.unlink()
    with pytest.raises(InvalidArchive, match=f"lacks blobs/sha256/{Digest.of(layer).hex}"):
        load(store, layout)
    (tmp_path / "outside").write_bytes(layer)
    blob.symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidArchive, match="lies outside of"):
        load(store, layout)
    assert [] == store.images.list()


def test_layers_and_diff_ids_must_agree(store: Store, tmp_path: Path) -> None:
    """A manifest with fewer layers than its config has diff IDs is malformed."""
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [Digest.of(b"")]}}
    ).encode()
    manifest = Manifest(config=described(config, OCI_CONFIG), layers=()).to_json()
    layout = layout_of(tmp_path / "layout", [config, manifest], [described(manifest, OCI_MANIFEST)])

    with pytest.raises(ManifestError, match="has 0 layers but its config names 1"):
        load(store, layout)


@pytest.mark.parametrize("form", [OCI, DOCKER])
def test_zstd_is_repacked_for_old_readers(
    store: Store, other: Store, make_image: MakeImage, tmp_path: Path, form: str
) -> None:
    """Where nobody asked for zstd, layers that happen to be kept so are written as gzip."""
    image = make_image("a" * 5000)
    store.layers.blob(image.layers[0], Compression.ZSTD)

    (loaded,) = load(other, saved(store, image, tmp_path / "image.tar", form))

    assert "application/vnd.oci.image.layer.v1.tar+gzip" == other.layers.blob(loaded.layers[0]).media_type


@pytest.mark.parametrize("packer", ["none", *sorted(PACKERS)])
def test_import(store: Store, packer: str) -> None:
    """The tar of a root file system becomes an image of one layer, with whatever is in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("./", "./etc/"):
            directory = tarfile.TarInfo(name)
            directory.type = tarfile.DIRTYPE
            directory.mode = 0o755
            tar.addfile(directory)
        add(tar, "./etc/hostname", b"imported\n")
        link = tarfile.TarInfo("./link")
        link.type = tarfile.SYMTYPE
        link.linkname = "etc/hostname"
        tar.addfile(link)
    data = PACKERS.get(packer, bytes)(out.getvalue())

    def config(layer: DiffId) -> bytes:
        rootfs = {"type": "layers", "diff_ids": [layer]}
        return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()

    image = import_rootfs(store, io.BytesIO(data), config=config, names=[NAME])

    assert image == store.images.get(NAME)
    assert b"imported\n" == store.layers.view(image.layers).read(b"link")
    assert [] == store.check()


def test_import_of_nonsense(store: Store) -> None:
    """What is no tar makes no image."""
    with pytest.raises(StoreError):
        import_rootfs(store, io.BytesIO(b"nonsense" * 200), config=lambda _: b"{}")

    assert [] == store.images.list()


def test_a_layout_where_none_can_be(store: Store, make_image: MakeImage, tmp_path: Path) -> None:
    """A destination that cannot be written to is told in words."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot write the layout"):
        save(store, [Saved(make_image("a"), [NAME])], tmp_path / "file" / "layout", format=OCI)
