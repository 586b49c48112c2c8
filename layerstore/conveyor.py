"""A second thread for what is done to one piece of a stream after the other: hashing, compressing, writing.

All of these let other threads run meanwhile, so that the thread that reads goes on. Pieces are taken in their order,
and few of them wait at any time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

_Piece = TypeVar("_Piece")
_MOST_WAITING = 4

HELD = _MOST_WAITING + 1
"""The pieces put last that may not be taken yet when `put` returns: buffers of theirs must not be used again."""


class Conveyor(Generic[_Piece]):
    """Hands pieces to `take` in a thread of its own; `finish` waits for the last, `abandon` for the one at hand.

    As a context manager, it finishes, or abandons what is left where the block fails.
    """

    def __init__(self, take: Callable[[_Piece], None]) -> None:
        self._take = take
        self._waiting: deque[_Piece] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="conveyor", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.abandon()

    def put(self, piece: _Piece) -> None:
        """Hand over one piece; raises what `take` raised for an earlier one."""
        with self._changed:
            while len(self._waiting) >= _MOST_WAITING and self._failure is None:
                self._changed.wait()
            if self._failure is None:
                self._waiting.append(piece)
                self._changed.notify_all()
        self._raise()

    def finish(self) -> None:
        """Wait until all pieces are taken; raises what `take` raised."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        self._raise()

    def abandon(self) -> None:
        """Drop what waits and end the thread; nothing is raised."""
        with self._changed:
            self._waiting.clear()
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                piece = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._take(piece)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that puts
                with self._changed:
                    self._failure = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
