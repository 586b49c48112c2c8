"""Progress for programs: BuildKit's SolveStatus, a line each."""

from __future__ import annotations

import base64
import io
import json

import pytest
from syrupy.assertion import SnapshotAssertion

from builder.events import Log
from builder.progress.rawjson import RawJson, timestamp
from tests.builder.progress import START, Clock, failing_build, feed, vertex


def test_a_build(snapshot: SnapshotAssertion) -> None:
    """Every kind of event, with the names and the order of the fields in BuildKit's client/graph.go."""
    out, clock = io.StringIO(), Clock()
    progress = RawJson(out)
    feed(progress, clock, failing_build())
    progress.close()

    assert snapshot == out.getvalue()


def test_logs_come_back_byte_for_byte() -> None:
    """Output is neither decoded nor clipped nor cut at line ends."""
    out = io.StringIO()
    pieces = [b"\xff\x00half \xe2\x82", b"\xac\n" + b"x" * 200_000, b"\x1b[31m"]
    for piece in pieces:
        RawJson(out).emit(Log(vertex=vertex(1), time=START, stream=2, data=piece))
    logs = [json.loads(line)["logs"][0] for line in out.getvalue().splitlines()]

    assert pieces == [base64.b64decode(log["data"]) for log in logs]
    assert {2} == {log["stream"] for log in logs}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1.5, "1970-01-01T00:00:01.5Z"),
        (1_600_000_000.125, "2020-09-13T12:26:40.125Z"),
        (0.000000001, "1970-01-01T00:00:00.000000001Z"),
        (0.9999999999, "1970-01-01T00:00:01Z"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    """RFC 3339 with nanoseconds as Go prints it: no trailing zeros, no fraction at a whole second."""
    assert text == timestamp(seconds)
