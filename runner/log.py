"""What a container wrote: JSON lines in the form of docker's json-file driver, one object per line with its stream
and time.

Bytes that are no UTF-8 are kept as lone surrogates (Python's surrogateescape), so that nothing is lost on the way
back. It knows nothing of where the bytes come from.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring_ascii as _quote
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import mmap

LINE_LIMIT = 16 << 10
"""A line is cut into records of this many bytes, as docker does, so that memory stays bounded."""
_BLOCK = 64 << 10
_FOLLOW_INTERVAL = 0.05
_LINE_END = b'\\n","stream":"'
_BACKSLASH = ord("\\")


class Record(NamedTuple):
    """A line, with its newline unless it was cut or never ended; `time` as RFC 3339 with nanoseconds, in UTC."""

    data: bytes
    stream: str
    time: str


class LogWriter:
    """Writes records; a full disk ends the log, never the container: `error` then says so."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        """Make the file at `path`; `clock` returns seconds since the epoch."""
        self.error = ""
        self._clock = clock
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._partial = {"stdout": b"", "stderr": b""}

    def write(self, stream: str, data: bytes) -> None:
        """Take what came from `stream` (stdout or stderr); what does not end a line waits for its end."""
        lines = (self._partial[stream] + data).split(b"\n")
        rest = lines.pop()
        pieces = [line + b"\n" for line in lines]
        while len(rest) >= LINE_LIMIT:
            pieces.append(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._partial[stream] = rest
        self._append(stream, pieces)

    def close(self) -> None:
        """Write the lines that never ended and close the file."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(stream, [rest])
        os.close(self._fd)

    def _append(self, stream: str, pieces: list[bytes]) -> None:
        if not pieces or self.error:
            return
        ending = f',"stream":"{stream}","time":"{timestamp(self._clock())}"}}\n'
        text = "".join([f'{{"log":{_quote(piece.decode("utf-8", "surrogateescape"))}{ending}' for piece in pieces])
        data = memoryview(text.encode("ascii"))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.error = f"the log ends early: {error.strerror}"


def read_log(path: Path, *, tail: int | None = None, follow: Callable[[], bool] | None = None) -> Iterator[Record]:
    """Yield the records of the log at `path`, the last `tail` lines of it only if that is given.

    With `follow`, wait for more until it returns False and everything was read. A file that is not there is an empty
    log.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed below, after the last record
    except FileNotFoundError:
        return
    with file:
        if tail is not None:
            file.seek(_tail_offset(file.fileno(), tail))
        rest = b""
        alive = True
        while True:
            block = file.read(_BLOCK)
            if block:
                *lines, rest = (rest + block).split(b"\n")
                yield from map(_record, lines)
            elif alive and follow is not None:
                # Asked before the next read: what was written before the end is then surely seen.
                alive = follow()
                if alive:
                    time.sleep(_FOLLOW_INTERVAL)
            else:
                return


def timestamp(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as RFC 3339 with nanoseconds, in UTC."""
    # A float of today's seconds is exact to a microsecond, and no further.
    whole, fraction = divmod(round(seconds * 1e6) * 1000, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{fraction:09d}Z"


def _record(line: bytes) -> Record:
    document = json.loads(line)
    return Record(document["log"].encode("utf-8", "surrogateescape"), document["stream"], document["time"])


def _tail_offset(fd: int, count: int) -> int:
    """Return where the last `count` lines start; records that were cut from one line count as that line."""
    import mmap  # noqa: PLC0415 - not needed to write

    size = os.fstat(fd).st_size
    if count == 0 or size == 0:
        return size
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as text:
        position = _line_end(text, size)
        # A line that has not ended yet is the last one; one that has is counted by its own end.
        if text.find(b"\n", position) == size - 1:
            position = _line_end(text, position)
        for _ in range(count - 1):
            if position < 0:
                break
            position = _line_end(text, position)
        return text.find(b"\n", position) + 1 if position >= 0 else 0


def _line_end(text: mmap.mmap, before: int) -> int:
    """Return where, before an offset, the last record stands out that ends a line; -1 if none does."""
    if before < 0:
        return -1
    position = text.rfind(_LINE_END, 0, before)
    while position >= 0:
        start = position
        while text[start - 1] == _BACKSLASH:
            start -= 1
        if (position - start) % 2 == 0:
            return position
        # An escaped backslash and the letter n, at the very end of a record that was cut there.
        position = text.rfind(_LINE_END, 0, position)
    return -1
