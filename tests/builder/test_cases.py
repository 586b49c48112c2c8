"""Every recorded case of `tests/cases`: same files, config, layers, history, errors and cache hits as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore import Store
from tests.builder import casekit
from tests.cases import load

FOLDERS = {f"{folder.parent.name}/{folder.name}": folder for folder in load.find(casekit.CASES)}

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the base image, shared by all cases that need no empty cache."""
    work = tmp_path_factory.mktemp("cases")
    with Store.open(work / "store") as store:
        casekit.make_base(store, work)
        yield store


def run(folder: Path, shared: Store, place: Path) -> list[str]:
    """Return the differences of one case."""
    if load.load(folder).expect != "cache":
        return casekit.check(shared, folder, place / "case")
    with Store.open(place / "store") as store:
        casekit.make_base(store, place)
        return casekit.check(store, folder, place / "case")


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_case(name: str, shared: Store, tmp_path: Path) -> None:
    """What the builder makes of the case is what the reference made of it."""
    assert run(FOLDERS[name], shared, tmp_path) == []
