"""Bridges with real namespaces: every test has a host of its own, a namespace, so nothing can be left on this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from runner import links, nft
from runner.errors import RunnerError
from runner.network import Bridge, NetworkNamespace, Port, parse_ports

pytestmark = pytest.mark.root

T = TypeVar("T")
NAME = "pbt0"


class Host:
    """A network namespace that plays the host, with as many others inside as a test needs."""

    def __init__(self, state: Path) -> None:
        self.namespace = NetworkNamespace.create()
        self.state = state
        self.bridge = Bridge(state, name=NAME)
        self._stop = threading.Event()
        self._servers: list[threading.Thread] = []

    def run(self, action: Callable[[], T]) -> T:
        return self.namespace.run(action)

    def snapshot(self) -> tuple[list[str], list[tuple[int, str]], list[str]]:
        """Interfaces, tables and addresses."""

        def look() -> tuple[list[str], list[tuple[int, str]], list[str]]:
            addresses = [str(network) for network in links.networks_in_use()]
            return sorted(name for _, name in socket.if_nameindex()), nft.tables(), addresses

        return self.run(look)

    def serve(self, where: NetworkNamespace, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Answer everybody in `where` with the address they come from."""
        server = where.run(lambda: socket.socket(socket.AF_INET, kind))
        server.bind(("0.0.0.0", port))
        server.settimeout(0.02)
        if kind == socket.SOCK_STREAM:
            server.listen()

        def loop() -> None:
            with server:
                while not self._stop.is_set():
                    try:
                        if kind == socket.SOCK_STREAM:
                            connection, peer = server.accept()
                            with connection:
                                connection.sendall(peer[0].encode())
                        else:
                            _, peer = server.recvfrom(100)
                            server.sendto(peer[0].encode(), peer)
                    except TimeoutError:
                        continue

        thread = threading.Thread(target=loop)
        thread.start()
        self._servers.append(thread)

    def close(self) -> None:
        self._stop.set()
        for thread in self._servers:
            thread.join()
        self.namespace.close()


def ask(address: str, port: int, kind: int = socket.SOCK_STREAM) -> str:
    """What a server of `Host.serve` answers; the error's name if it cannot be reached."""
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(0.5)
        try:
            client.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                client.send(b"?")
            return client.recv(100).decode()
        except OSError as error:
            return type(error).__name__


def neighbour(host: Host, address: str = "192.0.2.2") -> NetworkNamespace:
    """Another machine on a network (192.0.2.0/24) that the host is on as 192.0.2.1."""
    from pyroute2 import IPRoute

    other = NetworkNamespace.create()

    def cable() -> None:
        with IPRoute() as kernel:
            kernel.link("add", ifname="lan0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": other.fd})
            number = socket.if_nametoindex("lan0")
            kernel.addr("add", index=number, address="192.0.2.1", prefixlen=24)
            kernel.link("set", index=number, state="up")

    host.run(cable)
    other.run(lambda: links.configure("eth0", address, 24, "192.0.2.1"))
    return other


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "state")
    before = host.snapshot()
    try:
        yield host
        after = host.snapshot()
    finally:
        host.close()
    # The cable to a neighbour goes when its namespace does, which the kernel may do later.
    assert (before[0], before[1]) == ([name for name in after[0] if name != "lan0"], after[1])


def test_namespace_is_another_one_with_loopback_up() -> None:
    """A new namespace has lo, up, and the creating thread stays in its own."""
    mine = os.stat("/proc/thread-self/ns/net").st_ino

    with NetworkNamespace.create() as namespace:
        inside = os.fstat(namespace.fd).st_ino
        names = namespace.run(socket.if_nameindex)
        reached = namespace.run(lambda: ask("127.0.0.1", 9))

    assert (mine, [(1, "lo")], "ConnectionRefusedError") == (
        os.stat("/proc/thread-self/ns/net").st_ino,
        names,
        reached,
    )
    assert inside != mine


def test_attach_gives_address_and_route(host: Host) -> None:
    """Two endpoints get different addresses, reach the gateway and each other."""
    with NetworkNamespace.create() as one, NetworkNamespace.create() as two:
        first = host.run(lambda: host.bridge.attach(one, id="one"))
        second = host.run(lambda: host.bridge.attach(two, id="two"))
        host.serve(two, 80)

        answers = one.run(lambda: ask(second.address, 80)), host.run(lambda: ask(second.address, 80))

        assert (first.address, first.gateway) == answers
        assert first.address != second.address
        host.run(first.release)
        host.run(second.release)


