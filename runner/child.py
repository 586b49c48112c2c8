"""The story of a container's first process, from the fork in the launcher to its exec.

The order is fixed: cgroup → namespaces → mounts → pivot → masked paths → streams → seccomp → capabilities → user →
exec. Standard library only, and little of it: every import is paid when a launcher starts.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import resource
import select
import stat
import sys

from runner import caps, mounts, overlay, rights, rootfs, syscalls
from runner.furniture import Furniture

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signals
    import socket as sockets
    from typing import Any, NoReturn
else:  # what the modules above are made of, without the enums that take longer to load than all else here
    import _signal as signals
    import _socket as sockets

_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWCGROUP
MOST_FDS = 7
"""Descriptors with one request: its channel, where its end is told, three streams, a network namespace, a group."""

_SI_KERNEL = 0x80
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_TIOCSCTTY, _TIOCSWINSZ, _TIOCSPTLCK, _TIOCGPTPEER = 0x540E, 0x5414, 0x40045431, 0x5441


class Failure(Exception):
    """A setup step that did not work out, without the kernel having refused it."""


class Channel:
    """The socket to the caller: messages are a length in 4 bytes and that many bytes of marshal."""

    def __init__(self, sock: sockets.socket) -> None:
        self._sock = sock

    def receive(self, size: int) -> bytes:
        """Return exactly `size` bytes; EOFError if the caller is gone."""
        data = bytearray()
        while len(data) < size:
            piece = self._sock.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def plan(self) -> dict[str, Any]:
        """Return the plan that the caller sent."""
        plan: dict[str, Any] = marshal.loads(self.receive(int.from_bytes(self.receive(4), "little")))
        return plan

    def send(self, *values: object, fd: int | None = None) -> None:
        """Tell the caller something, with a descriptor."""
        data = marshal.dumps(values)  # type: ignore[arg-type]  # the callers send plain values only
        rights.send(self._sock, len(data).to_bytes(4, "little") + data, [] if fd is None else [fd])

    def close(self) -> None:
        """Close it."""
        self._sock.close()


def become(channel_fd: int, stdio: list[int], netns: int | None, launcher: int, *, grouped: bool) -> NoReturn:
    """Turn this fresh fork, pid 1 of a new pid namespace, into the container that the caller describes on the channel.

    `launcher` is a pidfd of the launcher; `grouped` says that it was born in its version 2 group. Does not return: a
    failure is reported as (stage, errno, path) and ends it.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signals.SIGKILL)
    channel = Channel(sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM, 0, channel_fd))
    _go(Container(channel, stdio, netns, Place(), grouped=grouped), launcher)


def become_later(hatch: sockets.socket, network: str, furniture: bytes, netns: int | None, launcher: int) -> NoReturn:
    """Do what `become` does, beginning with what needs no plan: namespaces on `network` and `furniture`.

    Channel and streams of the container come through `hatch`, the plan as always; both of these are then the plan's.
    """
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signals.SIGKILL)
    place = Place()
    place.prepare(network, netns, marshal.loads(furniture))
    _, fds = rights.receive(hatch, 1, MOST_FDS)
    if not fds:
        os._exit(125)
    hatch.close()
    channel_fd, *stdio = fds
    channel = Channel(sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM, 0, channel_fd))
    _go(Container(channel, stdio, None, place, grouped=False), launcher)


def _go(container: Container, launcher: int) -> NoReturn:
    channel = container.channel
    try:
        container.make(launcher)
    except OSError as error:
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        text = str(error.strerror or error)
        channel.send("error", container.stage, error.errno or 0, path, text, container.stubs)
    except Failure as failure:
        channel.send("error", container.stage, 0, "", str(failure), container.stubs)
    except EOFError:
        pass
    except BaseException as error:  # noqa: BLE001  (a bug must reach the caller, who would wait for ever)
        channel.send("error", container.stage, 0, "", f"BUG: {type(error).__name__}: {error}", container.stubs)
    os._exit(125)


