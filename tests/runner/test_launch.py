"""Containers from start to end: what the process finds, how it ends, what is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runner import (
    Directory,
    ExitStatus,
    HostNetwork,
    JoinNetwork,
    Launcher,
    LauncherError,
    Mount,
    Overlay,
    ProcessSpec,
    Rlimit,
    SetupError,
    Spec,
    SpecError,
    User,
    default_mounts,
)
from runner.caps import DEFAULT_CAPABILITIES
from runner.spec import ConsoleSize
from tests.runner.conftest import PATH, Bench

pytestmark = pytest.mark.root


def process(bench: Bench, *args: str, **changes: object) -> Spec:
    """Return a container with changes of ProcessSpec's fields."""
    spec = bench.spec(*args)
    return spec._replace(process=spec.process._replace(**changes))  # type: ignore[arg-type]


def test_exit_code_and_output(bench: Bench) -> None:
    """The exit code arrives as it is, and both streams reach the caller."""
    status, text = bench.run(bench.spec("sh", "-c", "echo out; echo err >&2; exit 7"))

    assert (ExitStatus(7, None), "out\nerr\n", 7) == (status, text, status.shell_status)


def test_killed_by_signal(bench: Bench) -> None:
    """A process that a signal ended says so; as pid 1 it is only killed from outside."""
    container = bench.launcher.spawn(bench.spec("sleep", "60"), stdin=0, stdout=1, stderr=2)
    container.signal(signal.SIGKILL)
    status = container.wait(timeout=10)

    assert (ExitStatus(None, 9), 137) == (status, status.shell_status)


def test_wait_times_out_and_repeats(bench: Bench) -> None:
    """Waiting with a timeout raises while the process runs; waiting again returns the same status every time."""
    container = bench.launcher.spawn(bench.spec("sleep", "60"), stdin=0, stdout=1, stderr=2)
    with pytest.raises(TimeoutError):
        container.wait(timeout=0.05)
    container.signal(signal.SIGKILL)

    assert [container.wait(), container.wait()] == [ExitStatus(None, 9)] * 2
    container.signal(signal.SIGTERM)  # nothing there any more: no error


def test_surroundings(bench: Bench) -> None:
    """The process is pid 1 in namespaces of its own, with umask 0022, the given host name and an empty stdin."""
    script = "echo $$; umask; hostname; cat | wc -c; pwd; id -u; ip -o link | grep -c UP"
    text = bench.sh(script, hostname="buildkitsandbox", domainname="example.test")

    assert text.split() == ["1", "0022", "buildkitsandbox", "0", "/", "0", "1"]


def test_namespaces_are_new(bench: Bench) -> None:
    """Every namespace but the user's differs from the caller's; with the host's network that one is shared."""
    names = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done"
    own = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in names]
    private, shared = bench.sh(script).split(), bench.sh(script, network=HostNetwork()).split()

    assert [one for one in private if one in own] == []
    assert own[3:4] == [one for one in shared if one in own]


def test_join_network(bench: Bench) -> None:
    """A container can join the network namespace of another process."""
    with subprocess.Popen(["unshare", "-n", "sleep", "30"]) as other:
        try:
            own = Path("/proc/self/ns/net").readlink()
            while (theirs := Path(f"/proc/{other.pid}/ns/net").readlink()) == own:
                time.sleep(0.01)
            text = bench.sh("readlink /proc/self/ns/net", network=JoinNetwork(f"/proc/{other.pid}/ns/net"))
        finally:
            other.kill()

    assert f"{theirs}\n" == text


def test_loopback_is_up_without_network(bench: Bench) -> None:
    """Without a network there is a loopback device that works."""
    assert "127.0.0.1/8" in bench.sh("ip addr show lo")


def test_hook_runs_between_namespaces_and_mounts(bench: Bench) -> None:
    """The caller is told the pid while the container waits: its network namespace exists, its root does not yet."""
    seen: list[tuple[bool, bool]] = []

    def look(pid: int) -> None:
        net = Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        root = Path(f"/proc/{pid}/root/bin/busybox").exists() and not Path(f"/proc/{pid}/root/home").exists()
        seen.append((net, root))

    container = bench.launcher.spawn(bench.spec("true"), stdin=0, stdout=1, stderr=2, on_namespaces=look)

    assert (ExitStatus(0, None), [(True, False)]) == (container.wait(), seen)


