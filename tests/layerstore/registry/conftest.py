"""Registries to speak to: the distribution's, with and without passwords, and one that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from layerstore.digest import Digest

USER, PASSWORD = "ann", "s3cret:word"
HTPASSWD = "ann:$2b$04$abcdefghijklmnopqrstuuHR3t7FUNT1H99nlAQFD.ZD8cnc5Jsi2\n"


@dataclass
class RealRegistry:
    """A docker-registry on loopback; `host` is what references begin with."""

    host: str
    data: Path
    process: subprocess.Popen[bytes]

    def skopeo(self, *arguments: str) -> str:
        """Run skopeo without TLS and return what it prints."""
        done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start_registry(directory: Path, *, password: bool) -> RealRegistry:
    port = free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if password:
        (directory / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    process = subprocess.Popen(
        ["docker-registry", "serve", str(directory / "config.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin"},
    )
    for _ in range(500):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
                break
        except urllib.error.HTTPError as error:
            error.close()
            break
        except OSError:
            time.sleep(0.01)
    return RealRegistry(f"127.0.0.1:{port}", directory / "data", process)


def stop_registry(registry: RealRegistry) -> None:
    registry.process.terminate()
    registry.process.wait(10)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that lets everyone in, shared by all tests: each uses repositories of its own."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    running = start_registry(tmp_path_factory.mktemp("registry"), password=False)
    yield running
    stop_registry(running)


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that wants USER and PASSWORD."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    running = start_registry(tmp_path_factory.mktemp("closed"), password=True)
    yield running
    stop_registry(running)


@dataclass
class Request:
    """One request that a `FakeRegistry` got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Answer:
    """What a `FakeRegistry` sends; `cut` ends the connection after so many bytes of `body`, `length` may lie of it.

    With `hold` nothing more comes after those bytes until that event is set.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: int | None = None
    hold: threading.Event | None = None


Script = Callable[[Request], Answer]


class FakeRegistry:
    """A real HTTP server on loopback that answers what a test's function says; `requests` is what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: Script = lambda _: Answer(404)
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client may have had enough
                    self.serve()

            def serve(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b"".join(self.chunks())
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                fake.requests.append(request)
                self.send(Answer() if self.path == "/v2/" else fake.script(request))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

            def chunks(self) -> Iterator[bytes]:
                """Read a body in chunks; one that breaks off ends there."""
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def send(self, answer: Answer) -> None:
                if answer.cut is not None:
                    self.close_connection = True
                    if answer.cut < 0:
                        return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.cut])
                    if answer.hold is not None:
                        self.wfile.flush()
                        answer.hold.wait(30)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def asked(self, method: str) -> list[str]:
        """Return the paths of the requests with this method, in order."""
        return [request.path for request in self.requests if request.method == method and request.path != "/v2/"]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    """A registry that does what the test says."""
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def other_fake() -> Iterator[FakeRegistry]:
    """A second one: another host."""
    server = FakeRegistry()
    yield server
    server.close()


def blob_answer(data: bytes, request: Request, *, cut: int | None = None) -> Answer:
    """Answer a GET of a blob, honouring Range; `cut` bytes are sent before the connection ends."""
    start = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
    offset = int(start)
    headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": Digest.of(data)}
    if not offset:
        return Answer(200, data, headers, cut=cut)
    headers["Content-Range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
    return Answer(206, data[offset:], headers, cut=cut)