def test_last_release_leaves_nothing(host: Host) -> None:
    """Bridge, veth pairs, addresses and tables go with the last endpoint, and not before; releasing twice is fine."""
    before = host.snapshot()
    with NetworkNamespace.create() as one, NetworkNamespace.create() as two:
        first = host.run(lambda: host.bridge.attach(one, id="one"))
        second = host.run(lambda: host.bridge.attach(two, id="two"))
        host.run(first.release)

        assert NAME in host.snapshot()[0]

        host.run(second.release)
        host.run(second.release)

        assert before == host.snapshot()
        assert [] == list(host.state.glob("*.json"))


def test_published_port_answers_everywhere(host: Host) -> None:
    """A published port answers on the host's loopback and address, to a neighbour, a container and itself."""
    with neighbour(host) as other, NetworkNamespace.create() as one, NetworkNamespace.create() as two:
        server = host.run(lambda: host.bridge.attach(one, id="one"))
        client = host.run(lambda: host.bridge.attach(two, id="two"))
        host.serve(one, 80)
        published = host.run(lambda: server.publish(parse_ports("8080:80")))
        gateway = server.gateway

        assert (Port(80, 8080),) == published
        assert gateway == host.run(lambda: ask("127.0.0.1", 8080))
        assert "192.0.2.1" == host.run(lambda: ask("192.0.2.1", 8080))
        assert "192.0.2.2" == other.run(lambda: ask("192.0.2.1", 8080))  # the real peer, not a proxy
        assert gateway == two.run(lambda: ask("192.0.2.1", 8080))
        assert gateway == one.run(lambda: ask("192.0.2.1", 8080))

        host.run(server.release)

        assert "ConnectionRefusedError" == host.run(lambda: ask("127.0.0.1", 8080))
        host.run(client.release)


def test_published_udp_port(host: Host) -> None:
    """UDP is published as UDP only."""
    with NetworkNamespace.create() as one:
        endpoint = host.run(lambda: host.bridge.attach(one, id="one"))
        host.serve(one, 53, socket.SOCK_DGRAM)
        host.run(lambda: endpoint.publish(parse_ports("5353:53/udp")))

        assert endpoint.gateway == host.run(lambda: ask("127.0.0.1", 5353, socket.SOCK_DGRAM))
        assert "ConnectionRefusedError" == host.run(lambda: ask("127.0.0.1", 5353))
        host.run(endpoint.release)


def test_loopback_port_is_not_for_neighbours(host: Host) -> None:
    """A port published on 127.0.0.1 answers there and nowhere else, also not for who routes 127.0.0.1 to the host."""
    with neighbour(host) as other, NetworkNamespace.create() as one:
        endpoint = host.run(lambda: host.bridge.attach(one, id="one"))
        host.serve(one, 80)
        host.run(lambda: endpoint.publish(parse_ports("127.0.0.1:8080:80")))

        def attack() -> str:
            subprocess.run(
                "ip address del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1; "
                "ip route add 127.0.0.1 via 192.0.2.1 dev eth0 src 192.0.2.2",
                shell=True,
                check=True,
            )
            return ask("127.0.0.1", 8080)

        assert endpoint.gateway == host.run(lambda: ask("127.0.0.1", 8080))
        assert "ConnectionRefusedError" == other.run(lambda: ask("192.0.2.1", 8080))
        assert "TimeoutError" == other.run(attack)
        host.run(endpoint.release)


def test_unpublished_ports_are_not_routed_to(host: Host) -> None:
    """A neighbour who routes to the bridge's subnet reaches no container, but containers reach the neighbour."""
    with neighbour(host) as other, NetworkNamespace.create() as one:
        endpoint = host.run(lambda: host.bridge.attach(one, id="one"))
        host.serve(one, 80)
        host.serve(other, 80)

        assert "192.0.2.1" == one.run(lambda: ask("192.0.2.2", 80))  # masqueraded
        assert "TimeoutError" == other.run(lambda: ask(endpoint.address, 80))
        host.run(endpoint.release)


