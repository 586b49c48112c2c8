"""The network that the RUN steps of one build share: made when the first step needs it, gone with the build."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from runner.spec import HostNetwork, JoinNetwork, Network, NoNetwork

if TYPE_CHECKING:
    from runner.network import Endpoint, NetworkNamespace

MODES = ("default", "none", "host", "bridge")


class BuildNetwork:
    """Gives RUN steps their network. `state` is the directory where addresses of the bridge are recorded.

    `default` is what a step gets that asks for nothing: `bridge`, `host` or `none`. One network namespace on the bridge
    serves all steps: they are one build's, and joining it costs nothing.
    """

    def __init__(self, state: Path, default: str = "bridge") -> None:
        self.state = state
        self.default = default
        self._namespace: NetworkNamespace | None = None
        self._endpoint: Endpoint | None = None
        self._begun: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def get(self, mode: str) -> Network:
        """Return the network for a step; RunnerError if the host cannot give it."""
        match self.default if mode == "default" else mode:
            case "none":
                return NoNetwork()
            case "host":
                return HostNetwork()
            case "bridge":
                return JoinNetwork(self._bridge())
            case other:
                raise AssertionError(f"BUG: network mode {other}")

    def begin(self, modes: Iterable[str]) -> None:
        """Make the bridge in a thread of its own if steps of one of `modes` will need it; `get` waits for it.

        What goes wrong is told to the step that needs it.
        """
        if self._begun is None and "bridge" in {self.default if mode == "default" else mode for mode in modes}:
            from runner.background import start  # noqa: PLC0415

            self._begun = start(self._attempt)

    def _attempt(self) -> None:
        from runner.errors import RunnerError  # noqa: PLC0415

        with contextlib.suppress(RunnerError):
            self._bridge()

    def is_host(self, mode: str) -> bool:
        """Say whether a step of this mode sees the host's own network."""
        return (self.default if mode == "default" else mode) == "host"

    def _bridge(self) -> str:
        from runner.network import Bridge, NetworkNamespace  # noqa: PLC0415 - only steps on the bridge pay for it

        with self._lock:
            if self._namespace is None:
                namespace = NetworkNamespace.create()
                try:
                    bridge = Bridge(self.state)
                    bridge.ensure()
                    name = f"build-{os.getpid()}-{os.urandom(4).hex()}"
                    self._endpoint = bridge.attach(namespace, id=name, owner=os.getpid())
                except BaseException:
                    namespace.close()
                    raise
                self._namespace = namespace
            return self._namespace.path

    def last_will(self) -> tuple[str, ...]:
        """Return the command that gives back this build's place on the bridge should this process be killed."""
        from runner.lastwill import last_will  # noqa: PLC0415

        return last_will(network=self.state) if self.default == "bridge" else ()

    def close(self) -> None:
        """Take the network away; safe to repeat."""
        if self._begun is not None:
            self._begun()
        with self._lock:
            if self._endpoint is not None:
                self._endpoint.release()
                self._endpoint = None
            if self._namespace is not None:
                self._namespace.close()
                self._namespace = None
