"""Progress for programs: a line of JSON per event, in the shape of BuildKit's SolveStatus (client/graph.go).

Times are RFC 3339 with nanoseconds, bytes are base64, what is empty is left out; a changed vertex is repeated whole.
"""

from __future__ import annotations

import base64
import json
from typing import Any, TextIO, assert_never

from builder.events import Completed, Event, Log, Planned, Started, Transfer, VertexId, Warned
from builder.image import timestamp as rfc3339
from builder.progress.words import short
from grammar import Position


class RawJson:
    """Writes one SolveStatus per event to `out`: `vertexes`, `statuses`, `logs` or `warnings`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._vertexes: dict[VertexId, dict[str, Any]] = {}
        self._transfers: dict[tuple[VertexId, str], str] = {}
        """When each transfer was first heard of."""

    def emit(self, event: Event) -> None:
        """Write the event."""
        match event:
            case Planned():
                vertex = self._vertex(event.vertex)
                vertex["name"] = event.name
                if event.inputs:
                    vertex["inputs"] = list(event.inputs)
                self._write("vertexes", vertex)
            case Started():
                self._write("vertexes", self._started(event.vertex, event.time))
            case Completed():
                self._write("vertexes", self._completed(event))
            case Log():
                self._write("logs", _log(event))
            case Transfer():
                self._write("statuses", self._status(event))
            case Warned():
                self._write("warnings", _warning(event))
            case _:
                assert_never(event)

    def close(self) -> None:
        """Flush."""
        self._out.flush()

    def _write(self, kind: str, value: dict[str, Any]) -> None:
        # A program on the other side of a pipe reacts to events, so none may wait in a buffer.
        self._out.write(json.dumps({kind: [value]}, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._out.flush()

    def _vertex(self, digest: VertexId) -> dict[str, Any]:
        return self._vertexes.setdefault(digest, {"digest": digest})

    def _started(self, digest: VertexId, time: float) -> dict[str, Any]:
        vertex = self._vertex(digest)
        vertex.setdefault("started", timestamp(time))
        return vertex

    def _completed(self, event: Completed) -> dict[str, Any]:
        # What was found in the cache never started; BuildKit gives it a start all the same, and readers rely on it.
        vertex = self._started(event.vertex, event.time)
        vertex["completed"] = timestamp(event.time)
        if event.cached:
            vertex["cached"] = True
        if event.error is not None:
            vertex["error"] = event.error
        return vertex

    def _status(self, event: Transfer) -> dict[str, Any]:
        now = timestamp(event.time)
        status: dict[str, Any] = {"id": event.id, "vertex": event.vertex}
        if event.total:
            status["total"] = event.total
        status |= {"current": event.current, "timestamp": now}
        status["started"] = self._transfers.setdefault((event.vertex, event.id), now)
        if event.done:
            status["completed"] = now
        return status


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 with nanoseconds in UTC, as Go prints it: no trailing zeros."""
    # The fraction by itself: a float has no room for today's seconds times 10⁹.
    whole = int(seconds)
    return rfc3339(whole * 1_000_000_000 + round((seconds - whole) * 1_000_000_000))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _log(event: Log) -> dict[str, Any]:
    return {
        "vertex": event.vertex,
        "stream": event.stream,
        "data": _base64(event.data),
        "timestamp": timestamp(event.time),
    }


def _warning(event: Warned) -> dict[str, Any]:
    diagnostic = event.diagnostic
    warning: dict[str, Any] = {"vertex": event.vertex} if event.vertex else {}
    warning |= {"level": 1, "short": _base64(short(diagnostic).encode("utf-8", "surrogateescape"))}
    details = [text for text in (event.detail, diagnostic.hint) if text]
    if details:
        warning["detail"] = [_base64(text.encode()) for text in details]
    if event.url:
        warning["url"] = event.url
    if diagnostic.span:
        start, end = diagnostic.span
        warning["range"] = [{"start": _position(start), "end": _position(end)}]
    return warning


def _position(position: Position) -> dict[str, int]:
    """BuildKit counts lines from 1 and characters from 0."""
    return {"line": position.line, "character": position.column - 1}