def test_containers_do_not_reach_the_hosts_loopback(host: Host) -> None:
    """route_localnet, which publishing on 127.0.0.1 needs, opens nothing to containers."""
    with NetworkNamespace.create() as one:
        endpoint = host.run(lambda: host.bridge.attach(one, id="one"))
        host.serve(host.namespace, 7777)

        def attack() -> str:
            subprocess.run(
                "ip address del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1; "
                f"ip route add 127.0.0.1 via {endpoint.gateway} dev eth0 src {endpoint.address}",
                shell=True,
                check=True,
            )
            return ask("127.0.0.1", 7777)

        assert "TimeoutError" == one.run(attack)
        host.run(endpoint.release)


def test_a_dropping_forward_chain_is_opened_and_restored(host: Host) -> None:
    """docker's FORWARD policy drop does not cut containers off, and its chain is as before afterwards."""

    def docker() -> str:
        subprocess.run("iptables -P FORWARD DROP", shell=True, check=True)
        return subprocess.run(["iptables", "-S", "FORWARD"], check=True, capture_output=True, text=True).stdout

    before = host.run(docker)
    with neighbour(host) as other, NetworkNamespace.create() as one:
        host.serve(other, 80)
        endpoint = host.run(lambda: host.bridge.attach(one, id="one"))

        answer = one.run(lambda: ask("192.0.2.2", 80))
        host.run(endpoint.release)

        assert "192.0.2.1" == answer
        after = host.run(
            lambda: subprocess.run(["iptables", "-S", "FORWARD"], check=True, capture_output=True, text=True).stdout
        )
        assert before == after

    def clean() -> None:
        batch = nft.Batch()
        batch.delete_table("filter")
        batch.commit()

    host.run(clean)


def test_flushed_rules_come_back(host: Host) -> None:
    """Somebody flushes all rules: the next user of the bridge restores them, published ports included."""
    with NetworkNamespace.create() as one, NetworkNamespace.create() as two:
        first = host.run(lambda: host.bridge.attach(one, id="one"))
        host.serve(one, 80)
        host.run(lambda: first.publish(parse_ports("8080:80")))

        def flush() -> None:
            batch = nft.Batch()
            batch.delete_table(NAME)
            batch.commit()

        host.run(flush)
        second = host.run(lambda: host.bridge.attach(two, id="two"))

        assert first.gateway == host.run(lambda: ask("127.0.0.1", 8080))
        host.run(first.release)
        host.run(second.release)


def test_a_killed_users_litter_goes_with_the_next(host: Host) -> None:
    """An endpoint whose owner was killed is cleaned by the next sweep: its address, its port, the bridge."""
    before = host.snapshot()
    owner = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    with NetworkNamespace.create() as one:
        endpoint = host.run(lambda: host.bridge.attach(one, id="one", owner=owner.pid))
        host.run(lambda: endpoint.publish(parse_ports("8080:80")))
        owner.kill()
        owner.wait()

        host.run(host.bridge.sweep)

        assert before == host.snapshot()


def test_attaching_to_a_process(host: Host) -> None:
    """The namespace may be named by a process inside it; the endpoint then lives as long as that process."""
    with NetworkNamespace.create() as one:
        inside = one.run(lambda: subprocess.Popen(["sleep", "60"]))
        endpoint = host.run(lambda: host.bridge.attach(inside.pid, id="one"))
        host.serve(host.namespace, 80)

        answer = one.run(lambda: ask(endpoint.gateway, 80))
        inside.kill()
        inside.wait()
        host.run(host.bridge.sweep)

        assert endpoint.address == answer
        assert NAME not in host.snapshot()[0]


def test_port_conflicts_are_errors(host: Host) -> None:
    """A host port that a program listens on, or another endpoint publishes, is refused; port 0 finds a free one."""
    with NetworkNamespace.create() as one, NetworkNamespace.create() as two:
        first = host.run(lambda: host.bridge.attach(one, id="one"))
        second = host.run(lambda: host.bridge.attach(two, id="two"))
        host.serve(host.namespace, 7777)
        host.run(lambda: first.publish(parse_ports("8080:80")))

        with pytest.raises(RunnerError, match=r"0\.0\.0\.0:7777/tcp cannot be published"):
            host.run(lambda: second.publish(parse_ports("7777:80")))
        with pytest.raises(RunnerError, match="is published by one"):
            host.run(lambda: second.publish(parse_ports("127.0.0.1:8080:80")))
        (chosen,) = host.run(lambda: second.publish(parse_ports("80")))
        assert 1024 < chosen.host_port < 65536
        host.run(first.release)
        host.run(second.release)