class Place:
    """Where a container will be: its namespaces and the mounts that most have; made once, before its root is.

    What goes wrong may have to wait until there is somebody to tell: `raise_failure`.
    """

    def __init__(self) -> None:
        self.stage = "namespaces"
        self.cgroup_paths: dict[bytes, bytes] = {}
        self.furniture = Furniture()
        self._prepared = False
        self._failure: OSError | None = None

    def prepare(self, network: str, netns: int | None, furniture: dict[str, Any]) -> None:
        """Enter the namespaces and make the mounts, unless that was done."""
        if self._prepared:
            return
        self._prepared = True
        try:
            self.cgroup_paths = _cgroup_paths()
            _enter_namespaces(network, netns)
            self.stage = "mounts"
            os.umask(0)  # modes of nodes and mount points are meant as given
            self.furniture.make(furniture, self.cgroup_paths)
        except OSError as error:
            self._failure = error

    def raise_failure(self) -> None:
        """Raise the OSError that `prepare` met."""
        if self._failure is not None:
            raise self._failure


class Container:
    """The setup of one container; `stage` is where it is."""

    def __init__(self, channel: Channel, stdio: list[int], netns: int | None, place: Place, *, grouped: bool) -> None:
        self.stage = "start"
        self.stubs: list[rootfs.Stub] = []
        self.channel = channel
        self._stdio = stdio
        self._netns = netns
        self._place = place
        self._grouped = grouped
        self._plan: dict[str, Any] = {}

    def make(self, launcher: int) -> NoReturn:
        """Go through all stages."""
        signals.signal(signals.SIGPIPE, signals.SIG_DFL)  # which the launcher ignores, and exec would keep
        signals.pthread_sigmask(signals.SIG_SETMASK, ())
        plan = self._plan = self.channel.plan()
        os.setsid()
        self._enter("cgroup")
        self._cgroup()
        self._enter("namespaces")
        self._namespaces()
        self._enter("mounts")
        root = self._mounts()
        self._enter("pivot")
        sys.path.clear()  # from here on an import would execute what the image brings
        rootfs.pivot(root)
        self._enter("masked paths")
        for key, value in plan["sysctl"]:
            _write(b"/proc/sys/" + key.replace(b".", b"/"), value)
        rootfs.make_read_only(root, plan["readonly_paths"])
        rootfs.mask(root, plan["masked_paths"])
        self._enter("stdio")
        self._standard_streams(root)
        if plan["read_only"]:
            syscalls.mount_setattr(root.fd, recursive=False, set_=syscalls.MOUNT_ATTR_RDONLY)
        os.close(root.fd)
        self._enter("cwd")
        entered = _change_directory(plan["cwd"], retry=True)
        self._limits()
        self._confine()
        self._enter("cwd")
        if not entered:
            _change_directory(plan["cwd"], retry=False)
        self._enter("exec")
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signals.SIGKILL)  # changing ids has cleared it
        if _ended(launcher):
            os._exit(125)
        self._execute()

    def _enter(self, stage: str) -> None:
        self.stage = stage
        syscalls.set_process_name(b"pybuild:" + stage.encode()[:7])

    def _cgroup(self) -> None:
        """Join the cgroups, before the namespace that makes them the visible root."""
        groups, unified = self._plan["cgroups"]
        join(groups, b"" if self._grouped else unified)
        if self._plan["oom_score_adj"] is not None:
            _write(b"/proc/self/oom_score_adj", b"%d" % self._plan["oom_score_adj"])

    def _namespaces(self) -> None:
        plan = self._plan
        self._place.prepare(plan["network"], self._netns, plan["furniture"])
        self.stage = self._place.stage
        self._place.raise_failure()
        if plan["hostname"]:
            syscalls.sethostname(plan["hostname"])
        if plan["domainname"]:
            syscalls.setdomainname(plan["domainname"])
        if plan["hook"]:
            self.channel.send("namespaces")
            self.channel.receive(1)

    def _mounts(self) -> rootfs.Root:
        plan = self._plan
        lowers, upper, work = plan["lowers"], plan["upper"], plan["work"]
        if lowers:
            mounted = overlay.overlay(lowers, upper, work, user_xattr=plan["user_xattr"])
        else:
            mounted = syscalls.open_tree(syscalls.AT_FDCWD, upper, recursive=plan["recursive"])
            syscalls.mount_setattr(mounted, recursive=plan["recursive"], set_=0, propagation=syscalls.MS_PRIVATE)
        # An overlay is put over its work directory, so that upper stays to be seen; any place of the host would do.
        place, changes = (work, upper) if lowers else (upper, b"")
        root = rootfs.Root(mounted, place, changes, self._place.cgroup_paths)
        self.stubs = root.stubs
        self._place.furniture.move_to(root)
        for values in plan["mounts"]:
            mounts.from_wire(values).execute(root)
        self.stubs = root.stubs = [stub for stub in root.stubs if stub[0] not in plan["kept_points"]]
        return root

    def _standard_streams(self, root: rootfs.Root) -> None:
        plan = self._plan
        if not plan["terminal"]:
            for target, source in enumerate(self._stdio):
                os.dup2(source, target)
                _give_pipe(target, plan["uid"])
            return
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
        # The slave by ioctl, not by name: nothing in the image can stand in for it.
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        if plan["console_size"]:
            rows, columns = plan["console_size"]
            size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
            fcntl.ioctl(slave, _TIOCSWINSZ, size)
        os.fchown(slave, plan["uid"], -1)
        tree = syscalls.open_tree(syscalls.AT_FDCWD, b"/proc/self/fd/%d" % slave, recursive=False)
        root.attach(tree, b"dev/console", directory=False)
        os.close(tree)
        for target in range(3):
            os.dup2(slave, target)
        fcntl.ioctl(0, _TIOCSCTTY, 0)
        self.channel.send("terminal", fd=master)
        os.close(master)
        if slave > 2:
            os.close(slave)

    def _limits(self) -> None:
        os.umask(self._plan["umask"])
        if self._plan["rlimits"]:
            self._enter("limits")
            for number, name, soft, hard in self._plan["rlimits"]:
                try:
                    resource.setrlimit(number, (soft, hard))
                except ValueError as error:  # what Python makes of EPERM and EINVAL
                    raise OSError(errno.EPERM, f"{error}", name) from None

    def _confine(self) -> None:
        """Filter, capabilities, user. Without no_new_privs a filter needs CAP_SYS_ADMIN and goes first; else last."""
        plan = self._plan
        filtered_last = plan["no_new_privileges"]
        if plan["seccomp"] and not filtered_last:
            self._enter("seccomp")
            _install_filter(plan["seccomp"])
        self._enter("capabilities")
        wanted = plan["capabilities"] & caps.supported()
        caps.limit_bounding(wanted)
        self._enter("user")
        os.setgroups(plan["groups"])
        os.setresgid(plan["gid"], plan["gid"], plan["gid"])
        # Leaving uid 0 clears the permitted and effective sets; docker gives other users none either.
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
        if os.getresuid() != (plan["uid"],) * 3 or os.getresgid() != (plan["gid"],) * 3:
            raise Failure("the user ids differ from what was set")
        self._enter("capabilities")
        caps.limit(wanted if plan["uid"] == 0 else 0)
        if filtered_last:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            if not syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS):
                raise Failure("no_new_privs is not set")
            if plan["seccomp"]:
                self._enter("seccomp")
                _install_filter(plan["seccomp"])

    def _execute(self) -> NoReturn:
        self.channel.send("ready", self.stubs)
        syscalls.close_range(3, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)
        if self._plan["init"]:
            # Blocked before there is anyone to pass them on to: pid 1 loses what comes while it has no handler.
            signals.pthread_sigmask(signals.SIG_BLOCK, signals.valid_signals())
            child = os.fork()
            if child:
                self.channel.close()
                _reap(child)
            signals.pthread_sigmask(signals.SIG_SETMASK, ())
        _execute(self._plan["args"], dict(self._plan["env"]))


