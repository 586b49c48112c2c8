"""What packages export: `__all__` is complete, sorted and true."""

from __future__ import annotations

import importlib

import pytest

PACKAGES = ("builder.cli", "builder.progress", "grammar", "layerstore", "runner")


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted(name: str) -> None:
    """Names are found by eye, and a merge that adds two conflicts where it should."""
    exported = importlib.import_module(name).__all__

    assert sorted(exported) == list(exported)
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_true(name: str) -> None:
    """Every exported name exists, also where it is loaded on first use."""
    module = importlib.import_module(name)
    missing = [one for one in module.__all__ if not hasattr(module, one)]

    assert [] == missing


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_complete(name: str) -> None:
    """What a package's face defines or imports from its own modules, it exports."""
    module = importlib.import_module(name)
    own = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "annotations" and getattr(value, "__module__", "").startswith(name)
    }

    assert set() == own - set(module.__all__)
