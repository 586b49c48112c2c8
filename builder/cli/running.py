"""What `pybuild run` does: an image becomes a container, signals and the terminal go to it; statuses are docker's."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.cli.context import Settings

if TYPE_CHECKING:
    from types import FrameType

    from builder.cli.terminal import RawTerminal
    from builder.cli.words import Call
    from builder.runoptions import RunOptions
    from builder.runspec import Prepared
    from layerstore import Store
    from layerstore.images import Image
    from layerstore.platforms import Platform
    from runner.container import Container, Containers
    from runner.monitor import Supervisor
    from runner.started import Started

_NOT_FORWARDED = frozenset(
    {
        signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH,
        # Job control of the terminal is between the shell and us; the others tell of our own faults.
        signal.SIGTTIN, signal.SIGTTOU,
        signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
    }
)  # fmt: skip
_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


def status_of(call: Call) -> int:
    """Do what a call that was read without click asks for; report what goes wrong; return the exit status."""
    from builder.cli.errors import reported  # noqa: PLC0415

    return reported(lambda: run(Settings.from_process(root=call.root, debug=call.debug), call.given), debug=call.debug)


def run(settings: Settings, given: dict[str, Any]) -> int:
    """Run a command in a new container, as `given` (see `builder/cli/runwords.py`) says; return its exit status."""
    with _own_errors():
        options = _options(settings, given)
        if options.terminal and options.interactive and not options.detach and not settings.stdin_tty:
            raise _refused("the input device is not a terminal", "leave -t out where input comes from a file or a pipe")
        with _Signals() as signals, _launcher(settings, options) as started:
            containers, container, prepared = _create(settings, options, given["pull"], given["platform"])
            if options.detach:
                return _detach(containers, container, prepared, options)
            return _attach(containers, container, prepared, options, signals, started)


@contextlib.contextmanager
def _launcher(settings: Settings, options: RunOptions) -> Iterator[Started | None]:
    """Start the launcher of a container in the foreground while little is loaded: it loads what it needs meanwhile."""
    if options.detach:
        yield None
        return
    from builder.cli.state import containers_directory  # noqa: PLC0415
    from runner.lastwill import last_will  # noqa: PLC0415
    from runner.started import Started  # noqa: PLC0415

    started = Started.start(in_process=True, last_will=last_will(containers=containers_directory(settings)))
    try:
        yield started
    finally:
        started.close()


def _create(
    settings: Settings, options: RunOptions, pull: str, platform: str | None
) -> tuple[Containers, Container, Prepared]:
    """Make the container and all it needs on disk; it is locked by this process and not started."""
    import json  # noqa: PLC0415

    from builder.cli.state import containers_of, state_directory  # noqa: PLC0415
    from builder.runspec import Place, make_directories, prepare  # noqa: PLC0415 - not for --help
    from layerstore.lease import LOOKBACK_NS  # noqa: PLC0415
    from runner.container import new_id  # noqa: PLC0415

    containers = containers_of(settings)
    with settings.open_store() as store, store.lease(lookback=LOOKBACK_NS):
        image = _image(settings, store, options.image, pull, platform)
        view = store.layers.view(image.layers)
        identity = new_id()
        place = Place(
            id=identity,
            path=containers.root / identity,
            volumes=containers.volumes,
            bridge_state=state_directory(settings),
            nodename=os.uname().nodename,
        )
        prepared = prepare(options, image, json.loads(image.config), view, place, now=settings.clock())
        container = containers.create(prepared.config)
        try:
            make_directories(prepared, view, containers.volumes)
        except BaseException:
            containers.remove(container)
            containers.remove_volumes(container.config)
            raise
    return containers, container, prepared


def _image(settings: Settings, store: Store, name: str, pull: str, platform: str | None) -> Image:
    """Find the image here, or fetch it, as --pull and --platform say."""
    from builder.cli.lookup import find_image  # noqa: PLC0415
    from layerstore.errors import NotFound  # noqa: PLC0415

    found: Image | None = None
    if pull != "always":
        try:
            found = find_image(store, name, _platform(settings, platform)).image
        except NotFound:
            if pull == "never":
                raise
        if found is not None and (platform is None or _is_for(settings, found, platform)):
            return found
        if found is not None and pull == "never":
            raise NotFound(f"{name} is here, but not for {platform}", hint="leave --platform or --pull never out")
        sys.stderr.write(f"{name} is not here; asking its registry\n")
    return _pull(settings, store, name, platform)


def _pull(settings: Settings, store: Store, name: str, platform: str | None) -> Image:
    from builder.cli.registry import Transfers, client  # noqa: PLC0415 - only what is not here speaks to a registry
    from layerstore.reference import Reference  # noqa: PLC0415
    from layerstore.registry.transfer import pull  # noqa: PLC0415

    reference = Reference.parse(name)
    with client(settings) as registry, Transfers(settings, quiet=False, done="pull complete") as progress:
        return pull(store, reference, _platform(settings, platform), registry, progress=progress)


def _is_for(settings: Settings, image: Image, platform: str) -> bool:
    from layerstore.oci import config_platform, parse_config  # noqa: PLC0415

    return config_platform(parse_config(image.config)) == _platform(settings, platform)


def _platform(settings: Settings, text: str | None) -> Platform:
    from layerstore.platforms import Platform  # noqa: PLC0415

    host = Platform.parse(settings.platform, host=Platform("linux", "amd64"))
    return host if text is None else Platform.parse(text, host=host)


def _detach(containers: Containers, container: Container, prepared: Prepared, options: RunOptions) -> int:
    from runner.monitor import start_detached  # noqa: PLC0415

    start_detached(containers, container, prepared.bundle, keep_stdin=options.interactive)
    sys.stdout.write(f"{container.id}\n")
    return 0


def _attach(
    containers: Containers,
    container: Container,
    prepared: Prepared,
    options: RunOptions,
    signals: _Signals,
    started: Started | None,
) -> int:
    from runner.monitor import Supervisor  # noqa: PLC0415

    supervisor = Supervisor(
        containers,
        container,
        prepared.bundle,
        stdin=0 if options.interactive else None,
        stdout=1,
        stderr=2,
        started=started,
    )
    signals.supervisor = supervisor
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        if options.terminal and options.interactive:
            from builder.cli.terminal import RawTerminal  # noqa: PLC0415

            signals.terminal = stack.enter_context(RawTerminal(0))
        code = supervisor.run(ready=signals.resize if options.terminal else None)
    for problem in supervisor.problems:
        sys.stderr.write(f"warning: {problem}\n")
    return code


class _Signals:
    """What arrives while a container runs goes to it; before it runs, and while its last output drains, it ends us."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.terminal: RawTerminal | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for signum in signal.valid_signals() - _NOT_FORWARDED:
            handler = signal.getsignal(signum)
            # What nohup or a shell made us ignore stays ignored.
            if handler is not signal.SIG_IGN:
                self._before[signum] = handler
                signal.signal(signum, self._handle)
        self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._resized)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def resize(self) -> None:
        """Tell the container's terminal how large ours is now."""
        from builder.cli.terminal import window_size  # noqa: PLC0415

        size = window_size()
        if size is not None and self.supervisor is not None:
            self.supervisor.resize(*size)

    def _resized(self, _signum: int, _frame: FrameType | None) -> None:
        self.resize()

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGCONT and self.terminal is not None:
            self.terminal.resume()
        if self.supervisor is not None and self.supervisor.running:
            self.supervisor.signal(signum)
        elif self.supervisor is not None and self.supervisor.ending:
            return
        elif signum == signal.SIGINT:
            raise KeyboardInterrupt
        elif signum in _ENDING:
            from builder.cli.errors import Ended  # noqa: PLC0415

            raise Ended(signum)


