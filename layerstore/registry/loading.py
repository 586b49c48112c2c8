"""Loads urllib3 without importlib.metadata: a sixth of the time, and only asked about HTTP/2, which is not used."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_NAME = "importlib.metadata"


class _StandIn(ModuleType):
    """Answers as the module would, which it loads when it is asked for anything."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(), name)

    @staticmethod
    def version(name: str) -> str:
        """As importlib.metadata has it; urllib3 takes it by name and never calls it."""
        return str(_real().version(name))


def load_urllib3() -> None:
    """Import urllib3; nothing else is different afterwards, whatever its version imports."""
    if "urllib3" not in sys.modules and _NAME not in sys.modules:
        sys.modules[_NAME] = stand_in = _StandIn(_NAME)
        stand_in.__path__ = [f"{path}/metadata" for path in importlib.__path__]
    try:
        import urllib3  # noqa: F401, PLC0415 - this is what takes long
    finally:
        _remove()


def _remove() -> None:
    if isinstance(sys.modules.get(_NAME), _StandIn):
        del sys.modules[_NAME]


def _real() -> Any:
    _remove()
    import importlib.metadata  # noqa: PLC0415 - hardly ever

    return importlib.metadata