def test_failing_hook_ends_the_container(bench: Bench) -> None:
    """What the hook raises reaches the caller of spawn, and no process stays behind."""
    pids: list[int] = []

    def fail(pid: int) -> None:
        pids.append(pid)
        raise RuntimeError("no address left")

    with pytest.raises(RuntimeError, match="no address left"):
        bench.launcher.spawn(bench.spec("true"), stdin=0, stdout=1, stderr=2, on_namespaces=fail)

    assert not Path(f"/proc/{pids[0]}").exists()


def test_environment_is_bytes_that_need_not_be_utf8(bench: Bench) -> None:
    """Arguments and environment keep bytes that are not UTF-8, and later values win."""
    odd = os.fsdecode(b"\xff\xfe")
    spec = process(
        bench, "sh", "-c", 'test "$0" = "$ODD" && echo "$TWICE"', odd, env=(PATH, f"ODD={odd}", "TWICE=a", "TWICE=b")
    )

    assert (ExitStatus(0, None), "b\n") == bench.run(spec)


@pytest.mark.parametrize(
    ("args", "number", "status"),
    [
        (("nothing-of-that-name",), 2, 127),
        (("/bin/nothing",), 2, 127),
        (("/etc/passwd",), 13, 126),
        (("/etc",), 13, 126),
        (("/etc/passwd/x",), 2, 127),
    ],
)
def test_programs_that_cannot_be_executed(bench: Bench, args: tuple[str, ...], number: int, status: int) -> None:
    """A missing program is ENOENT and 127, one that is not executable EACCES and 126, as docker has it."""
    with pytest.raises(SetupError) as caught:
        bench.run(bench.spec(*args))

    assert ("exec", number, args[0], status) == (
        caught.value.stage,
        caught.value.errno,
        caught.value.path,
        caught.value.exit_status,
    )
    assert caught.value.hint


def test_not_a_program(bench: Bench, base: Path) -> None:
    """A file without #! that is no binary is ENOEXEC."""
    (bench.upper / "garbage").write_bytes(b"\0\1\2\3")
    (bench.upper / "garbage").chmod(0o755)
    with pytest.raises(SetupError) as caught:
        bench.run(bench.spec("/garbage"))

    assert (caught.value.stage, caught.value.errno, caught.value.exit_status) == ("exec", 8, 126)


@pytest.mark.parametrize("script", [False, True])
def test_the_launchers_own_binary_cannot_be_executed(bench: Bench, *, script: bool) -> None:
    """Neither a link to /proc/self/exe nor a script with it as interpreter runs the host's Python inside."""
    program = bench.upper / "program"
    if script:
        program.write_text("#!/proc/self/exe\n")
        program.chmod(0o755)
    else:
        program.symlink_to("/proc/self/exe")
    with pytest.raises(SetupError) as caught:
        bench.run(bench.spec("/program"))

    assert caught.value.stage == "exec"


def test_working_directory(bench: Bench) -> None:
    """The process starts in the given directory; one that is missing is an error of the stage `cwd`."""
    (bench.upper / "here").mkdir()

    assert (ExitStatus(0, None), "/here\n") == bench.run(process(bench, "pwd", cwd="/here"))
    with pytest.raises(SetupError) as caught:
        bench.run(process(bench, "pwd", cwd="/not-here"))
    assert (caught.value.stage, caught.value.errno, caught.value.path) == ("cwd", 2, "/not-here")


def test_user_groups_and_umask(bench: Bench) -> None:
    """The process has exactly the given ids and umask; without uid 0 it has no capabilities."""
    user = User(uid=1000, gid=1001, additional_gids=(10, 20), umask=0o027)
    status, text = bench.run(
        process(bench, "sh", "-c", "id; umask; grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status", user=user)
    )

    assert ExitStatus(0, None) == status
    assert text.split()[:4] == ["uid=1000", "gid=1001", "groups=10,20", "0027"]
    assert text.split()[-5::2] == ["0000000000000000"] * 3


