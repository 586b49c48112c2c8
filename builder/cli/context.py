"""The process as commands see it: the one reader of argv, environment, terminal, working directory and clock.

Everything below `builder/cli/` gets plain values from here and never looks for itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from builder.errors import UsageError

if TYPE_CHECKING:
    from layerstore import Store

LOG_LINES = 6
"""How many lines of a running step's log the tty progress shows, as BuildKit does without BUILDKIT_TTY_LOG_LINES."""


class Settings(NamedTuple):
    """The process as commands see it; `click.pass_obj` hands it to every command.

    `root` is the store's directory, absolute. `docker_config` is the directory of Docker's config.json; `auth_file` and
    `registries_conf` are set only where the environment names them. `color` answers NO_COLOR and FORCE_COLOR (None:
    neither is set, so the terminal decides). `progress` and `colors` are BUILDKIT_PROGRESS and BUILDKIT_COLORS as
    written. `machine` is the host's as `uname -m` has it.
    `clock` returns seconds since the epoch.
    """

    root: Path
    cwd: Path
    environ: Mapping[str, str]
    debug: bool
    stdin_tty: bool
    stdout_tty: bool
    stderr_tty: bool
    docker_config: Path
    auth_file: Path | None
    registries_conf: Path | None
    color: bool | None
    progress: str
    colors: str
    log_lines: int
    machine: str
    clock: Callable[[], float]

    @classmethod
    def from_process(cls, *, root: str | None = None, debug: bool = False) -> Self:
        """Read the process; `root` is --root and wins over $PYBUILD_ROOT. UsageError for values that mean nothing."""
        environ = dict(os.environ)
        cwd = _cwd()
        return cls(
            root=_root(root, environ, cwd),
            cwd=cwd,
            environ=environ,
            debug=debug,
            stdin_tty=_isatty(0),
            stdout_tty=_isatty(1),
            stderr_tty=_isatty(2),
            docker_config=_path(environ, "DOCKER_CONFIG", cwd) or home(environ) / ".docker",
            auth_file=_path(environ, "REGISTRY_AUTH_FILE", cwd),
            registries_conf=_path(environ, "CONTAINERS_REGISTRIES_CONF", cwd),
            color=_color(environ),
            progress=environ.get("BUILDKIT_PROGRESS", ""),
            colors=environ.get("BUILDKIT_COLORS", ""),
            log_lines=_whole(environ, "BUILDKIT_TTY_LOG_LINES") or LOG_LINES,
            machine=os.uname().machine,
            clock=time.time,
        )

    @property
    def source_date_epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in whole seconds; UsageError if it is none. Only builds take other words for it."""
        return _whole(self.environ, "SOURCE_DATE_EPOCH")

    @property
    def platform(self) -> str:
        """The host's platform, such as `linux/amd64`."""
        from layerstore.platforms import Platform  # noqa: PLC0415 - commands that ask for none must not pay for it

        return str(Platform.host(self.machine))

    def path(self, text: str) -> Path:
        """Return `text`, a path the user wrote, as an absolute path."""
        return self.cwd / text

    @contextmanager
    def open_store(self) -> Iterator[Store]:
        """Open the store for the time of a `with` block; StoreError if it cannot be."""
        from layerstore import Store  # noqa: PLC0415 - commands that need no store must not pay for it

        store = Store.open(self.root)
        try:
            yield store
        finally:
            store.close()

    def terminal_size(self) -> tuple[int, int]:
        """Return (columns, rows) of the terminal on stderr as it is now; 80 by 24 where it does not say."""
        try:
            size = os.get_terminal_size(2)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24


def home(environ: Mapping[str, str]) -> Path:
    """Return the user's home directory: $HOME, else what the user database says, else the root directory."""
    if text := environ.get("HOME"):
        return Path(text)
    import pwd  # noqa: PLC0415 - only processes without HOME look into the user database

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def _cwd() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current directory does not exist any more", hint="change into one that does") from None


def _root(option: str | None, environ: Mapping[str, str], cwd: Path) -> Path:
    if option is not None and not option:
        raise UsageError("--root names nothing", hint="give the directory of the store, or leave --root out")
    if text := option or environ.get("PYBUILD_ROOT"):
        return cwd / text
    if os.geteuid() == 0:
        return Path("/var/lib/pybuild")
    # The XDG base directory specification: a path that is not absolute is to be ignored.
    data = environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else home(environ) / ".local" / "share") / "pybuild"


def _path(environ: Mapping[str, str], name: str, cwd: Path) -> Path | None:
    text = environ.get(name)
    return cwd / text if text else None


def _isatty(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _color(environ: Mapping[str, str]) -> bool | None:
    """no-color.org and force-color.org: set to anything but the empty string; NO_COLOR wins."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return None


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{name}={text} is not a whole number", hint=f"unset {name} or give it digits only")
    return int(text)


def proxies_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in lower or upper case, the former first."""
    found = {}
    for name in ("http", "https", "all", "no"):
        value = environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY")
        if value:
            found[name] = value
    return found
