"""Git repositories and a server for them on loopback: smart HTTP by `git http-backend`, and the files as they are."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.invalid",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.invalid",
    "GIT_AUTHOR_DATE": "1500000000 +0000",
    "GIT_COMMITTER_DATE": "1500000000 +0000",
    "GIT_ALLOW_PROTOCOL": "file:http",
}
COMMITTED = 1_500_000_000


@dataclass
class Repository:
    """A repository with its files, served as it is."""

    path: Path
    url: str

    def git(self, *words: str, env: dict[str, str] | None = None) -> str:
        """Run git in it; what it prints."""
        done = subprocess.run(
            ["git", *words], cwd=self.path, env={**ENVIRON, **(env or {})}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, name: str, text: str = "", *, mode: int = 0o644) -> None:
        """Write a file of the working tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def commit(self, **files: str) -> str:
        """Write the files and commit everything; the commit. In names, `__` is a slash."""
        for name, text in files.items():
            self.write(name.replace("__", "/"), text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "words")
        return self.head

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        return self.git("rev-parse", "HEAD")

    def hostile(self, entries: str) -> str:
        """Commit a tree that git itself would not make, in the form of `git mktree`; the commit."""
        done = subprocess.run(
            ["git", "mktree", "-z", "--missing"], cwd=self.path, env=ENVIRON, input=entries.encode(),
            capture_output=True, check=True,
        )  # fmt: skip
        commit = self.git("commit-tree", "-m", "hostile", done.stdout.decode().strip())
        self.git("update-ref", "refs/heads/hostile", commit)
        return commit

    def blob(self, text: str) -> str:
        """Store a file's content; its name."""
        done = subprocess.run(
            ["git", "hash-object", "-w", "--stdin"], cwd=self.path, env=ENVIRON, input=text.encode(),
            capture_output=True, check=True,
        )  # fmt: skip
        return done.stdout.decode().strip()


@dataclass
class Server:
    """A server that runs during a test. `fetches` are the paths that packs were fetched from, `asked` all requests.

    With a `token` it wants that for a password; where `dumb` is set it serves files and nothing else.
    """

    root: Path
    host: str = ""
    asked: list[str] = field(default_factory=list)
    fetches: list[str] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)
    token: str = ""
    dumb: bool = False
    protocol: bool = True
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """What is at other paths, with Last-Modified (empty for none)."""

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"

    def repository(self, name: str, **files: str) -> Repository:
        """Make a repository with a branch `main`, and a commit if there are files."""
        path = self.root / name
        path.mkdir(parents=True)
        made = Repository(path, self.url(name))
        made.git("init", "--quiet", "--initial-branch=main", "--template=")
        if files:
            made.commit(**files)
        return made


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            body = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)

        def _answer(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            server.asked.append(self.path)
            server.headers.append(self.headers.get("Authorization"))
            if path.endswith("/git-upload-pack") and (b"command=fetch" in body or b"want " in body):
                server.fetches.append(path.removesuffix("/git-upload-pack"))
            if server.token and self.headers.get("Authorization") != server.token:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path in server.files:
                data, modified = server.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                if modified:
                    self.send_header("Last-Modified", modified)
                self.end_headers()
                self.wfile.write(data)
                return
            if server.dumb:
                self._file(path)
                return
            self._backend(path, query, body)

        def _file(self, path: str) -> None:
            name = server.root / path.lstrip("/")
            data = name.read_bytes() if name.is_file() else None
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def _backend(self, path: str, query: str, body: bytes) -> None:
            env = {
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "GIT_PROJECT_ROOT": str(server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", "") if server.protocol else "",
                "REMOTE_USER": "someone",
            }
            done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
            head, _, data = done.stdout.partition(b"\r\n\r\n")
            fields = [line.partition(": ")[::2] for line in head.decode().split("\r\n") if line]
            status = next((value for name, value in fields if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, value in fields:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Nobody reads it."""

    return Handler


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Server]:
    """Serve the repositories below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    made = Server(root)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(made)) as http:
        http.daemon_threads = True
        made.host = f"127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            http.shutdown()
            thread.join()