def test_another_user_can_open_its_standard_output(bench: Bench) -> None:
    """/dev/stdout leads to a pipe that a process without privileges may open again."""
    status, text = bench.run(process(bench, "sh", "-c", "echo hello > /dev/stdout", user=User(uid=1000, gid=1000)))

    assert (ExitStatus(0, None), "hello\n") == (status, text)


def test_setuid_programs_work(bench: Bench, tmp_path: Path) -> None:
    """no_new_privs is off as with docker: a setuid program gives its owner's uid. With it on, it does not."""
    programs = tmp_path / "programs"
    programs.mkdir()
    shutil.copy(shutil.which("id") or "id", programs / "id")
    (programs / "id").chmod(0o4755)
    spec = process(bench, "/mnt/id", "-u", user=User(uid=1000, gid=1000))
    mounts = (*default_mounts(), Mount(destination=b"mnt", type="bind", source=str(programs)))
    spec = spec._replace(rootfs=Directory(path=Path("/"), read_only=True), mounts=mounts)
    strict = spec._replace(process=spec.process._replace(no_new_privileges=True))

    assert (ExitStatus(0, None), "0\n") == bench.run(spec)
    assert (ExitStatus(0, None), "1000\n") == bench.run(strict)


def test_resource_limits(bench: Bench) -> None:
    """Limits reach the process, soft and hard."""
    spec = process(
        bench, "sh", "-c", "ulimit -Sn; ulimit -Hn", rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=100, hard=200),)
    )

    assert (ExitStatus(0, None), "100\n200\n") == bench.run(spec)


def test_resource_limit_that_cannot_be_had(bench: Bench) -> None:
    """A limit that makes no sense is an error with its name."""
    spec = process(bench, "true", rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=200, hard=100),))
    with pytest.raises(SetupError) as caught:
        bench.run(spec)

    assert (caught.value.stage, caught.value.path) == ("limits", "RLIMIT_NOFILE")


def test_no_path_no_program(bench: Bench) -> None:
    """Without PATH only a program with a slash is found."""
    with pytest.raises(SetupError) as caught:
        bench.run(process(bench, "true", env=()))

    assert (caught.value.stage, caught.value.errno) == ("exec", 2)
    assert bench.run(process(bench, "/bin/true", env=())) == (ExitStatus(0, None), "")


def test_oom_score(bench: Bench) -> None:
    """The OOM score adjustment reaches the process."""
    assert (ExitStatus(0, None), "500\n") == bench.run(
        process(bench, "cat", "/proc/self/oom_score_adj", oom_score_adj=500)
    )


def test_sysctl(bench: Bench) -> None:
    """A namespaced kernel parameter is set; one of the whole host is refused before anything starts."""
    assert bench.sh("cat /proc/sys/kernel/msgmax", sysctl=(("kernel.msgmax", "12345"),)) == "12345\n"
    with pytest.raises(SpecError, match="sysctl kernel"):
        bench.run(bench.spec("true", sysctl=(("kernel.panic", "1"),)))


def test_background_processes_end_with_the_first(bench: Bench) -> None:
    """What a step leaves running dies with it, and wait returns only then."""
    script = "sleep 987654 & sleep 987655 & exit 0"
    bench.sh(script)
    left = subprocess.run(["pgrep", "-f", "sleep 98765[45]"], capture_output=True, text=True, check=False).stdout

    assert left == ""


def test_init_reaps_and_forwards(bench: Bench) -> None:
    """With init the program is not pid 1; signals reach it, and its exit code is the container's."""
    status, text = bench.run(bench.spec("sh", "-c", "echo $$; exit 5", init=True))
    assert (ExitStatus(5, None), True) == (status, int(text) > 1)

    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    read, write = os.pipe()
    with open(read, "rb") as output:
        container = bench.launcher.spawn(bench.spec("sh", "-c", script, init=True), stdin=0, stdout=write, stderr=2)
        os.close(write)
        assert output.readline() == b"ready\n"
        container.signal(signal.SIGTERM)
        assert ExitStatus(9, None) == container.wait(timeout=10)


