"""One RUN: its container's spec, its mounts, its output, and the layer it leaves.

It knows the store's uppers and the runner's specs; which step runs when, and what is cached, is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import select as polling
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, assert_never

from builder.cachemounts import CacheMounts
from builder.copy import CopySpec, PathSource, plan_copy, plan_mkdir, select
from builder.errors import BuildError, Canceled, LocatedError, StepFailed
from builder.events import Event, Log, Warned
from builder.filetree import FileTree, clean
from builder.graph import Vertex
from builder.image import go_quote
from builder.network import BuildNetwork
from builder.ops import BindMount, CacheMount, ContextOp, RunOp, SecretMount, SshMount, TmpfsMount
from builder.solve import Result
from builder.steps import PIPES
from builder.ulimits import parse_ulimit
from builder.users import User, lookup_user
from builder.writetree import write_tree
from grammar import Diagnostic
from layerstore import DiffId, Store
from layerstore.entry import Kind

if TYPE_CHECKING:
    from builder.redact import Redactor
    from layerstore import Upper, View
    from layerstore.lowers import Lowers
    from runner import AnyMount, Launcher, Process, RunnerError, Spec
    from runner.cdi import Devices
    from runner.devices import DeviceGroup

_READ = 1 << 16
_TAIL = 20


class SecretMissing(BuildError):
    """A step requires a secret that the build was not given."""

    code = "secret"


class Inputs(Protocol):
    """What a step asks for what its inputs yielded (`builder.execute.Executor`)."""

    def view(self, layers: tuple[DiffId, ...]) -> View:
        """Return the merged view of a chain of layers."""

    def tree(self, vertex: Vertex, result: Result) -> FileTree:
        """Return what `vertex` yielded as a tree of files."""

    def materialise(self, vertex: Vertex, result: Result, source: str) -> Path:
        """Return where on the host `source` of a context lies."""


class RunSteps:
    """Executes the RUNs of one build. The launcher and the network start with the first of them."""

    def __init__(
        self,
        *,
        store: Store,
        network: BuildNetwork,
        logs: Path,
        clock: Callable[[], float],
        secrets: Mapping[str, bytes] = MappingProxyType({}),
        ssh: Mapping[str, Path] = MappingProxyType({}),
        cache_namespace: str = "",
        cdi_directories: tuple[Path, ...] = (),
    ) -> None:
        """`secrets` map ids to values, `ssh` ids to sockets of agents.

        `logs` is the directory where output is kept whole, `cdi_directories` is where devices are described.
        """
        self.store = store
        self.network = network
        self.logs = logs
        self.clock = clock
        self.secrets = secrets
        self.ssh = ssh
        self.cache_namespace = cache_namespace
        self.cdi_directories = cdi_directories
        self._launchers: dict[tuple[str, ...] | None, Launcher] = {}
        self._groups: list[DeviceGroup] = []
        self._known_devices: Devices | None = None
        self._scratch: Upper | None = None
        self._lowers: Lowers | None = None
        self._running: set[Process] = set()
        self._canceled = False
        self._left = 0
        self._begun: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._starting = threading.Lock()

    def run(
        self,
        vertex: Vertex,
        op: RunOp,
        inputs: Sequence[Result],
        read: Inputs,
        emit: Callable[[Event], None],
    ) -> DiffId:
        """Execute `op` on its first input and return the diff ID of what it changed. StepFailed if it ends badly."""
        below = inputs[0].layers
        view = read.view(below)
        upper = self.store.layers.prepare(view)
        with contextlib.ExitStack() as held:
            held.callback(self.store.layers.discard, upper)
            user = self._user(op, view)
            self._make_cwd(op, view, upper)
            mounts, env = self._mounts(vertex, op, inputs, read, held)
            spec = self._spec(op, view, upper, user, mounts, env)
            rules: tuple[str, ...] | None = ()
            if op.devices:
                spec, rules = self._with_devices(vertex, spec, emit)
            # Unconfined steps may use every device.
            self._execute(vertex, op, spec, None if op.security == "insecure" else rules, emit)
            return self.store.layers.commit(upper, view).diff_id

    def check_devices(self, vertices: Sequence[Vertex]) -> None:
        """Raise LocatedError if one of these RUNs asks for a device that it cannot have."""
        from builder.devices import check  # noqa: PLC0415 - few commands need a device

        check(vertices, self._devices())

    def begin(self, ops: Collection[RunOp]) -> None:
        """Start what the first of `ops` needs, which are all that may have to run, in threads of its own.

        Much of that is waiting for the kernel. What goes wrong is told to the step that needs it.
        """
        from runner.background import start  # noqa: PLC0415

        self._left = sum(op.security != "insecure" and not op.devices for op in ops)
        self.network.begin({op.network for op in ops})
        if self._begun is None and self._left:
            self._begun = start(self._attempt)

    def _attempt(self) -> None:
        from runner.errors import RunnerError  # noqa: PLC0415

        with contextlib.suppress(RunnerError):
            self._start(())

    def cancel(self) -> None:
        """Kill what runs; nothing more is started."""
        with self._lock:
            self._canceled = True
            running = list(self._running)
        for process in running:
            process.signal(signal.SIGKILL)

    def close(self) -> None:
        """End the launcher and take the network away; safe to repeat."""
        if self._begun is not None:
            self._begun()
        with self._starting:
            launchers, self._launchers = self._launchers, {}
            groups, self._groups = self._groups, []
        for launcher in launchers.values():
            launcher.close()
        for group in groups:
            group.remove()
        self.network.close()
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            self.store.layers.discard(scratch)
        lowers, self._lowers = self._lowers, None
        if lowers is not None:
            lowers.close()

    # -- before ---------------------------------------------------------------------------------------------------

    def _user(self, op: RunOp, view: View) -> User:
        try:
            return lookup_user(view, op.user)
        except BuildError as error:
            message = f"process {go_quote(' '.join(op.args))} did not complete successfully: {error.message}"
            raise type(error)(message, hint=error.hint) from error

    def _make_cwd(self, op: RunOp, view: View, upper: Upper) -> None:
        """Make the working directory in the step's own upper if an earlier step removed it: it stays in the layer."""
        path = view.resolve(os.fsencode(op.cwd))
        found = view.lstat(path)
        if found is not None:
            if found.kind is not Kind.DIR:
                raise BuildError(f"mkdir {op.cwd}: not a directory", hint="choose another WORKDIR")
            return
        made = int(self.clock() * 1e9)
        write_tree(plan_mkdir(os.fsencode(op.cwd), "", view, created_ns=made).entries(), upper.path)

    def _spec(
        self, op: RunOp, view: View, upper: Upper, user: User, mounts: list[AnyMount], env: dict[str, str]
    ) -> Spec:
        from runner import Mount, Overlay, ProcessSpec, Spec, default_mounts, privileged  # noqa: PLC0415
        from runner import User as Ids  # noqa: PLC0415 - nothing of the runner is loaded for a cached build
        from runner.spec import DEFAULT_SHM_SIZE  # noqa: PLC0415

        environment = dict(pair.partition("=")[::2] for pair in op.env)
        for pair in op.proxies:
            name, _, value = pair.partition("=")
            environment.setdefault(name, value)
        agent = environment.get("SSH_AUTH_SOCK")
        environment.update(env)
        if agent is not None:
            environment["SSH_AUTH_SOCK"] = agent
        if not environment.get("HOME"):  # empty is none, as with runc
            environment["HOME"] = user.home
        files = tuple(
            Mount(destination=name, type="bind", source=str(path), options=("ro",))
            for name, path in ((b"etc/hosts", self._hosts(op)), (b"etc/resolv.conf", self._resolv(op)))
        )
        process = ProcessSpec(
            args=op.args,
            env=tuple(f"{name}={value}" for name, value in environment.items()),
            cwd=op.cwd,
            user=Ids(uid=user.uid, gid=user.gid, additional_gids=user.additional_gids),
            rlimits=tuple(parse_ulimit(text) for text in op.ulimits),
        )
        spec = Spec(
            rootfs=Overlay(lowers=self._directories(view), upper=upper.path, work=upper.work),
            process=process,
            hostname=op.hostname,
            mounts=(*default_mounts(shm_size=op.shm_size or DEFAULT_SHM_SIZE), *files, *mounts),
            network=self.network.get(op.network),
        )
        return privileged(spec) if op.security == "insecure" else spec

    def _directories(self, view: View) -> tuple[Path, ...]:
        """Return what to mount for a step on `view`, topmost first."""
        from runner.overlay import MAX_LAYERS  # noqa: PLC0415 - as above

        if len(view.trees) > MAX_LAYERS:
            return view.trees[::-1]  # refused, as it is by every command
        with self._lock:
            if self._lowers is None:
                self._lowers = self.store.layers.lowers()
        return self._lowers.of(view)

    def _devices(self) -> Devices:
        """The devices of the host, looked up once."""
        from runner.cdi import Devices  # noqa: PLC0415 - few commands need a device

        with self._lock:
            if self._known_devices is None:
                self._known_devices = Devices.load(self.cdi_directories)
            return self._known_devices

    def _with_devices(self, vertex: Vertex, spec: Spec, emit: Callable[[Event], None]) -> tuple[Spec, tuple[str, ...]]:
        """Return `spec` with the step's devices, and the rules for opening them."""
        from builder.devices import give  # noqa: PLC0415 - few commands need a device

        injected, warnings = give(vertex, spec, self._devices())
        for warning in warnings:
            emit(Warned(vertex=vertex.id, diagnostic=warning))
        return injected

    def _hosts(self, op: RunOp) -> Path:
        from runner.hosts import step_hosts  # noqa: PLC0415

        return self._file("hosts", step_hosts(op.hostname, extra=op.extra_hosts))

    def _resolv(self, op: RunOp) -> Path:
        from builder.resolv import read_resolv_conf  # noqa: PLC0415
        from runner.hosts import resolv_conf  # noqa: PLC0415

        text = resolv_conf(read_resolv_conf(), host_network=self.network.is_host(op.network))
        return self._file("resolv.conf", text)

    def _file(self, name: str, data: bytes, mode: int = 0o644) -> Path:
        """Return a file of the build's scratch directory with this content; steps with the same content share it."""
        import hashlib  # noqa: PLC0415

        with self._lock:
            if self._scratch is None:
                self._scratch = self.store.layers.prepare()  # locked while this process lives, litter afterwards
            path = self._scratch.path / f"{hashlib.sha256(data).hexdigest()[:16]}-{name}"
            if not path.exists():
                path.write_bytes(data)
                path.chmod(mode)
        return path

    # -- mounts ---------------------------------------------------------------------------------------------------

    def _mounts(
        self,
        vertex: Vertex,
        op: RunOp,
        inputs: Sequence[Result],
        read: Inputs,
        held: contextlib.ExitStack,
    ) -> tuple[list[AnyMount], dict[str, str]]:
        """Return the mounts of a step and the variables that secrets and agents add to its environment."""
        from runner import Mount  # noqa: PLC0415

        mounts: list[AnyMount] = []
        env: dict[str, str] = {}
        for mount in op.mounts:
            match mount:
                case BindMount():
                    mounts.append(self._bind(vertex, mount, inputs, read, held))
                case CacheMount():
                    path = self._cache(vertex, mount, inputs, read, held)
                    options = ("ro",) if mount.read_only else ("rw",)
                    target = os.fsencode(mount.target.lstrip("/"))
                    mounts.append(Mount(destination=target, type="bind", source=str(path), options=options))
                case TmpfsMount():
                    target = os.fsencode(mount.target.lstrip("/"))
                    mode = self._tmpfs_mode(read.view(inputs[0].layers), target)
                    options = ("nosuid", f"mode={mode:o}", *((f"size={mount.size}",) if mount.size else ()))
                    mounts.append(Mount(destination=target, type="tmpfs", source="tmpfs", options=options))
                case SecretMount():
                    mounts += self._secret(mount, env)
                case SshMount():
                    mounts += self._agent(mount, env)
                case _:
                    assert_never(mount)
        for name, data in op.scripts:
            path = self._file(name, data, 0o755)
            target = os.fsencode((PIPES + name).lstrip("/"))
            mounts.append(Mount(destination=target, type="bind", source=str(path), options=("ro",)))
        return mounts, {name: value for name, value in env.items() if name}

    def _bind(
        self,
        vertex: Vertex,
        mount: BindMount,
        inputs: Sequence[Result],
        read: Inputs,
        held: contextlib.ExitStack,
    ) -> AnyMount:
        from runner import Mount, OverlayMount  # noqa: PLC0415

        source, result = vertex.inputs[mount.input], inputs[mount.input]
        target = os.fsencode(mount.target.lstrip("/"))
        if isinstance(source.op, ContextOp):
            path = read.materialise(source, result, mount.source)
            lowers: tuple[Path, ...] = (path,)
        else:
            view = read.view(result.layers)
            inside = view.resolve(os.fsencode(mount.source))
            entry = view.lstat(inside)
            if entry is None and inside:
                raise _not_found(mount.source)
            if entry is not None and entry.kind is not Kind.DIR:
                assert isinstance(entry.source, bytes)
                lowers = (Path(os.fsdecode(entry.source)),)
            else:
                lowers = view.directories(inside)
        if len(lowers) == 1 and not lowers[0].is_dir():
            return self._bind_file(lowers[0], target, held, read_only=mount.read_only)
        if len(lowers) == 1 and mount.read_only:
            return Mount(destination=target, type="bind", source=str(lowers[0]), options=("ro",))
        # What a step writes to a writable bind mount is lost with the step: it goes to an upper of its own.
        upper = self.store.layers.prepare()
        held.callback(self.store.layers.discard, upper)
        status = lowers[0].lstat()
        os.chown(upper.path, status.st_uid, status.st_gid)
        os.chmod(upper.path, status.st_mode & 0o7777)
        os.utime(upper.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return OverlayMount(
            destination=target, lowers=lowers, upper=upper.path, work=upper.work, read_only=mount.read_only
        )

    def _bind_file(self, path: Path, target: bytes, held: contextlib.ExitStack, *, read_only: bool) -> AnyMount:
        from runner import Mount  # noqa: PLC0415

        if not read_only:
            import shutil  # noqa: PLC0415 - rare: a writable mount of a single file

            upper = self.store.layers.prepare()
            held.callback(self.store.layers.discard, upper)
            path = Path(shutil.copy2(path, upper.path / path.name))
        return Mount(destination=target, type="bind", source=str(path), options=("ro",) if read_only else ("rw",))

    def _cache(
        self,
        vertex: Vertex,
        mount: CacheMount,
        inputs: Sequence[Result],
        read: Inputs,
        held: contextlib.ExitStack,
    ) -> Path:
        caches = CacheMounts(store=self.store, namespace=self.cache_namespace, canceled=lambda: self._canceled)
        if mount.input is None:
            if clean(os.fsencode(mount.source)):
                # Steps may exchange what is in a cache while others mount it, so that a path could lead out of it.
                assert isinstance(vertex.op, RunOp)
                process = f"process {go_quote(' '.join(vertex.op.args))} did not complete successfully"
                hint = "a cache without from= is mounted as a whole: remove source="
                raise BuildError(f"{process}: open {mount.source}: no such file or directory", hint=hint)
            return held.enter_context(caches.hold(mount, seed="", fill=_leave_empty))
        tree = read.tree(vertex.inputs[mount.input], inputs[mount.input])
        inside = tree.resolve(os.fsencode(mount.source))
        top = tree.lstat(inside)
        if top is None:
            raise _not_found(mount.source)
        spec = CopySpec(sources=(PathSource(inside or b"."),), dest=b"/")
        selection = select(spec, tree)

        def fill(path: Path) -> None:
            write_tree(plan_copy(spec, selection, None).entries(), path)
            if top.kind is Kind.DIR:
                os.chown(path, top.uid, top.gid)
                os.chmod(path, top.mode)

        seed = str(selection.digest(self.store.files))
        return held.enter_context(caches.hold(mount, seed=seed, fill=fill))

    def _secret(self, mount: SecretMount, env: dict[str, str]) -> list[AnyMount]:
        from runner import FileMount  # noqa: PLC0415

        value = self.secrets.get(mount.id)
        if value is None:
            if mount.required:
                hint = f"pass --secret id={mount.id},src=FILE or id={mount.id},env=NAME"
                raise SecretMissing(f"secret {mount.id}: not found", hint=hint)
            if mount.env:
                env[mount.env] = ""
            return []
        if mount.env:
            env[mount.env] = value.decode("utf-8", "surrogateescape")
        if mount.target is None:
            return []
        return [
            FileMount(
                destination=os.fsencode(mount.target.lstrip("/")),
                data=value,
                mode=mount.mode,
                uid=mount.uid,
                gid=mount.gid,
            )
        ]

    def _agent(self, mount: SshMount, env: dict[str, str]) -> list[AnyMount]:
        from runner import Mount  # noqa: PLC0415

        # The variable names where the socket would be even if there is none, as with the reference.
        env.setdefault("SSH_AUTH_SOCK", mount.target)
        socket = self.ssh.get(mount.id)
        if socket is None:
            if mount.required:
                raise SecretMissing(f"unset ssh forward key {mount.id}", hint=f"pass --ssh {mount.id}")
            return []
        target = os.fsencode(mount.target.lstrip("/"))
        return [Mount(destination=target, type="bind", source=str(socket), options=("rw",))]

    # -- the process ----------------------------------------------------------------------------------------------

    def _execute(
        self,
        vertex: Vertex,
        op: RunOp,
        spec: Spec,
        rules: tuple[str, ...] | None,
        emit: Callable[[Event], None],
    ) -> None:
        from runner import SetupError  # noqa: PLC0415

        output = StepOutput(vertex, self.logs, self.clock, emit, secrets=self.secrets.values())
        reads, writes = zip(os.pipe(), os.pipe(), strict=True)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                process = self._launch(spec, null, writes, rules)
            except SetupError as error:
                if error.stage != "exec":
                    raise _refused(vertex, op, error) from error
                raise self._failed(vertex, op, _exec_status(error.errno), output, _exec_hint(op, error)) from error
            finally:
                for fd in (null, *writes):
                    os.close(fd)
            try:
                output.pump(reads)
                status = process.wait().shell_status
            except BaseException:
                # Nobody reads its output any more, for instance because the disk with the log is full.
                process.signal(signal.SIGKILL)
                process.wait()
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
        finally:
            for fd in reads:
                os.close(fd)
            output.close()
        if self._canceled:
            raise Canceled("canceled")
        if status:
            raise self._failed(vertex, op, status, output, "")

    def _launch(self, spec: Spec, null: int, writes: tuple[int, ...], rules: tuple[str, ...] | None) -> Process:
        with self._lock:
            if self._canceled:
                raise Canceled("canceled")
            self._left -= rules == ()
            more = rules == () and self._left > 0
        launcher = self._start(rules)
        process = launcher.spawn(spec, stdin=null, stdout=writes[0], stderr=writes[1], more=more)
        with self._lock:
            self._running.add(process)
            canceled = self._canceled
        if canceled:
            process.signal(signal.SIGKILL)
        return process

    def _start(self, rules: tuple[str, ...] | None) -> Launcher:
        """Return the launcher of steps that may open docker's default devices and what `rules` allow, or with None all.

        Nodes of others may be made, but not opened: they would be a way to the host's disks.
        """
        with self._starting:
            known = self._launchers.get(rules)
            if known is not None:
                return known
            from runner import Launcher  # noqa: PLC0415
            from runner.devices import DeviceGroup  # noqa: PLC0415

            launcher = Launcher.start(last_will=self.network.last_will())
            if rules is not None:
                try:
                    self._groups.append(DeviceGroup.confine(launcher, rules=rules))
                except BaseException:
                    launcher.close()
                    raise
            self._launchers[rules] = launcher
            return launcher

    @staticmethod
    def _tmpfs_mode(view: View, target: bytes) -> int:
        """Return the mode of a tmpfs at `target`: that of the directory it covers, as with runc."""
        found = view.lstat(view.resolve(target))
        return found.mode if found is not None and found.kind is Kind.DIR else 0o1777

    def _failed(self, vertex: Vertex, op: RunOp, status: int, output: StepOutput, hint: str) -> LocatedError:
        message = f"process {go_quote(' '.join(op.args))} did not complete successfully: exit code: {status}"
        if not hint and output.path is not None:
            hint = f"the whole output is in {output.path}"
        diagnostic = Diagnostic(code="run", message=message, span=vertex.span, hint=hint)
        log = "" if output.path is None else str(output.path)
        return StepFailed(diagnostic, tail=tuple(output.tail), log=log, status=status)


class StepOutput:
    """What a step writes: sent on as it comes, kept whole in a file, the last lines remembered; without the secrets."""

    def __init__(
        self,
        vertex: Vertex,
        directory: Path,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        *,
        secrets: Collection[bytes] = (),
    ) -> None:
        self.path: Path | None = None
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._vertex = vertex
        self._directory = directory
        self._clock = clock
        self._emit = emit
        self._fd = -1
        self._partial = b""
        self._redactors: dict[int, Redactor] = {}
        if secrets:
            from builder.redact import Redactor  # noqa: PLC0415 - most builds have none

            self._redactors = {1: Redactor(secrets), 2: Redactor(secrets)}

    def pump(self, reads: Sequence[int]) -> None:
        """Read both descriptors until they end."""
        poller = polling.poll()
        streams = dict(zip(reads, (1, 2), strict=True))
        for fd in reads:
            poller.register(fd, polling.POLLIN)
        while streams:
            for fd, _ in poller.poll():
                data = os.read(fd, _READ)
                redactor = self._redactors.get(streams[fd])
                if redactor is None:
                    shown = data
                elif data:
                    shown = redactor.feed(data)
                else:
                    shown = redactor.end()
                if shown:
                    self._take(streams[fd], shown)
                if not data:
                    poller.unregister(fd)
                    del streams[fd]

    def close(self) -> None:
        """End the file."""
        if self._partial:
            self.tail.append(self._partial.decode("utf-8", "replace"))
            self._partial = b""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self, stream: int, data: bytes) -> None:
        if self._fd < 0:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = self._directory / f"{self._vertex.id.partition(':')[2][:12]}.log"
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        left = memoryview(data)
        while left:
            left = left[os.write(self._fd, left) :]
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.tail.extend(line.decode("utf-8", "replace") for line in lines[-_TAIL:])
        self._emit(Log(vertex=self._vertex.id, time=self._clock(), stream=stream, data=data))


def _refused(vertex: Vertex, op: RunOp, error: RunnerError) -> LocatedError:
    """Return the error of a step whose container could not be made."""
    # The number is the reference's: that of the program that makes its containers.
    process = f"process {go_quote(' '.join(op.args))}"
    message = f"{process} did not complete successfully: exit code: 1: {error.message}"
    return LocatedError((Diagnostic(code="run", message=message, span=vertex.span, hint=error.hint),))


def _not_found(source: str) -> BuildError:
    path = posixpath.normpath("/" + source)
    message = f'failed to compute cache key: failed to calculate checksum: "{path}": not found'
    return BuildError(message, hint="name a path that the mount's source has")


def _leave_empty(_path: Path) -> None:
    """A cache mount without a seed starts empty."""


def _exec_status(number: int) -> int:
    import errno  # noqa: PLC0415 - error path

    return 127 if number in (errno.ENOENT, errno.ENOTDIR) else 126


def _exec_hint(op: RunOp, error: object) -> str:
    path = next((pair[5:] for pair in op.env if pair.startswith("PATH=")), "")
    where = "" if "/" in op.args[0] else f" in PATH={path}"
    return f"{op.args[0]} cannot be executed{where}: {error}"
