"""What `-p` values mean, and which mean nothing."""

from __future__ import annotations

import pytest

from runner.errors import RunnerError
from runner.ports import Port, parse_ports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", (Port(80),)),
        ("8080:80", (Port(80, 8080),)),
        ("8080:80/udp", (Port(80, 8080, protocol="udp"),)),
        ("127.0.0.1:8080:80", (Port(80, 8080, "127.0.0.1"),)),
        ("127.0.0.1::80", (Port(80, 0, "127.0.0.1"),)),
        (":80", (Port(80),)),
        ("8000-8001:80-81/tcp", (Port(80, 8000), Port(81, 8001))),
        ("80-81", (Port(80), Port(81))),
    ],
)
def test_forms(text: str, expected: tuple[Port, ...]) -> None:
    """Every form that docker takes for IPv4 is understood as there."""
    assert expected == parse_ports(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "65536",
        "80/sctp",
        "1-2:80",
        "9-8",
        "127.0.0.1:80",
        "[::1]:80:80",
        "1.2.3:80:80",
        "80:",
        "1:2:3:4",
        "-1:80",
    ],
)
def test_refused(text: str) -> None:
    """Anything else is an error that shows the form to write."""
    with pytest.raises(RunnerError, match="invalid published port") as caught:
        parse_ports(text)

    assert "8080:80" in caught.value.hint