def _options(settings: Settings, given: dict[str, Any]) -> RunOptions:
    from builder import runoptions  # noqa: PLC0415 - not for --help

    def size(name: str) -> int | None:
        text, option = given[name], "--" + name.replace("_", "-")
        return runoptions.parse_size(text, option) if text is not None else None

    swap = -1 if given["memory_swap"] == "-1" else size("memory_swap")
    terminal = given["terminal"]
    console = None
    if terminal:
        from builder.cli.terminal import window_size  # noqa: PLC0415

        console = window_size()
    return runoptions.RunOptions(
        image=given["image"],
        args=given["args"],
        env=runoptions.environment(given["env"], given["env_files"], settings.environ, _reader(settings)),
        labels=runoptions.parse_labels(given["labels"]),
        volumes=(
            *(runoptions.parse_volume(text, settings.cwd) for text in given["volumes"]),
            *(runoptions.parse_mount(text, settings.cwd) for text in given["mounts"]),
            *(runoptions.parse_tmpfs(text) for text in given["tmpfs"]),
        ),
        memory=size("memory"),
        memory_swap=swap,
        shm_size=size("shm_size"),
        console_size=console,
        security_options=tuple(_with_absolute_path(settings, word) for word in given["security_options"]),
        **{name: given[name] for name in _PLAIN},
    )


_PLAIN = (
    "name", "entrypoint", "workdir", "user", "hostname", "network", "publish", "publish_all", "add_hosts", "dns",
    "cpus", "cpu_shares", "cpuset_cpus", "pids_limit", "ulimits", "read_only", "privileged", "cap_add", "cap_drop",
    "init", "interactive", "terminal", "detach", "remove", "stop_signal", "stop_timeout",
)  # fmt: skip
"""The options that go on as they were given."""


def _with_absolute_path(settings: Settings, word: str) -> str:
    """Return a security option whose profile, if it names one, is an absolute path."""
    key, _, value = word.partition("=" if "=" in word else ":")
    return f"seccomp={settings.path(value)}" if key == "seccomp" and value not in {"", "unconfined"} else word


def _reader(settings: Settings) -> Any:
    def read(name: str) -> str:
        return settings.path(name).read_text(encoding="utf-8", errors="surrogateescape")

    return read


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Turn what goes wrong on our side into RunnerErrors, whose exit status is 125."""
    from builder.cli.errors import SYSTEM_HINTS  # noqa: PLC0415
    from builder.errors import BuildError, Canceled  # noqa: PLC0415
    from layerstore import StoreError  # noqa: PLC0415
    from runner import RunnerError  # noqa: PLC0415

    try:
        yield
    except Canceled:
        raise
    except (BuildError, StoreError) as error:
        raise RunnerError(error.message, hint=error.hint) from error
    except OSError as error:
        hints = {errno.ENOENT: "check the spelling", errno.ENOTDIR: "check the spelling", **SYSTEM_HINTS}
        if error.errno not in hints:
            raise
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | Path) else ""
        raise RunnerError(f"{where}{error.strerror}", hint=hints[error.errno]) from error


def _refused(message: str, hint: str) -> Exception:
    from builder.errors import UsageError  # noqa: PLC0415

    return UsageError(message, hint=hint)
