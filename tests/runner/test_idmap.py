"""Id maps as values."""

from __future__ import annotations

import pytest

from runner import SpecError
from runner.idmap import IdMap, IdMapping

TEXT = "0 1000 1\n1 100000 65536\n"


def test_text_both_ways() -> None:
    """The kernel's form is read and written."""
    expected = (
        IdMapping(container_id=0, host_id=1000, size=1),
        IdMapping(container_id=1, host_id=100000, size=65536),
    )

    assert IdMap.parse(TEXT).mappings == expected
    assert IdMap.parse(TEXT).text() == TEXT


def test_ids_both_ways() -> None:
    """Ids at the ends of each range are translated, those outside are not."""
    ids = IdMap.parse(TEXT)

    assert [ids.to_host(one) for one in (0, 1, 65536, 65537)] == [1000, 100000, 165535, None]
    assert [ids.to_container(one) for one in (1000, 100000, 165535, 165536, 0)] == [0, 1, 65536, None, None]


@pytest.mark.parametrize("text", ["0 0", "a b c", "0 0 0", "0 0 10\n5 100 1", "0 0 10\n20 9 1"])
def test_maps_that_are_none(text: str) -> None:
    """Lines that are no ranges, and ranges that overlap on either side, are refused."""
    with pytest.raises(SpecError):
        IdMap.parse(text)