def join(groups: tuple[bytes, ...], unified: bytes) -> None:
    """Move this process, which has one thread, into groups of version 1 and, unless it is empty, one of version 2.

    cgroups(7): where a thread moves itself alone the kernel waits for nothing; for a process, which version 2 insists
    on, it waits until every CPU has passed a quiet state, 5 to 20 ms.
    """
    for directory in groups:
        _write(directory + b"/tasks", b"0")
    if unified:
        _write(unified + b"/cgroup.procs", b"0")


def _enter_namespaces(network: str, netns: int | None) -> None:
    """Enter namespaces of one's own, and the network's: `none`, or that of the descriptor `netns`."""
    new_network = 0 if network != "none" else syscalls.CLONE_NEWNET
    if netns is not None:
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        os.close(netns)
    syscalls.unshare(_NAMESPACES | new_network)
    # Nothing mounted here may reach the host; what the host unmounts is let go here too.
    syscalls.mount(None, b"/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    if new_network:
        _loopback_up()


def _cgroup_paths() -> dict[bytes, bytes]:
    """Return where this process is in each hierarchy (cgroups(7), /proc/PID/cgroup)."""
    with open("/proc/self/cgroup", "rb") as file:
        entries = [line.rstrip(b"\n").split(b":", 2) for line in file]
    return {name: path.rstrip(b"/") for _, name, path in entries}


def _write(path: bytes, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def _loopback_up() -> None:
    with _InetSocket() as sock:
        request = b"lo".ljust(16, b"\0") + bytes(24)
        flags = int.from_bytes(fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, request)[16:18], "little") | _IFF_UP
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, b"lo".ljust(16, b"\0") + flags.to_bytes(2, "little") + bytes(22))


