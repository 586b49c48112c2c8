"""What /etc/hosts, /etc/resolv.conf and /etc/hostname of a container say, as pure functions of what the caller read.

Knows the file formats (hosts(5), resolv.conf(5), hostname(5)) and docker's rules for them; does not know where the
files are mounted, who reads the host's, or what networks exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.errors import RunnerError

HOST_GATEWAY = "host-gateway"
"""The address word of `--add-host` that stands for the host as the container sees it."""

STUB_RESOLVER = "127.0.0.53"
"""Where systemd-resolved listens; its real servers are in `SYSTEMD_RESOLV_CONF`."""

SYSTEMD_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"

FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
"""What docker falls back to when the host names no server that a container can reach."""

_LOCAL_NAMES = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def parse_add_host(text: str, *, gateway: str = "") -> tuple[str, str]:
    """(name, address) of one `--add-host` value: `name:address`, `name=address`, the address may be in brackets.

    `gateway` is what the word `host-gateway` stands for; RunnerError if it is used without one, or for a malformed
    value.
    """
    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    if not separator or not name or any(c.isspace() for c in name):
        raise RunnerError(f"invalid host entry {text!r}", hint="write NAME:ADDRESS, as in db:192.168.1.5")
    if address == HOST_GATEWAY:
        if not gateway:
            raise RunnerError(
                f"host entry {text!r}: this network has no gateway", hint="use a bridge network or an address"
            )
        return name, gateway
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    import ipaddress  # noqa: PLC0415 - few containers are given hosts

    try:
        return name, str(ipaddress.ip_address(address))
    except ValueError:
        raise RunnerError(
            f"host entry {text!r}: {address!r} is not an IP address", hint="write NAME:ADDRESS, as in db:192.168.1.5"
        ) from None


def hosts(hostname: str, *, address: str = "", extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """The hosts file of a container: local names, `extra` (name, address) pairs in their order, then its own name.

    Without an `address` (networks none and host) the own name points to 127.0.1.1, so that it always resolves.
    """
    lines = [f"{ip}\t{names}" for ip, names in _LOCAL_NAMES]
    lines += [f"{ip}\t{name}" for name, ip in extra]
    if hostname:
        short = hostname.split(".", 1)[0]
        names = hostname if short == hostname else f"{hostname} {short}"
        lines.append(f"{address or '127.0.1.1'}\t{names}")
    return _text(lines)


def step_hosts(hostname: str, *, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """The hosts file of a build's step, as BuildKit writes it (executor/oci/hosts.go): it may end up in an image."""
    lines = [f"127.0.0.1\tlocalhost {hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    return _text([*lines, *(f"{ip}\t{name}" for name, ip in extra)])


def host_hosts(host: bytes, *, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """The hosts file for network host: the host's own, with `extra` (name, address) pairs appended."""
    added = _text([f"{ip}\t{name}" for name, ip in extra])
    separator = b"\n" if added and host and not host.endswith(b"\n") else b""
    return host + separator + added


def hostname_file(hostname: str) -> bytes:
    """The hostname file: one line."""
    return _text([hostname])


def needs_systemd_servers(host: bytes) -> bool:
    """Whether the host's resolv.conf names the stub resolver only: `SYSTEMD_RESOLV_CONF` has to be read instead."""
    servers = nameservers(host)
    return bool(servers) and all(server == STUB_RESOLVER for server in servers)


def nameservers(resolv: bytes) -> tuple[str, ...]:
    """The addresses of the `nameserver` lines, in order."""
    return tuple(words[1] for words in _directives(resolv) if words[0] == "nameserver" and len(words) > 1)


def resolv_conf(
    host: bytes,
    *,
    host_network: bool = False,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
) -> bytes:
    """The resolv.conf of a container made from `host`, the host's file (see `needs_systemd_servers` for which one).

    On the host's network everything stays. Elsewhere loopback servers are dropped, since the container's loopback is
    another one, and `FALLBACK_NAMESERVERS` take their place if none is left. `servers`, `search` and `options`
    (`--dns`, `--dns-search`, `--dns-option`) replace what the host says; a search of "." means no search domains.
    """
    if host_network and not (servers or search or options):
        return host
    chosen = list(servers) or [s for s in nameservers(host) if host_network or not _is_loopback(s)]
    if not chosen and not host_network:
        chosen = list(FALLBACK_NAMESERVERS)
    domains = list(search) or _last_words(host, ("search", "domain"))
    opts = list(options) or _last_words(host, ("options",))
    lines = [f"nameserver {server}" for server in chosen]
    if domains and domains != ["."]:
        lines.append("search " + " ".join(domains))
    if opts:
        lines.append("options " + " ".join(opts))
    return _text(lines)


def _directives(resolv: bytes) -> Iterable[list[str]]:
    for line in resolv.decode("utf-8", "surrogateescape").splitlines():
        words = line.split()
        if words and words[0][0] not in "#;":
            yield words


def _last_words(resolv: bytes, keywords: tuple[str, ...]) -> list[str]:
    """The words of the last of these directives: resolv.conf(5) lets the last instance win (options add up)."""
    found: list[str] = []
    for words in _directives(resolv):
        if words[0] in keywords:
            found = found + words[1:] if words[0] == "options" else words[1:]
    return found


def _is_loopback(server: str) -> bool:
    import ipaddress  # noqa: PLC0415 - not on the host's network

    try:
        return ipaddress.ip_address(server.split("%", 1)[0]).is_loopback
    except ValueError:
        return False


def _text(lines: Sequence[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")
