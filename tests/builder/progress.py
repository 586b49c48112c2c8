"""Builds as lists of events, for the tests of what shows them."""

from __future__ import annotations

from collections.abc import Iterator

from builder.events import Completed, Event, Log, Planned, Progress, Started, Transfer, VertexId, Warned
from grammar import Diagnostic, Position, Severity, Span

START = 1_600_000_000.0


def vertex(number: int) -> VertexId:
    """The ID of the vertex with this number."""
    return VertexId(f"sha256:{number:064x}")


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def feed(progress: Progress, clock: Clock, events: Iterator[Event]) -> None:
    """Show events at the times they have."""
    for event in events:
        match event:
            case Planned() | Warned():
                pass
            case _:
                clock.now = max(clock.now, event.time)
        progress.emit(event)


def planned() -> Iterator[Event]:
    """Two stages, four steps."""
    yield Planned(vertex=vertex(1), name="[words 1/2] FROM docker.io/library/busybox")
    yield Planned(vertex=vertex(2), name="[words 2/2] RUN make words", inputs=(vertex(1),))
    yield Planned(vertex=vertex(3), name="[stage-1 2/3] COPY . .", inputs=(vertex(1),))
    yield Planned(vertex=vertex(4), name="[stage-1 3/3] RUN greet", inputs=(vertex(3), vertex(2)))


def failing_build() -> Iterator[Event]:
    """A cached step, two that run side by side with transfers and output, one failure, one cancellation, a warning."""
    yield from planned()
    yield Completed(vertex=vertex(1), time=START, cached=True)
    yield Started(vertex=vertex(2), time=START)
    yield Started(vertex=vertex(3), time=START + 0.01)
    yield Log(vertex=vertex(2), time=START + 0.1, stream=1, data=b"compiling one\ncompiling ")
    yield Transfer(vertex=vertex(3), time=START + 0.15, id="sha256:abc", current=0, total=4_200_000)
    yield Log(vertex=vertex(2), time=START + 0.2, stream=1, data=b"two\n")
    yield Log(vertex=vertex(2), time=START + 0.3, stream=2, data=b"\x1b[31mwarning: gr\xc3")
    yield Log(vertex=vertex(2), time=START + 0.4, stream=2, data=b"\xbcn\x1b[0m\n")
    yield Transfer(vertex=vertex(3), time=START + 0.5, id="sha256:abc", current=2_100_000, total=4_200_000)
    yield Transfer(vertex=vertex(3), time=START + 0.6, id="sha256:abc", current=4_200_000, total=4_200_000, done=True)
    yield Completed(vertex=vertex(3), time=START + 0.7, note="reused")
    yield Started(vertex=vertex(4), time=START + 0.7)
    yield Warned(
        vertex=vertex(2),
        diagnostic=Diagnostic(
            severity=Severity.WARNING,
            code="json-args-recommended",
            message="CMD runs in a shell, which takes the signals",
            span=Span(Position(7, 1), Position(7, 12)),
            hint='write CMD ["greet"]',
        ),
    )
    yield Log(vertex=vertex(2), time=START + 0.8, stream=1, data=b"10%\r55%\r100%\r\nno end")
    yield Completed(vertex=vertex(2), time=START + 0.9, error="process did not complete successfully: exit code: 2")
    yield Completed(vertex=vertex(4), time=START + 0.9, error="canceled")
