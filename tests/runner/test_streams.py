"""Pumps: every byte arrives, in order, and nobody waits for somebody else's reader."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from runner.streams import Pump, drain, run_pumps


def pipes() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    return read, write


def test_bytes_and_taps(tmp_path: Path) -> None:
    """What is read is seen by the tap and written to the sink, through to the end."""
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    read, write = pipes()
    writer = subprocess.Popen(["cat", tmp_path / "in"], stdout=write)
    os.close(write)
    target = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    seen: list[bytes] = []
    pump = Pump(read, target, tap=seen.append, closes_source=True)

    while not pump.done:
        pump.step()

    assert data == b"".join(seen) == (tmp_path / "out").read_bytes()
    assert 0 == writer.wait(10)
    os.close(target)


def test_slow_reader_holds_nobody_up() -> None:
    """While one sink is full, the other pump goes on; at the end the first one gets everything."""
    slow_source, slow_in = pipes()
    slow_out, slow_sink = os.pipe()
    fast_source, fast_in = pipes()
    fast_out, fast_sink = os.pipe()
    writer = subprocess.Popen(["head", "-c", "400000", "/dev/zero"], stdout=slow_in)
    os.close(slow_in)
    os.write(fast_in, b"fast")
    os.close(fast_in)
    clock = subprocess.Popen(["sleep", "0.3"])
    pidfd = os.pidfd_open(clock.pid)
    pumps = [
        Pump(slow_source, slow_sink, closes_source=True, closes_sink=True),
        Pump(fast_source, fast_sink, closes_source=True, closes_sink=True),
    ]

    run_pumps(pumps, pidfd)

    assert b"fast" == _read_all(fast_out)
    assert not pumps[0].done

    reader = subprocess.Popen(["wc", "-c"], stdin=slow_out, stdout=subprocess.PIPE)
    os.close(slow_out)
    ended = os.pidfd_open(writer.pid)
    run_pumps(pumps, ended)
    os.close(ended)
    drain(pumps)
    assert b"400000\n" == reader.communicate(timeout=10)[0]
    assert [0, 0] == [writer.wait(10), clock.wait(10)]
    os.close(pidfd)


def test_sink_that_is_gone_closes_the_source() -> None:
    """Whoever writes gets SIGPIPE, as it would without us."""
    read, write = pipes()
    out, sink = os.pipe()
    writer = subprocess.Popen(["cat", "/dev/zero"], stdout=write)
    os.close(write)
    os.close(out)
    pidfd = os.pidfd_open(writer.pid)

    run_pumps([Pump(read, sink, closes_source=True)], pidfd)

    assert -signal.SIGPIPE == writer.wait(10)
    os.close(sink)
    os.close(pidfd)


def test_full_disk_is_told() -> None:
    """A sink that cannot take more is an error to tell of, not one to raise."""
    read, write = pipes()
    os.write(write, b"data")
    os.close(write)
    full = os.open("/dev/full", os.O_WRONLY)
    pump = Pump(read, full, closes_source=True)

    drain([pump])

    assert "No space left on device" == pump.error
    os.close(full)


def test_drain_does_not_wait_for_writers_that_never_write() -> None:
    """What was written is moved; a write end that somebody still holds open is not waited for."""
    read, write = pipes()
    out, sink = os.pipe()
    os.write(write, b"last words")

    drain([Pump(read, sink)])

    assert b"last words" == os.read(out, 100)
    for fd in (read, write, out, sink):
        os.close(fd)


def test_end_of_input_reaches_the_reader() -> None:
    """When the source ends, the sink is closed after the last byte."""
    read, write = pipes()
    out, sink = os.pipe()
    os.write(write, b"all")
    os.close(write)

    drain([Pump(read, sink, closes_sink=True, closes_source=True)])

    assert b"all" == _read_all(out)


def _read_all(fd: int) -> bytes:
    data = b""
    while block := os.read(fd, 65536):
        data += block
    os.close(fd)
    return data
