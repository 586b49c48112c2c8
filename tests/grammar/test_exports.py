"""What the package offers."""

from __future__ import annotations

import grammar


def test_exported_names() -> None:
    """`__all__` is sorted, complete and true."""
    assert sorted(grammar.__all__) == grammar.__all__
    assert all(hasattr(grammar, name) for name in grammar.__all__)
