"""The recorded behaviour of the reference for COPY and ADD, through the planner and the store, without a builder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from builder.errors import BuildError
from layerstore.changes import scan
from layerstore.digest import DiffId
from layerstore.errors import StoreError
from layerstore.store import Store
from tests.builder.copying import Dockerfile, records

CASES = Path(__file__).parents[1] / "cases"
BUSYBOX = Path("/bin/busybox")
AREAS = ("add", "copy", "ignore")
MORE = (
    "workdir/inherited",
    "workdir/owner",
    "workdir/relative-chain",
    "workdir/through-symlink",
    "workdir/variables",
    "errors/below-a-file",
    "errors/broken-archive",
    "errors/chmod-invalid",
    "errors/chmod-out-of-range",
    "errors/chown-name-on-scratch",
    "errors/chown-name-with-link",
    "errors/dir-over-file",
    "errors/dir-over-link",
    "errors/file-over-dir",
    "errors/ignore-pattern",
    "errors/ignored-source",
    "errors/missing-in-stage",
    "errors/missing-source",
    "errors/parents-missing",
    "errors/workdir-over-file",
)
NAMES = [f"{area}/{case.parent.name}" for area in AREAS for case in sorted((CASES / area).glob("*/case.json"))]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs a static busybox"),
]


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cases_{name}", CASES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


load = _module("load")
oci = _module("oci")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, DiffId]]:
    """A store that holds the cases' base image."""
    folder = tmp_path_factory.mktemp("base")
    rootfs = folder / "rootfs"
    rootfs.mkdir()
    load.make_base(CASES, BUSYBOX, rootfs)
    with Store.open(folder / "store") as store:
        yield store, store.layers.write(scan(os.fsencode(rootfs))).diff_id
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_as_recorded(name: str, base: tuple[Store, DiffId], tmp_path: Path) -> None:
    """The files of the image, or the error, are those of the reference."""
    store, base_layer = base
    case = load.load(CASES / name)
    context = load.materialise(case.folder, tmp_path)
    build = case.steps[0].build
    named = {key: tmp_path / "named" / key for key in build.named_contexts}

    if case.expect == "error":
        with pytest.raises((BuildError, StoreError)) as caught:
            Dockerfile(store, base_layer, context, build.file, named).run()

        assert case.expected["error"]["fragment"] in str(caught.value)
        return
    dockerfile = Dockerfile(store, base_layer, context, build.file, named)
    stage = dockerfile.run()
    below = records(store.layers.view(stage.base))
    changed, removed = oci.delta(below, records(dockerfile.view(stage)))
    expected = {"tree": case.expected["tree"], "removed": case.expected["removed"], "config": {}}

    assert not load.compare({"tree": changed, "removed": removed, "config": {}}, expected)
