"""What commands that speak to registries share: a client set up from the process, bars for what is transferred."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from builder.cli.context import Settings, home, proxies_of
from builder.version import VERSION
from layerstore.platforms import Platform

if TYPE_CHECKING:
    from layerstore.registry.auth import AuthFiles, CredentialSource
    from layerstore.registry.client import Client

_SYSTEM = Path("/etc/containers")
_CERTIFICATES = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))
_SHORT = 12


def client(settings: Settings, credentials: CredentialSource | None = None) -> Client:
    """Return a client with the registries, credentials, certificates and proxies that this process is told to use.

    Raises RegistryConfigError if registries.conf is malformed.
    """
    from layerstore.registry.client import Client  # noqa: PLC0415 - loads urllib3
    from layerstore.registry.config import Registries  # noqa: PLC0415
    from layerstore.registry.http import Network  # noqa: PLC0415

    network = Network(
        proxies=proxies_of(settings.environ),
        certificates=(*_CERTIFICATES, _user_directory(settings) / "certs.d"),
        user_agent=f"pybuild/{VERSION}",
    )
    return Client(Registries.load(*_registries_conf(settings)), credentials or auth_files(settings), network=network)


def auth_files(settings: Settings) -> AuthFiles:
    """Return where credentials are: $REGISTRY_AUTH_FILE alone if set, else docker's config.json, then podman's."""
    from layerstore.registry.auth import AuthFiles  # noqa: PLC0415

    if settings.auth_file is not None:
        return AuthFiles([settings.auth_file], environ=settings.environ)
    paths = [settings.docker_config / "config.json"]
    if runtime := settings.environ.get("XDG_RUNTIME_DIR"):
        paths.append(Path(runtime) / "containers" / "auth.json")
    return AuthFiles(paths, environ=settings.environ)


def platform_of(settings: Settings, text: str | None) -> Platform:
    """Return the platform that a --platform option names, this machine's without one. Raises InvalidPlatform."""
    host = Platform.parse(settings.platform, host=Platform("linux", "amd64"))
    return host if text is None else Platform.parse(text, host=host)


class Transfers:
    """Shows transfers on stderr: a bar each on a terminal, else a line for each that has ended; nothing if `quiet`.

    A context manager; calling it is the progress callback of pull and push.
    """

    def __init__(self, settings: Settings, *, quiet: bool, done: str) -> None:
        self._bars_wanted = settings.stderr_tty and not quiet
        self._quiet = quiet
        self._done = done
        self._bars: dict[str, Any] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in self._bars.values():
            bar.close()

    def __call__(self, identity: str, current: int, total: int | None, done: bool, /) -> None:  # noqa: FBT001 - the transfer's callback
        """Take note of one transfer."""
        if self._quiet:
            return
        short = identity.removeprefix("sha256:")[:_SHORT]
        with self._lock:
            if self._bars_wanted:
                self._show(short, current, total, done=done)
            elif done and identity not in self._ended:
                self._ended.add(identity)
                sys.stderr.write(f"{short}: {self._done}\n")
                sys.stderr.flush()

    def _show(self, short: str, current: int, total: int | None, *, done: bool) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - only where there is a terminal to draw on

        if short not in self._bars:
            self._bars[short] = tqdm(
                total=total,
                desc=short,
                unit="B",
                unit_scale=True,
                leave=True,
                position=len(self._bars),
                file=sys.stderr,
            )
        bar = self._bars[short]
        # After a broken connection a transfer may be further back than before.
        bar.n = current
        bar.set_description_str(f"{short}: {self._done}" if done else short, refresh=False)
        bar.update(0)
        if done:
            bar.refresh()


def _registries_conf(settings: Settings) -> tuple[Path | None, Path | None]:
    """Return registries.conf and the directory of its drop-ins: the variable's, else the user's, else the system's."""
    if settings.registries_conf is not None:
        return settings.registries_conf, None
    for directory in (_user_directory(settings), _SYSTEM):
        if (directory / "registries.conf").is_file():
            return directory / "registries.conf", directory / "registries.conf.d"
    return None, _SYSTEM / "registries.conf.d"


def _user_directory(settings: Settings) -> Path:
    base = settings.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else home(settings.environ) / ".config") / "containers"