def test_a_bridge_of_somebody_else_is_not_touched(host: Host) -> None:
    """A bridge of that name with ports, which the state does not know, is an error and stays."""
    with NetworkNamespace.create() as one, NetworkNamespace.create() as two:
        endpoint = host.run(lambda: host.bridge.attach(one, id="one"))
        other = Bridge(host.state / "other", name=NAME)

        with pytest.raises(RunnerError, match="exists and is not ours"):
            host.run(lambda: other.attach(two, id="two"))

        assert NAME in host.snapshot()[0]
        host.run(endpoint.release)


def test_subnet_avoids_the_hosts_routes(host: Host) -> None:
    """The chosen range overlaps neither a route nor an address to avoid; a wanted one that collides is refused."""
    with neighbour(host), NetworkNamespace.create() as one:
        avoiding = Bridge(host.state, name=NAME, avoid=["10.214.0.53"])
        endpoint = host.run(lambda: avoiding.attach(one, id="one"))

        assert "10.214.16.1" == endpoint.gateway
        host.run(endpoint.release)
        with pytest.raises(RunnerError, match=r"collides with the host's route to 192\.0\.2\.0/24"):
            host.run(Bridge(host.state, name=NAME, subnet="192.0.2.128/25").ensure)
        with pytest.raises(RunnerError, match="host bits set"):
            Bridge(host.state, subnet="10.0.0.1/24")


def test_full_subnet(host: Host) -> None:
    """The last address is given out, one more is refused and leaves nothing; a freed address can be had again."""
    small = Bridge(host.state, name=NAME, subnet="10.99.0.0/29")
    spaces = [NetworkNamespace.create() for _ in range(6)]
    endpoints = host.run(lambda: [small.attach(spaces[n], id=str(n)) for n in range(5)])

    assert [f"10.99.0.{n}" for n in range(2, 7)] == [endpoint.address for endpoint in endpoints]
    with pytest.raises(RunnerError, match="all 5 addresses"):
        host.run(lambda: small.attach(spaces[5], id="5"))
    host.run(endpoints[2].release)
    assert "10.99.0.4" == host.run(lambda: small.attach(spaces[5], id="5")).address

    for name in ("0", "1", "3", "4", "5"):
        host.run(partial(small.release, name))
    for space in spaces:
        space.close()


def test_many_threads_at_once(host: Host) -> None:
    """Endpoints attached at the same time get different addresses; the last release takes the bridge away."""
    before = host.snapshot()
    found: list[str] = []

    def use(number: int) -> None:
        with NetworkNamespace.create() as space:
            endpoint = host.run(lambda: host.bridge.attach(space, id=str(number)))
            found.append(endpoint.address)
            host.run(endpoint.release)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 6 == len(found)
    assert before == host.snapshot()


def test_failed_attach_leaves_nothing(host: Host) -> None:
    """An interface name that is taken inside: the error says so and the bridge is gone again."""
    before = host.snapshot()
    with NetworkNamespace.create() as one:
        with pytest.raises(RunnerError):
            host.run(lambda: host.bridge.attach(one, id="one", interface="lo"))

        assert before == host.snapshot()


def test_bad_bridge_name() -> None:
    """A name that no interface can have is refused before anything happens."""
    with pytest.raises(RunnerError, match="invalid bridge name"):
        Bridge(Path("/nonexistent"), name="much-too-long-a-name")


@pytest.mark.network
def test_outbound_through_nat(tmp_path: Path) -> None:
    """From a namespace on a bridge of the real host, the distribution's registry can be reached."""
    sources = [*Path("/etc/apt/sources.list.d").glob("*"), Path("/etc/apt/sources.list")]
    lines = [line.split() for path in sources if path.exists() for line in path.read_text().splitlines()]
    words = [word for line in lines if line and line[0] in {"URIs:", "deb"} for word in line]
    server = next((word.split("/")[2] for word in words if word.startswith("http://")), None)
    if server is None:
        pytest.skip("needs an http source of packages in /etc/apt")
    address = socket.gethostbyname(server)
    bridge = Bridge(tmp_path, name="pbtnat0")
    with NetworkNamespace.create() as one:
        endpoint = bridge.attach(one, id="one")
        try:

            def connect() -> int:
                with socket.create_connection((address, 80), timeout=10) as connection:
                    return int(connection.getpeername()[1])

            assert 80 == one.run(connect)
        finally:
            endpoint.release()
    assert (None, False) == (links.index("pbtnat0"), (nft.IPV4, "pbtnat0") in nft.tables())
