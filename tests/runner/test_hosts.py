"""The files in a container that tell names: hosts, resolv.conf, hostname."""

from __future__ import annotations

import pytest

from runner import hosts
from runner.errors import RunnerError


def test_hosts_on_a_bridge() -> None:
    """Local names come first, then what the user added, then the container's own name with its short form."""
    text = hosts.hosts("web.example", address="10.0.0.2", extra=[("db", "10.0.0.9")]).decode().splitlines()

    assert "127.0.0.1\tlocalhost" == text[0]
    assert ["10.0.0.9\tdb", "10.0.0.2\tweb.example web"] == text[-2:]


def test_hosts_without_address() -> None:
    """Without an address of its own the container's name still resolves, to a loopback address."""
    assert hosts.hosts("box").endswith(b"\n127.0.1.1\tbox\n")


def test_host_network_keeps_the_hosts_file() -> None:
    """On the host's network its file stays, the user's entries behind it, whether its last line ends or not."""
    assert b"1.2.3.4 a\n10.0.0.9\tdb\n" == hosts.host_hosts(b"1.2.3.4 a", extra=[("db", "10.0.0.9")])
    assert b"1.2.3.4 a\n" == hosts.host_hosts(b"1.2.3.4 a\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:10.0.0.9", ("db", "10.0.0.9")),
        ("db=10.0.0.9", ("db", "10.0.0.9")),
        ("db:fd00::1", ("db", "fd00::1")),
        ("db:[fd00::1]", ("db", "fd00::1")),
        ("up:host-gateway", ("up", "10.0.0.1")),
    ],
)
def test_add_host(text: str, expected: tuple[str, str]) -> None:
    """Both separators, IPv6 with and without brackets, and the gateway's word."""
    assert expected == hosts.parse_add_host(text, gateway="10.0.0.1")


@pytest.mark.parametrize("text", ["db", "db:", ":1.2.3.4", "db:300.1.1.1", "d b:1.2.3.4", "up:host-gateway"])
def test_add_host_refused(text: str) -> None:
    """What is no entry is an error, and so is host-gateway on a network without one."""
    with pytest.raises(RunnerError, match="host entry"):
        hosts.parse_add_host(text)


def test_loopback_servers_are_dropped() -> None:
    """A container's loopback is not the host's: such servers go, search and options stay."""
    host = b"# c\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.53\n"
    host += b"search a b\noptions ndots:2\noptions edns0\n"

    expected = b"nameserver 10.0.0.53\nsearch a b\noptions ndots:2 edns0\n"
    assert expected == hosts.resolv_conf(host)
    assert host == hosts.resolv_conf(host, host_network=True)


def test_fallback_servers() -> None:
    """With no server left, docker's public ones are used."""
    assert b"nameserver 8.8.8.8\nnameserver 8.8.4.4\n" == hosts.resolv_conf(b"nameserver 127.0.0.1\n")


def test_user_settings_replace() -> None:
    """What the user says replaces what the host says, each kind on its own; a search of . removes it."""
    host = b"nameserver 10.0.0.53\ndomain corp\n"

    assert b"nameserver 1.1.1.1\nsearch corp\n" == hosts.resolv_conf(host, servers=["1.1.1.1"])
    assert b"nameserver 10.0.0.53\n" == hosts.resolv_conf(host, search=["."])
    expected = b"nameserver 127.0.0.1\nsearch corp\noptions rotate\n"
    assert expected == hosts.resolv_conf(b"nameserver 127.0.0.1\ndomain corp\n", host_network=True, options=["rotate"])


def test_stub_resolver_is_recognised() -> None:
    """Only where systemd-resolved's stub is all there is, its own file is needed."""
    assert hosts.needs_systemd_servers(b"nameserver 127.0.0.53\noptions edns0\n")
    assert not hosts.needs_systemd_servers(b"nameserver 127.0.0.53\nnameserver 10.0.0.1\n")
    assert not hosts.needs_systemd_servers(b"")


def test_hostname() -> None:
    """One line."""
    assert b"box\n" == hosts.hostname_file("box")
