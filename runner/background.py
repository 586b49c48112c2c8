"""Work that goes on in a thread of its own until somebody asks what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start(action: Callable[[], T]) -> Callable[[], T]:
    """Run in a thread that ends afterwards; calling the result waits and returns, or raises, what `action` does."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller, whatever it is
            errors.append(error)

    def wait() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    thread = threading.Thread(target=body)
    thread.start()
    return wait