class _InetSocket:
    """A datagram socket for ioctls."""

    def __enter__(self) -> sockets.socket:
        self._sock = sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC)
        return self._sock

    def __exit__(self, *_: object) -> None:
        self._sock.close()


def _give_pipe(fd: int, uid: int) -> None:
    """Let the container's user open /dev/stdout: opening a pipe through /proc asks for the owner (as runc does)."""
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode) and status.st_uid != uid:
        try:
            os.fchown(fd, uid, -1)
        except PermissionError:
            return


def _change_directory(path: bytes, *, retry: bool) -> bool:
    """Enter the working directory; with `retry`, False if only the container's user may."""
    try:
        os.chdir(path)
    except PermissionError:
        if retry:
            return False
        raise
    # A working directory such as /proc/self/fd/7 would lead to whatever this process holds of the host.
    if not os.getcwdb().startswith(b"/"):
        raise OSError(errno.EACCES, "is not inside the container's root filesystem", path)
    return True


def _install_filter(program: bytes) -> None:
    syscalls.seccomp(program)
    with open("/proc/self/status", "rb") as file:
        if b"\nSeccomp:\t2\n" not in file.read():
            raise Failure("the filter is not in force")


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _execute(args: tuple[bytes, ...], env: dict[bytes, bytes]) -> NoReturn:
    """Execute args[0], looked up on the container's PATH as execvp(3) does; OSError names it as it was written."""
    name = args[0]
    if b"/" in name:
        candidates = [name]
    else:
        path = env.get(b"PATH")
        candidates = [(part or b".") + b"/" + name for part in path.split(b":")] if path else []
    reason = errno.ENOENT
    for candidate in candidates:
        try:
            _refuse_magic_link(candidate)
            os.execve(candidate, args, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            reason = errno.EACCES
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from None
    raise OSError(reason, os.strerror(reason), name)


def _refuse_magic_link(path: bytes) -> None:
    """Refuse a program that is /proc/self/exe or the like: the host's interpreter would run inside (CVE-2019-5736)."""
    for _ in range(6):  # a script, its interpreter, and as many levels as the kernel follows
        fd = syscalls.openat2(syscalls.AT_FDCWD, path, os.O_PATH, syscalls.RESOLVE_NO_MAGICLINKS)
        os.close(fd)
        try:
            with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                head = file.read(256) or b""
        except OSError:
            return  # not readable, or not a file: exec has the last word
        if not head.startswith(b"#!"):
            return
        words = head[2:].partition(b"\n")[0].split(maxsplit=1)
        if not words:
            return
        path = words[0]


def _reap(child: int) -> NoReturn:
    """Be pid 1 beside the program: collect orphans, pass signals on, end as it ends."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # or the container could reach the interpreter through /proc/1
    syscalls.close_range(0, 0xFFFFFFFF, 0)  # the launcher's sockets, namespaces and pidfds among them
    everything = signals.valid_signals()
    while True:
        info = signals.sigwaitinfo(everything)
        if info.si_signo != signals.SIGCHLD:
            if info.si_code != _SI_KERNEL:  # what the terminal sends goes to the program anyway
                os.kill(child, info.si_signo)
            continue
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
            if pid == 0:
                break
