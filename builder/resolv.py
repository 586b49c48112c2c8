"""The host's resolver configuration, read for containers."""

from __future__ import annotations

from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")


def read_resolv_conf() -> bytes:
    """Return the host's resolv.conf; where it names only systemd-resolved's stub, the file with the real servers."""
    from runner.hosts import SYSTEMD_RESOLV_CONF, needs_systemd_servers  # noqa: PLC0415

    host = _read(RESOLV_CONF)
    if needs_systemd_servers(host):
        return _read(Path(SYSTEMD_RESOLV_CONF)) or host
    return host


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