def test_terminal(bench: Bench) -> None:
    """The process gets a controlling terminal of the given size; the caller can resize it and has the other side."""
    script = "tty; stty size; test -c /dev/console && echo console; read line; stty size; echo $line > /dev/tty"
    spec = process(bench, "sh", "-c", script, terminal=True, console_size=ConsoleSize(height=33, width=111))
    container = bench.launcher.spawn(spec, stdin=-1, stdout=-1, stderr=-1)
    terminal = container.terminal
    assert terminal is not None
    text = b""
    with open(terminal, "r+b", buffering=0) as master:
        while b"console" not in text:
            text += master.read(1024)
        container.resize(44, 122)
        master.write(b"typed\n")
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while piece := master.read(1024):
                text += piece
        container.terminal = None

    assert ExitStatus(0, None) == container.wait(timeout=10)
    assert text.decode().split() == ["/dev/pts/0", "33", "111", "console", "typed", "44", "122", "typed"]


def test_no_descriptor_of_the_launcher_is_inherited(bench: Bench) -> None:
    """A container has its three streams and nothing else."""
    assert bench.sh("ls /proc/self/fd") == "0\n1\n2\n3\n"  # 3 is the directory that ls reads


def test_a_reaper_holds_nothing(bench: Bench) -> None:
    """The pid 1 of --init is a fork of the launcher; not even a tracer finds the launcher's descriptors in it."""
    spec = bench.spec("/bin/sh", "-c", "ls /proc/1/fd; echo $$", init=True)
    spec = spec._replace(process=spec.process._replace(capabilities=DEFAULT_CAPABILITIES | {"CAP_SYS_PTRACE"}))
    assert (ExitStatus(0, None), "2\n") == bench.run(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"args": ("/bin/true", "a\0b")}, "zero byte"),
        ({"env": ("A=a\0b",)}, "zero byte"),
        ({"env": ("=a",)}, "without a name"),
        ({"cwd": "/\0"}, "zero byte"),
    ],
)
def test_what_no_kernel_takes(bench: Bench, change: dict[str, Any], message: str) -> None:
    """Arguments, variables and paths that cannot be passed on are told before anything starts."""
    spec = bench.spec("/bin/true")
    with pytest.raises(SpecError, match=message):
        bench.run(spec._replace(process=spec.process._replace(**change)))


def test_many_threads_at_once(launcher: Launcher, base: Path, tmp_path: Path) -> None:
    """Threads can spawn and wait beside each other; every one gets its own status."""
    results: dict[int, ExitStatus] = {}

    def one(number: int) -> None:
        upper, work = tmp_path / f"u{number}", tmp_path / f"w{number}"
        upper.mkdir()
        work.mkdir()
        spec = Spec(
            rootfs=Overlay(lowers=(base,), upper=upper, work=work),
            process=ProcessSpec(args=("sh", "-c", f"sleep 0.1; exit {number}"), env=(PATH,)),
        )
        results[number] = launcher.spawn(spec, stdin=0, stdout=1, stderr=2).wait()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {number: ExitStatus(number, None) for number in range(12)} == results


def test_closing_kills_what_runs(base: Path, tmp_path: Path) -> None:
    """Closing the launcher ends its containers; the launcher itself is reaped."""
    spec = Spec(rootfs=Directory(path=base, read_only=True), process=ProcessSpec(args=("sleep", "60"), env=(PATH,)))
    launcher = Launcher.start()
    container = launcher.spawn(spec, stdin=0, stdout=1, stderr=2)
    launcher.close()
    launcher.close()

    assert ExitStatus(None, 9) == container.wait(timeout=5)
    assert not Path(f"/proc/{launcher.pid}").exists()
    with pytest.raises(LauncherError):
        launcher.spawn(spec, stdin=0, stdout=1, stderr=2)


