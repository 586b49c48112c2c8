"""Waiting for a lock of the store in a way that a canceled build can give up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from builder.errors import Canceled
from layerstore import Store

_SHORTEST, _LONGEST = 0.002, 0.05


@contextlib.contextmanager
def turn(store: Store, name: str, canceled: Callable[[], bool], *, shared: bool = False) -> Iterator[None]:
    """Hold the lock `name`, alone or `shared`, as `Store.lock` does; Canceled once `canceled` says so while waiting.

    A thread that sleeps in flock(2) cannot be told to stop, and who holds the lock may take hours.
    """
    pause = _SHORTEST
    with contextlib.ExitStack() as held:
        while not store.try_lock(name, held, shared=shared):
            if canceled():
                raise Canceled("canceled")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        yield
