"""What a build lets others observe: one closed sum of events, in the order they happen.

Terminal output, plain output, JSON output and stored build records are consumers of these; nothing else is observable.
"""

from __future__ import annotations

from typing import NewType, Protocol

from grammar import Diagnostic
from grammar.record import Record

VertexId = NewType("VertexId", str)
"""`sha256:<hex>` of what a vertex is, before its inputs are known; stable between builds of one Dockerfile."""


class Planned(Record):
    """A vertex is part of the build. `name` is as BuildKit prints it: `[stage 2/4] RUN make`."""

    vertex: VertexId
    name: str
    inputs: tuple[VertexId, ...] = ()


class Started(Record):
    """Work on a vertex began at `time` (seconds since the epoch)."""

    vertex: VertexId
    time: float


class Completed(Record):
    """A vertex ended: `cached` (nothing was done), `note` (in words, may be empty), `error` (failed or canceled)."""

    vertex: VertexId
    time: float
    cached: bool = False
    note: str = ""
    error: str | None = None


class Log(Record):
    """Output of a step, in pieces as it arrived; `stream` is 1 or 2."""

    vertex: VertexId
    time: float
    stream: int
    data: bytes


class Transfer(Record):
    """Progress of one transfer (a layer pulled, pushed, unpacked); `total` is None where unknown; units are bytes."""

    vertex: VertexId
    time: float
    id: str
    current: int
    total: int | None
    done: bool = False


class Warned(Record):
    """A warning about the Dockerfile or the build; `detail` and `url` say what the rule is about that was broken."""

    vertex: VertexId | None
    diagnostic: Diagnostic
    detail: str = ""
    url: str = ""


Event = Planned | Started | Completed | Log | Transfer | Warned


class Progress(Protocol):
    """A consumer of events. `emit` is called from several threads, never concurrently."""

    def emit(self, event: Event) -> None:
        """Take one event."""

    def close(self) -> None:
        """The build is over, well or not; restore the terminal and flush."""
