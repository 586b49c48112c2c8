"""Bytes on their way between descriptors: one thread, poll(2), bounded memory.

It knows neither containers nor terminals. A sink that is slow holds back its own source only; a sink that is gone
closes its source, so that whoever writes into it gets SIGPIPE as it would without us.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable, Sequence

_BLOCK = 64 << 10
_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Pump:
    """From one descriptor to another, or to nowhere but `tap`.

    `source` is read until its end, or until `finish`; `sink` is written as fast as it takes it. `tap` sees everything
    that was read, before it is written. `closes_sink` closes the sink after the last byte, so that its reader sees
    the end. `error` says why writing failed, if it did and the reader was not simply gone.
    """

    def __init__(
        self,
        source: int,
        sink: int | None,
        *,
        tap: Callable[[bytes], None] | None = None,
        closes_sink: bool = False,
        closes_source: bool = False,
    ) -> None:
        self.source: int | None = source
        self.sink = sink
        self.error = ""
        self._tap = tap
        self._closes_sink = closes_sink
        self._closes_source = closes_source
        self._pending = memoryview(b"")
        # A pipe or a socket that poll calls writable takes this much without blocking (pipe(7), PIPE_BUF); a file never
        # blocks, nor does what we own and made non-blocking.
        self._piece = _BLOCK if sink is None or not os.get_blocking(sink) or _is_file(sink) else select.PIPE_BUF

    @property
    def done(self) -> bool:
        """Whether everything was read and written."""
        return self.source is None and not self._pending

    def interest(self) -> tuple[int, int] | None:
        """Return the descriptor to wait for and the events of poll(2); None if there is nothing to do any more."""
        if self._pending and self.sink is not None:
            return self.sink, select.POLLOUT
        if self.source is not None:
            return self.source, select.POLLIN
        return None

    def step(self) -> bool:
        """Move some bytes after `interest` became true; False if nothing could be moved."""
        if self._pending:
            return self._write()
        return self._read()

    def finish(self) -> None:
        """Stop reading: the end has come."""
        if self.source is not None and self._closes_source:
            os.close(self.source)
        self.source = None
        self._end_sink()

    def abandon(self) -> None:
        """Stop reading and forget what was not written yet: nobody is left to take it."""
        self._pending = memoryview(b"")
        self.finish()

    def _read(self) -> bool:
        if self.source is None:
            return False
        try:
            data = os.read(self.source, _BLOCK)
        except BlockingIOError:
            return False
        except OSError:
            # EIO is how the master of a terminal tells that nobody has it open any more.
            data = b""
        if not data:
            self.finish()
            return False
        if self._tap is not None:
            self._tap(data)
        if self.sink is not None:
            self._pending = memoryview(data)
        return True

    def _write(self) -> bool:
        assert self.sink is not None, "BUG: bytes wait for no sink"
        try:
            self._pending = self._pending[os.write(self.sink, self._pending[: self._piece]) :]
        except BlockingIOError:
            return False
        except OSError as error:
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                self.error = error.strerror or str(error)
            self._pending = memoryview(b"")
            self.finish()
            return False
        self._end_sink()
        return True

    def _end_sink(self) -> None:
        if self._closes_sink and self.done and self.sink is not None:
            with contextlib.suppress(OSError):
                os.close(self.sink)
            self.sink = None


def run_pumps(pumps: Sequence[Pump], until: int) -> None:
    """Move bytes until the descriptor `until` is readable (a pidfd: until that process has ended)."""
    while True:
        wanted = {until: select.POLLIN}
        waiting = []
        for pump in pumps:
            interest = pump.interest()
            if interest is not None:
                fd, events = interest
                # The master of a terminal is the source of one pump and the sink of another.
                wanted[fd] = wanted.get(fd, 0) | events
                waiting.append((fd, events | _ALWAYS, pump))
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        ready = dict(poll.poll())
        if until in ready:
            return
        for fd, events, pump in waiting:
            if ready.get(fd, 0) & events:
                pump.step()


def drain(pumps: Sequence[Pump]) -> None:
    """Move what is there already, to its last byte, and end the pumps; their sources must not block.

    Their writers are gone, so an empty source is a finished one, even if somebody else still holds it open.
    """
    for pump in pumps:
        while not pump.done:
            interest = pump.interest()
            if interest is not None and interest[1] == select.POLLOUT:
                poll = select.poll()
                poll.register(*interest)
                poll.poll()
                pump.step()
            elif not pump.step() and not pump.done:
                pump.finish()


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)
