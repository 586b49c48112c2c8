"""Every case of `tests/peers/corpus`: the builder's answer is the one that BuildKit gave when both were asked.

`differential.py` beside this file asks both again, where an engine runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore import Store
from tests.builder import casekit
from tests.cases import load

CORPUS = Path(__file__).parent / "corpus"
FOLDERS = {f"{folder.parent.name}/{folder.name}": folder for folder in load.find(CORPUS)}

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the base image, shared by all cases."""
    work = tmp_path_factory.mktemp("corpus")
    with Store.open(work / "store") as store:
        casekit.make_base(store, work)
        yield store


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_case(name: str, shared: Store, tmp_path: Path) -> None:
    """Files, config, history, layers or the error are those that were recorded."""
    if load.load(FOLDERS[name]).expect != "cache":
        assert casekit.check(shared, FOLDERS[name], tmp_path / "case") == []
        return
    with Store.open(tmp_path / "store") as own:  # where no other case has made anything
        casekit.make_base(own, tmp_path)
        assert casekit.check(own, FOLDERS[name], tmp_path / "case") == []
