"""Images made of nothing but bytes: what the tests of formats and registries move around."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import Entry, Forms, Image, Inline, Kind, Store

MakeImage = Callable[..., Image]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def make_image(store: Store) -> MakeImage:
    """Make an image with one layer for each text, called `name`, in the store."""

    def make(*texts: str, name: str = "docker.io/library/made:1", architecture: str = "amd64") -> Image:
        return image_in(store, *texts, name=name, architecture=architecture)

    return make


def image_in(store: Store, *texts: str, name: str, architecture: str = "amd64") -> Image:
    """Make an image with one layer for each of `texts`; layer n has the text in the file `file-n`."""
    layers = []
    for n, text in enumerate(texts):
        data = text.encode()
        entries = [Entry(b"file-%d" % n, Kind.FILE, size=len(data), source=Inline(data))]
        layers.append(store.layers.write(entries, forms=Forms.TREE).diff_id)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Labels": {"text": "".join(texts)[:40]}},
        "rootfs": {"type": "layers", "diff_ids": layers},
    }
    return store.images.put(json.dumps(config).encode(), layers=layers, names=[name])


def texts_of(store: Store, image: Image) -> list[str]:
    """Return what `image_in` made the image of."""
    view = store.layers.view(image.layers)
    found = []
    for n in range(len(image.layers)):
        data = view.read(b"file-%d" % n, limit=1 << 30)
        assert data is not None
        found.append(data.decode())
    return found
