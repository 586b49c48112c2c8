"""The log of a container: what is written comes back, whole or from its end."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from runner.log import LINE_LIMIT, LogWriter, read_log, timestamp


def written(path: Path, *chunks: tuple[str, bytes]) -> Path:
    ticks = itertools.count(1_000_000_000)
    log = LogWriter(path, clock=lambda: float(next(ticks)))
    for stream, data in chunks:
        log.write(stream, data)
    log.close()
    return path


def lines(path: Path, tail: int | None = None) -> list[bytes]:
    return [record.data for record in read_log(path, tail=tail)]


def test_form_of_json_file(tmp_path: Path) -> None:
    """One JSON object per line with log, stream and time, as other tools read them."""
    path = written(tmp_path / "log", ("stdout", b"one\ntw"), ("stderr", b"oops\n"), ("stdout", b"o\n"))

    assert [
        {"log": "one\n", "stream": "stdout", "time": "2001-09-09T01:46:40.000000000Z"},
        {"log": "oops\n", "stream": "stderr", "time": "2001-09-09T01:46:41.000000000Z"},
        {"log": "two\n", "stream": "stdout", "time": "2001-09-09T01:46:42.000000000Z"},
    ] == [json.loads(line) for line in path.read_text().splitlines()]


def test_every_byte_comes_back(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, quotes, NUL and lines without end survive the round trip."""
    data = bytes(range(256)) + b'\n"\\"\n\\n' + "é€😀".encode() + b"\xff\xfe no newline"

    path = written(tmp_path / "log", ("stdout", data[:100]), ("stdout", data[100:]))

    assert data == b"".join(lines(path))


def test_long_lines_are_cut(tmp_path: Path) -> None:
    """A line without end is held in memory up to the limit only, and nothing of it is lost."""
    data = b"x" * (3 * LINE_LIMIT + 5)

    path = written(tmp_path / "log", ("stdout", data), ("stdout", b"\n"))

    assert [LINE_LIMIT, LINE_LIMIT, LINE_LIMIT, 6] == [len(line) for line in lines(path)]


@pytest.mark.parametrize("unfinished", [b"", b"unfinished"])
@pytest.mark.parametrize("tail", [0, 1, 2, 5, 300, 301, 302, 1000])
def test_tail(tmp_path: Path, tail: int, unfinished: bytes) -> None:
    """The last lines are what a whole reading ends with; a cut line counts once."""
    every = [b"%d\n" % number for number in range(300)]
    every[298] = b"y" * (2 * LINE_LIMIT) + b"\\n" + b"z" * 10 + b"\n"
    every[297] = b"w" * (LINE_LIMIT - 2) + b"\\n" + b"\n"
    if unfinished:
        every.append(unfinished)

    path = written(tmp_path / "log", ("stdout", b"".join(every)))

    assert b"".join(every[len(every) - tail :] if tail < len(every) else every) == b"".join(lines(path, tail))


def test_tail_of_nothing(tmp_path: Path) -> None:
    """An empty log and a missing one have no lines."""
    assert [] == lines(written(tmp_path / "log"), 5)
    assert [] == lines(tmp_path / "missing", 5)


def test_follow_ends_with_the_writer(tmp_path: Path) -> None:
    """What is written between two looks is seen, also what came just before the end."""
    path = tmp_path / "log"
    log = LogWriter(path, clock=lambda: 0.0)
    script = iter([b"second\n", b"third\n"])

    def alive() -> bool:
        data = next(script, None)
        if data is None:
            return False
        log.write("stdout", data)
        return data == b"second\n"

    log.write("stdout", b"first\n")

    assert [b"first\n", b"second\n", b"third\n"] == [record.data for record in read_log(path, follow=alive)]
    log.close()


def test_full_disk_ends_the_log_only(tmp_path: Path) -> None:
    """A write that fails is remembered and never raised: the container is not to suffer."""
    path = tmp_path / "log"
    os.symlink("/dev/full", path)
    log = LogWriter(path, clock=lambda: 0.0)

    log.write("stdout", b"line\n")
    log.write("stdout", b"line\n")
    log.close()

    assert "the log ends early: No space left on device" == log.error


def test_timestamp() -> None:
    """Nine digits of fraction, UTC."""
    assert "2020-09-13T12:26:40.250000000Z" == timestamp(1_600_000_000.25)