PARENT = """
    import sys, time
    from pathlib import Path
    from runner import Directory, Launcher, ProcessSpec, Spec
    launcher = Launcher.start(in_process=bool(int(sys.argv[2])))
    spec = Spec(rootfs=Directory(path=Path(sys.argv[1])), process=ProcessSpec(args=("/bin/sleep", "60")))
    print(launcher.pid, launcher.spawn(spec, stdin=0, stdout=1, stderr=2).pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("in_process", [0, 1])
@pytest.mark.parametrize("victim", ["caller", "launcher"])
def test_nothing_outlives_its_parent(base: Path, victim: str, in_process: int) -> None:
    """Killing the caller, or the launcher, with SIGKILL takes launcher and containers along."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(base), str(in_process)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        launcher, container = map(int, parent.stdout.readline().split())
        os.kill(parent.pid if victim == "caller" else launcher, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while _alive(container) or (victim == "caller" and _alive(launcher)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        parent.kill()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_interpreter_cannot_be_written_through_a_container(launcher: Launcher) -> None:
    """/proc/PID/exe of launcher and containers leads to a read-only mount, for root too (CVE-2019-5736)."""
    # Opening it for writing says ETXTBSY for as long as any process runs it, so the mount itself is asked.
    flags = os.statvfs(f"/proc/{launcher.pid}/exe").f_flag

    assert flags & os.ST_RDONLY
    assert not os.statvfs(os.path.realpath(sys.executable)).f_flag & os.ST_RDONLY


def test_killed_while_it_is_set_up(bench: Bench) -> None:
    """A container that is killed during its setup is an error of its own, whatever the hook does afterwards."""
    with pytest.raises(LauncherError, match="killed while it was set up"):
        bench.launcher.spawn(
            bench.spec("true"),
            stdin=0,
            stdout=1,
            stderr=2,
            on_namespaces=lambda pid: os.kill(pid, signal.SIGKILL),
        )


def test_a_process_with_threads_is_not_forked(base: Path) -> None:
    """Asked for a fork in a process with threads, the launcher is a fresh interpreter all the same."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with Launcher.start(in_process=True) as launcher:
            spec = Spec(rootfs=Directory(path=base, read_only=True), process=ProcessSpec(args=("true",), env=(PATH,)))
            status = launcher.spawn(spec, stdin=0, stdout=1, stderr=2).wait()
            command = Path(f"/proc/{launcher.pid}/cmdline").read_bytes()
    finally:
        stop.set()
        thread.join()

    assert (status, b"launcher.py" in command) == (ExitStatus(0, None), True)


def test_lost_launcher_is_an_error(base: Path) -> None:
    """A launcher that is killed turns waiting into an error with a message."""
    spec = Spec(rootfs=Directory(path=base, read_only=True), process=ProcessSpec(args=("sleep", "60"), env=(PATH,)))
    launcher = Launcher.start()
    container = launcher.spawn(spec, stdin=0, stdout=1, stderr=2)
    os.kill(launcher.pid, signal.SIGKILL)
    with pytest.raises(LauncherError, match="ended"):
        container.wait(timeout=5)
    launcher.close()


def test_launcher_imports_little() -> None:
    """What the launcher loads is pinned: every module is paid for by each build that runs something."""
    code = "import sys; sys.path.append('.'); import runner.launcher; print(*sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    added = sorted(set(output.split()) - set(bare.stdout.split()))

    ours = sorted({name for name in added if not name.startswith("runner")})

    assert sorted(PINNED) == ours
    assert [name for name in PINNED if name in {"dataclasses", "enum", "re", "socket", "signal", "typing"}] == []


# Extension modules are built in or loaded, as the interpreter was compiled: both look the same here.
PINNED = [
    "__future__",
    "_collections",
    "_collections_abc",
    "_ctypes",
    "_operator",
    "_socket",
    "_stat",
    "_struct",
    "array",
    "collections",
    "collections.abc",
    "ctypes",
    "ctypes._endian",
    "errno",
    "fcntl",
    "gc",
    "genericpath",
    "itertools",
    "keyword",
    "operator",
    "os",
    "os.path",
    "posixpath",
    "reprlib",
    "resource",
    "select",
    "stat",
    "struct",
    "types",
]
