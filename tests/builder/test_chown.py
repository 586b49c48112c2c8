"""--chown: which ids a user and group stand for in an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.chown import Owner, OwnerError, needs_names, resolve_owner
from builder.context import LocalContext


@pytest.fixture
def image(tmp_path: Path) -> LocalContext:
    """A file system with a passwd and a group file, the latter behind a link."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nalma:x:1500:1501::/:/bin/sh\nodd:x:-1:5::/:\n")
    (tmp_path / "groups").write_text("root:x:0:\ncrew:x:1700:alma\nodd:x:4294967295:\n")
    (tmp_path / "etc" / "group").symlink_to("/groups")
    return LocalContext(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", Owner(12, 12)),
        ("12:34", Owner(12, 34)),
        ("alma", Owner(1500, 1501)),
        ("alma:crew", Owner(1500, 1700)),
        ("alma:7", Owner(1500, 7)),
        ("7:crew", Owner(7, 1700)),
        ("root:crew", Owner(0, 1700)),
        ("stranger", Owner(0, 0)),
        ("5:strangers", Owner(5, 5)),
        ("alma:strangers", Owner(1500, 1501)),
        (":crew", Owner(0, 1700)),
        ("12:", Owner(12, 0)),
        ("odd", Owner(0, 5)),
        ("12:odd", Owner(12, 0)),
        ("4294967295", Owner(0, 0)),
        ("alma:", Owner(1500, 0)),
        ("1:-5", Owner(1, 0xFFFFFFFB)),
        ("-1", Owner(0, 0)),
        ("4294967294", Owner(0, 0)),
        ("alma:2147483648", Owner(1500, 1501)),
    ],
)
def test_ids(text: str, expected: Owner, image: LocalContext) -> None:
    """Names come from the image, numbers are taken as they are, unknown names are no error."""
    assert expected == resolve_owner(text, image)


@pytest.mark.parametrize(
    ("text", "fragment"), [("alma", "invalid user index: -1"), ("1:crew", "invalid user index: -1")]
)
def test_names_on_scratch(text: str, fragment: str) -> None:
    """Where there is no image a name cannot be looked up, but root and numbers can."""
    with pytest.raises(OwnerError, match=fragment):
        resolve_owner(text, None)
    assert Owner(0, 0) == resolve_owner("root:root", None)


def test_which_depend_on_the_image() -> None:
    """Only names make a copy depend on the image's passwd and group."""
    assert [False, False, False, True, True] == [
        needs_names(text) for text in ("1", "1:2", "root:root", "alma", "1:crew")
    ]
