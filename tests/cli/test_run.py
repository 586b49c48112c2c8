"""`pybuild run` from outside: what the container sees, what the caller gets, and that nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runcli import Cli, Ended, end, host_state, read_until, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    cli = Cli(tmp_path_factory.mktemp("store"))
    cli.add_image("box")
    return cli


@pytest.fixture
def cli(shared: Cli) -> Iterator[Cli]:
    """The store, and after the test the proof that the machine is as it was."""
    before = host_state(shared.root)
    yield shared
    for name in os.listdir(shared.root / "containers") if (shared.root / "containers").exists() else ():
        if len(name) == 64:
            shared("rm", "-f", "-v", name)
    deadline = time.monotonic() + 10
    while host_state(shared.root) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert before == host_state(shared.root)


# -- exit status --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("box", "true"), 0),
        (("box", "sh", "-c", "exit 42"), 42),
        (("box", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"), 143),
        (("box", "no-such-program"), 127),
        (("box", "/etc/passwd"), 126),
        (("-w", "/etc/passwd", "box", "true"), 125),
        (("--no-such-flag", "box"), 125),
        (("--pull", "never", "no-such-image"), 125),
        (("-u", "nobody-here", "box", "true"), 125),
        (("-v", "relative:relative", "box"), 125),
        (("--memory", "much", "box"), 125),
        (("--cap-add", "FLY", "box"), 125),
        (("--security-opt", "magic", "box"), 125),
        (("-p", "80", "box"), 125),
        (("--env-file", "/no/such/file", "box"), 125),
        (("--mount", "type=bind,src=/no/such/dir,dst=/x", "box"), 125),
        (("--stop-signal", "SIGNONE", "box", "true"), 125),
        (("--network", "host", "--name", "!", "box", "true"), 125),
    ],
)
def test_exit_status(cli: Cli, words: tuple[str, ...], status: int) -> None:
    """The command's own status, or docker's for what could not be run: 125, 126, 127."""
    ended = cli.run(*words)

    assert status == ended.status, ended.err
    assert "Traceback" not in ended.err
    assert "BUG" not in ended.err
    if status in {125, 126, 127}:
        assert ended.err.startswith("error: ")
        assert "\nhint: " in ended.err
    assert [] == cli.ps()


def test_killed_by_a_signal(cli: Cli) -> None:
    """A process that a signal ended gives 128 plus its number."""
    process = cli.start("run", "--rm", "--network", "none", "--name", "victim", "box", "sh", "-c", "echo up; sleep 60")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up")

    killed = cli("kill", "victim")

    assert Ended(0, "victim\n", "") == killed
    assert 128 + signal.SIGKILL == end(process)


# -- what it sees -------------------------------------------------------------------------------------------------


def test_streams(cli: Cli) -> None:
    """stdin arrives with -i, stdout and stderr come apart, and every byte does."""
    data = bytes(range(256)) * 4096

    both = cli.run("-i", "box", "sh", "-c", "cat; echo oops >&2", stdin=b"line\n")
    copied = cli.start("run", "--rm", "-i", "--network", "none", "box", "cat")
    out, err = copied.communicate(data, timeout=30)

    assert Ended(0, "line\n", "oops\n") == both
    assert (data, b"") == (out, err)


def test_no_stdin(cli: Cli) -> None:
    """Without -i there is nothing to read, whatever the caller's stdin has."""
    assert Ended(0, "0\n", "") == cli.run("box", "sh", "-c", "wc -c", stdin=b"unseen")


def test_reader_that_leaves(cli: Cli) -> None:
    """When nobody reads the output any more, programs get SIGPIPE as they would without a container."""
    process = cli.start("run", "--rm", "--network", "none", "box", "sh", "-c", "yes; exit $?")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"y\ny\n")
    process.stdout.close()

    assert 128 + signal.SIGPIPE == end(process)


