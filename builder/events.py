"""What a build lets others observe: one closed sum of events, in the order they happen.

Terminal output, plain output, JSON output and stored build records are consumers of these; nothing else is observable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, Protocol

from grammar import Diagnostic

VertexId = NewType("VertexId", str)
"""`sha256:<hex>` of what a vertex is, before its inputs are known; stable between builds of one Dockerfile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A vertex is part of the build. `name` is as BuildKit prints it: `[stage 2/4] RUN make`."""

    vertex: VertexId
    name: str
    inputs: tuple[VertexId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Work on a vertex began at `time` (seconds since the epoch)."""

    vertex: VertexId
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A vertex ended: `cached` (nothing was done), `note` (said in words, may be empty), `error` (failed or canceled)."""

    vertex: VertexId
    time: float
    cached: bool = False
    note: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Output of a step, in pieces as it arrived; `stream` is 1 or 2."""

    vertex: VertexId
    time: float
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Progress of one transfer (a layer pulled, pushed, unpacked); `total` is None where unknown; units are bytes."""

    vertex: VertexId
    time: float
    id: str
    current: int
    total: int | None
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A warning about the Dockerfile or the build."""

    vertex: VertexId | None
    diagnostic: Diagnostic


Event = Planned | Started | Completed | Log | Transfer | Warned


class Progress(Protocol):
    """A consumer of events. `emit` is called from several threads, never concurrently."""

    def emit(self, event: Event) -> None:
        """Take one event."""

    def close(self) -> None:
        """The build is over, well or not; restore the terminal and flush."""