def test_environment(cli: Cli, tmp_path: Path) -> None:
    """Defaults, image, file, flags: the later wins; a bare name passes the caller's value on, or takes one away."""
    cli.add_image("env", Env=["PATH=/bin", "A=image", "B=image", "C=image", "GONE=image"])
    file = tmp_path / "vars"
    file.write_text("# comment\n\nB=file\nC=file\n  D=a b # c\nPASSED\nUNSET\n")

    ended = cli(
        "run", "--rm", "--network", "none", "--hostname", "here", "--env-file", str(file), "-e", "C=flag", "-e", "GONE",
        "-e", "ALSO", "env", "/bin/env",
        environ={"PASSED": "from outside", "ALSO": "here too"},
    )  # fmt: skip

    assert [
        "A=image",
        "ALSO=here too",
        "B=file",
        "C=flag",
        "D=a b # c",
        "HOME=/root",
        "HOSTNAME=here",
        "PASSED=from outside",
        "PATH=/bin",
    ] == sorted(ended.out.splitlines())


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("mira", "uid=2000(mira) gid=2001(mira) groups=2001(mira),2002(net) /home/mira"),
        ("2000:bin", "uid=2000(mira) gid=2(bin) groups=2(bin) /home/mira"),
        ("4321", "uid=4321 gid=0(root) groups=0(root) /"),
        ("", "uid=0(root) gid=0(root) groups=0(root) /root"),
    ],
)
def test_user(cli: Cli, user: str, identity: str) -> None:
    """Users come from the image, with their groups and their home; they can open /dev/stdout by name."""
    ended = cli.run("-u", user, "box", "sh", "-c", 'echo "$(id) $HOME" > /dev/stdout')

    assert Ended(0, identity + "\n", "") == ended


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        ({"Cmd": ["echo", "cmd"]}, (), "cmd"),
        ({"Cmd": ["echo", "cmd"]}, ("echo", "mine"), "mine"),
        ({"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}, (), "entry cmd"),
        ({"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}, ("mine",), "entry mine"),
    ],
)
def test_entrypoint_and_command(cli: Cli, config: dict[str, Any], words: tuple[str, ...], said: str) -> None:
    """Arguments replace the image's command and follow its entrypoint."""
    cli.add_image("entry", **config)

    assert Ended(0, said + "\n", "") == cli.run("entry", *words)


def test_entrypoint_of_ones_own(cli: Cli) -> None:
    """--entrypoint drops the image's entrypoint and command; an empty one leaves the arguments alone."""
    cli.add_image("entry", Entrypoint=["echo", "entry"], Cmd=["cmd"])

    assert Ended(0, "mine\n", "") == cli.run("--entrypoint", "echo", "entry", "mine")
    assert Ended(0, "\n", "") == cli.run("--entrypoint", "echo", "entry")
    assert Ended(0, "alone\n", "") == cli.run("--entrypoint", "", "entry", "echo", "alone")
    assert "no command specified" in cli.run("--entrypoint", "", "entry").err


def test_working_directory_is_made(cli: Cli) -> None:
    """A missing working directory appears, root's and 0755, and its parents keep owner and mode."""
    script = "pwd; stat -c '%n %a %u %g' /srv /srv/a /srv/a/b /"

    ended = cli.run("-w", "/srv/a/b", "box", "sh", "-c", script)

    assert ["/srv/a/b", "/srv 711 0 2", "/srv/a 755 0 0", "/srv/a/b 755 0 0", "/ 755 0 0"] == ended.out.splitlines()


def test_hostname_and_hosts(cli: Cli) -> None:
    """The host name is the short ID or the one asked for, and --add-host lands in /etc/hosts."""
    script = "hostname; cat /etc/hostname; grep -c $(hostname) /etc/hosts; grep quay /etc/hosts"

    named = cli.run("-h", "box1", "--add-host", "quay:192.0.2.7", "box", "sh", "-c", script)
    plain = cli.run("box", "hostname")

    assert ["box1", "box1", "1", "192.0.2.7\tquay"] == named.out.splitlines()
    assert 12 == len(plain.out.strip())


def test_read_only(cli: Cli) -> None:
    """--read-only takes every place but /dev and what is mounted."""
    script = "touch /x 2>/dev/null || echo refused; touch /tmp/x && echo tmp"

    ended = cli.run("--read-only", "--tmpfs", "/tmp", "box", "sh", "-c", script)

    assert "refused\ntmp\n" == ended.out


def test_capabilities(cli: Cli) -> None:
    """Docker's default set, changed by --cap-add and --cap-drop; --privileged has them all."""

    def effective(*flags: str) -> int:
        return int(cli.run(*flags, "box", "sh", "-c", "grep CapEff /proc/self/status").out.split()[1], 16)

    default = effective()

    assert 0xA80425FB == default
    assert default | 1 << 12 == effective("--cap-add", "net_admin")
    assert default & ~1 == effective("--cap-drop", "CAP_CHOWN")
    assert 1 << 13 == effective("--cap-drop", "ALL", "--cap-add", "NET_RAW")
    assert 0 == effective("-u", "mira")
    assert effective("--privileged").bit_count() > 35


def test_no_new_privileges(cli: Cli) -> None:
    """Off as with docker, on when asked for."""
    script = "grep NoNewPrivs /proc/self/status"

    assert "NoNewPrivs:\t0\n" == cli.run("box", "sh", "-c", script).out
    assert "NoNewPrivs:\t1\n" == cli.run("--security-opt", "no-new-privileges", "box", "sh", "-c", script).out


def test_memory_limit(cli: Cli) -> None:
    """What takes more than --memory is killed by the kernel: 137, and the record says why."""
    cli("run", "--name", "greedy", "--network", "none", "-m", "16m", "--memory-swap", "16m", "box", "sh", "-c",
        "exec tail -c 200m /dev/zero")  # fmt: skip

    [row] = cli.ps()

    assert 137 == row["ExitCode"]


def test_cpu_and_pids_limits(cli: Cli) -> None:
    """--cpus and --pids-limit reach the container's control group."""
    script = "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us pids/pids.max 2>/dev/null || cat cpu.max pids.max"

    ended = cli.run("--cpus", "0.5", "--pids-limit", "32", "box", "sh", "-c", script)

    assert ["50000", "32"] == [word for word in ended.out.split() if word != "100000"]


def test_ulimit_and_shm(cli: Cli) -> None:
    """--ulimit sets resource limits, --shm-size the size of /dev/shm."""
    ended = cli.run("--ulimit", "nofile=123:456", "--shm-size", "8m", "box", "sh", "-c", "ulimit -n; df -k /dev/shm")

    assert "123" == ended.out.split()[0]
    assert "8192" in ended.out


def test_init(cli: Cli) -> None:
    """With --init the program is not process 1, and its status still comes through."""
    ended = cli.run("--init", "box", "sh", "-c", "echo $$; exit 5")

    assert 5 == ended.status
    assert "1\n" != ended.out


# -- volumes ------------------------------------------------------------------------------------------------------


def test_bind_mounts(cli: Cli, tmp_path: Path) -> None:
    """-v mounts a host directory, made if it is missing; ro keeps it from being written."""
    ended = cli.run("-v", f"{tmp_path}/new:/there", "box", "sh", "-c", "echo data > /there/file")
    refused = cli.run("-v", f"{tmp_path}/new:/there:ro", "box", "sh", "-c", "cat /there/file; echo x > /there/file")

    assert 0 == ended.status
    assert "data\n" == (tmp_path / "new/file").read_text()
    assert "data\n" == refused.out
    assert "Read-only file system" in refused.err


def test_named_volume_gets_the_images_content(cli: Cli) -> None:
    """A new volume starts with what the image has there, owner and mode included, and lasts."""
    script = "stat -c '%a %u %g' /data; cat /data/seed; echo 2 > /data/more"
    first = cli.run("-v", "keep:/data", "box", "sh", "-c", script)
    second = cli.run("--mount", "type=volume,src=keep,dst=/elsewhere,ro", "box", "sh", "-c", "cat /elsewhere/*")

    assert Ended(0, "750 2000 2001\nseed\n", "") == first
    assert Ended(0, "2\nseed\n", "") == second


def test_anonymous_volumes(cli: Cli) -> None:
    """The image's VOLUMEs are anonymous volumes: --rm takes them along, rm keeps them without -v."""
    cli.add_image("volumes", Volumes={"/data": {}})
    volumes = cli.root / "volumes"
    before = set(os.listdir(volumes)) if volumes.exists() else set()

    removed = cli.run("volumes", "sh", "-c", "cat /data/seed; mount | grep -c ' /data '")
    assert Ended(0, "seed\n1\n", "") == removed
    assert before == set(os.listdir(volumes))

    cli("run", "--network", "none", "--name", "holder", "volumes", "true")
    assert 1 == len(set(os.listdir(volumes)) - before)
    cli("rm", "-v", "holder")
    assert before == set(os.listdir(volumes))


def test_tmpfs(cli: Cli) -> None:
    """--tmpfs and --mount type=tmpfs are in memory, with the options that were asked for."""
    ended = cli.run(
        "--tmpfs", "/a:size=4m,mode=700", "--mount", "type=tmpfs,dst=/b,tmpfs-size=8m,tmpfs-mode=1770",
        "box", "sh", "-c", "stat -c '%a' /a /b; df -k /a /b",
    )  # fmt: skip

    assert ["700", "1770"] == ended.out.split()[:2]
    assert "4096" in ended.out
    assert "8192" in ended.out


# -- signals and life cycle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_signals_are_forwarded(cli: Cli, signum: signal.Signals) -> None:
    """A signal to `pybuild run` arrives once, and what the program makes of it is the exit status."""
    name = signum.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 9' {name}; echo up; while :; do sleep 0.05; done"
    process = cli.start("run", "--rm", "--network", "none", "box", "sh", "-c", script)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    process.send_signal(signum)
    out = read_until(process.stdout.fileno(), b"got")

    assert b"got" in out
    assert 9 == end(process)


def test_killed_caller_takes_the_container_along(cli: Cli) -> None:
    """kill -9 of `pybuild run` ends the container, and the next look cleans up."""
    words = ("run", "--network", "none", "--name", "orphan", "box", "sh", "-c", "echo up; exec sleep 4321")
    process = cli.start(*words)
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")

    end(process, signal.SIGKILL)

    wait_for(lambda: not _runs("sleep 4321"))
    [row] = cli.ps()
    assert ("orphan", "exited", 137) == (row["Names"], row["State"], row["ExitCode"])


def test_killed_caller_with_rm(cli: Cli) -> None:
    """kill -9 of `pybuild run --rm` leaves nothing once somebody looks."""
    process = cli.start("run", "--rm", "--network", "none", "box", "sh", "-c", "echo up; exec sleep 4322")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")

    end(process, signal.SIGKILL)

    assert [] == wait_for(lambda: cli.ps() == [] and [[]])[0]
    assert not _runs("sleep 4322")


def test_detached(cli: Cli) -> None:
    """-d prints the ID and returns; ps, logs, stop and rm know the container by name and by ID."""
    script = "echo out; echo err >&2; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"
    started = cli("run", "-d", "--name", "server", "--network", "none", "box", "sh", "-c", script)
    identity = started.out.strip()
    wait_for(lambda: "err" in cli("logs", "server").err)

    running = cli.ps()
    stopped = cli("stop", identity[:12])
    after = cli.ps()
    logs = cli("logs", "server")
    removed = cli("rm", "server")

    assert (64, 0) == (len(identity), started.status)
    assert [("server", "running")] == [(row["Names"], row["State"]) for row in running]
    assert Ended(0, identity[:12] + "\n", "") == stopped
    assert [("server", "exited", 3)] == [(row["Names"], row["State"], row["ExitCode"]) for row in after]
    assert Ended(0, "out\nbye\n", "err\n") == logs
    assert Ended(0, "server\n", "") == removed
    assert [] == cli.ps()


def test_detached_with_rm(cli: Cli) -> None:
    """A detached container that is to be removed goes by itself."""
    cli("run", "-d", "--rm", "--network", "none", "box", "true")

    wait_for(lambda: cli.ps() == [])


def test_detached_that_cannot_start(cli: Cli) -> None:
    """What keeps a detached container from starting is told by the call that wanted it."""
    ended = cli("run", "-d", "--rm", "--network", "none", "box", "no-such-program")

    assert 127 == ended.status
    assert "no-such-program" in ended.err
    assert "" == ended.out


def test_killed_monitor_takes_the_container_along(cli: Cli) -> None:
    """kill -9 of the supervisor ends a detached container; the next ps records it and frees what it had."""
    cli("run", "-d", "--name", "alone", "--network", "none", "-m", "64m", "box", "sleep", "4323")
    os.kill(_monitor(cli, "alone"), signal.SIGKILL)

    wait_for(lambda: not _runs("sleep 4323"))
    wait_for(lambda: [row["State"] for row in cli.ps()] == ["exited"])  # it is recorded in the supervisor's place
    [row] = cli.ps()
    assert ("alone", "exited", 137) == (row["Names"], row["State"], row["ExitCode"])


def test_stop_kills_what_does_not_listen(cli: Cli) -> None:
    """Process 1 ignores a signal it has no handler for: after -t seconds it is killed."""
    cli("run", "-d", "--name", "deaf", "--network", "none", "box", "sleep", "4324")
    begun = time.monotonic()

    assert 0 == cli("stop", "-t", "1", "deaf").status

    assert 1.0 <= time.monotonic() - begun < 8
    [row] = cli.ps()
    assert 137 == row["ExitCode"]


def test_stop_signal(cli: Cli) -> None:
    """The image's STOPSIGNAL is what stop sends; --stop-signal is stronger."""
    cli.add_image("polite", StopSignal="SIGUSR1")
    script = "trap 'exit 1' USR1; trap 'exit 2' USR2; while :; do sleep 0.05; done"
    cli("run", "-d", "--name", "one", "--network", "none", "polite", "sh", "-c", script)
    cli("run", "-d", "--name", "two", "--network", "none", "--stop-signal", "12", "polite", "sh", "-c", script)
    time.sleep(0.3)

    cli("stop", "one", "two")

    assert {"one": 1, "two": 2} == {row["Names"]: row["ExitCode"] for row in cli.ps()}


def test_rm_of_a_running_container(cli: Cli) -> None:
    """rm refuses what runs, and takes it with -f."""
    cli("run", "-d", "--name", "busy", "--network", "none", "box", "sleep", "4325")

    refused = cli("rm", "busy")
    forced = cli("rm", "-f", "busy", "never-was")

    assert 1 == refused.status
    assert "is running" in refused.err
    assert Ended(0, "busy\n", "") == forced
    assert [] == cli.ps()


def test_names_are_unique(cli: Cli) -> None:
    """Of several that want a name at once one gets it; the others say who has it and leave nothing."""
    racers = [cli.start("run", "-d", "--name", "crown", "--network", "none", "box", "sleep", "60") for _ in range(4)]
    statuses = sorted(end(racer) for racer in racers)

    assert [0, 125, 125, 125] == statuses
    assert ["crown"] == [row["Names"] for row in cli.ps()]


def test_logs(cli: Cli) -> None:
    """A container's output can be read afterwards: whole, its last lines, with times, and while it is written."""
    cli("run", "--network", "none", "--name", "talker", "box", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done")
    slowly = "for i in 1 2 3; do echo $i; sleep 0.2; done"
    cli("run", "-d", "--network", "none", "--name", "slow", "box", "sh", "-c", slowly)

    followed = cli("logs", "-f", "slow")
    tail = cli("logs", "-n", "2", "talker")
    timed = cli("logs", "-t", "--tail", "1", "talker")

    assert "1\n2\n3\n" == followed.out
    assert "line 4\nline 5\n" == tail.out
    assert timed.out.endswith("Z line 5\n")
    assert timed.out.startswith("20")


def test_unknown_container(cli: Cli) -> None:
    """A name that nobody has is an error with a hint, for every command."""
    for words in (("stop", "nobody"), ("kill", "nobody"), ("rm", "nobody"), ("logs", "nobody")):
        ended = cli(*words)

        assert 1 == ended.status
        assert "no such container: nobody" in ended.err


def test_ps(cli: Cli) -> None:
    """ps shows what runs, with -a everything, with -q the IDs."""
    cli("run", "--network", "none", "--name", "done", "box", "sh", "-c", "exit 4")
    running = cli("run", "-d", "--network", "none", "--name", "going", "box", "sleep", "60").out.strip()

    table = cli("ps", "-a").out.splitlines()

    assert Ended(0, running[:12] + "\n", "") == cli("ps", "-q")
    assert Ended(0, running + "\n", "") == cli("ps", "-q", "--no-trunc")
    assert ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] == table[0].split()
    assert "Up " in table[1]
    assert "Exited (4) " in table[2]


def test_gc_spares_what_runs(cli: Cli) -> None:
    """A running container keeps its layers though its image was removed; they go once it has ended."""
    cli.add_image("gone", Labels={"own": "layer"}, marker=b"only here\n")
    script = "echo up; read line; cat /marker"
    process = cli.start("run", "--rm", "-i", "--network", "none", "gone", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdin is not None
    read_until(process.stdout.fileno(), b"up\n")
    trees = set(os.listdir(cli.root / "trees"))

    assert 0 == cli("rmi", "gone").status
    assert 0 == cli("store", "gc").status
    assert trees == set(os.listdir(cli.root / "trees"))
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert b"only here\n" == read_until(process.stdout.fileno(), b"here\n")
    assert 0 == end(process)
    assert 0 == cli("store", "gc").status
    assert 1 == len(trees - set(os.listdir(cli.root / "trees")))


# -- network ------------------------------------------------------------------------------------------------------


def test_published_port(cli: Cli) -> None:
    """A published port of the bridge answers on loopback while the container runs, and not afterwards."""
    import socket
    import urllib.error
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    started = cli("run", "-d", "--rm", "--name", "web", "-p", f"127.0.0.1:{port}:80", "box", "sh", "-c", script)
    assert 0 == started.status, started.err

    def fetch() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError):
            return b""

    assert b"hello\n" == wait_for(fetch)
    assert f"127.0.0.1:{port}->80/tcp" == cli.ps()[0]["Ports"]
    cli("stop", "-t", "0", "web")
    assert b"" == fetch()


def test_killed_monitor_frees_its_network(cli: Cli) -> None:
    """kill -9 of the supervisor of a container on the bridge: the next ps takes its links away."""
    started = cli("run", "-d", "--rm", "--name", "lost", "box", "sleep", "4326")
    assert 0 == started.status, started.err
    os.kill(_monitor(cli, "lost"), signal.SIGKILL)

    wait_for(lambda: cli.ps() == [])


def _runs(command: str) -> bool:
    wanted = command.replace(" ", "\0").encode() + b"\0"
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if Path(f"/proc/{entry}/cmdline").read_bytes() == wanted:
                    return True
            except OSError:
                continue
    return False


def _monitor(cli: Cli, name: str) -> int:
    """The pid of the supervisor of a detached container: whoever has its lock open."""
    identity = next(row["ID"] for row in cli.ps() if row["Names"] == name)
    [path] = (cli.root / "containers").glob(f"{identity}*/lock")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            held = {os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")}
            comm = Path(f"/proc/{entry}/comm").read_text()
        except OSError:
            continue
        if str(path) in held and comm.startswith("pybuild-monitor"):
            return int(entry)
    raise AssertionError(f"{name} has no supervisor")
