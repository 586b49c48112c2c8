"""ADD of URLs against a real server: what lands in the image, what is asked for again, what is refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.build import BuildOptions, Built, build
from builder.errors import Canceled, LocatedError
from builder.events import Completed, Planned, Transfer
from builder.ops import RemoteFile
from builder.plan import PlanOptions
from builder.remote import Downloads
from grammar import LocatedGrammarError
from layerstore import Digest, Store
from tests.builder.casekit import PLATFORM, Recording, layer_tars, no_registry

DATE = "Fri, 02 Jan 2015 03:04:05 GMT"
SECONDS = 1420167845


@dataclass
class Page:
    """What the server has at a path."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    broken: int = 0
    """How many requests are cut off in the middle."""
    busy: int = 0
    """How many requests are answered with 503 first."""


@dataclass
class Web:
    """A server on loopback: `pages` by path, and what was asked of it as (path, status, headers)."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    host: str = ""
    hold: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    @property
    def answers(self) -> list[tuple[str, int]]:
        return [(path, status) for path, status, _ in self.asked]


def handler(web: Web) -> type[BaseHTTPRequestHandler]:
    """Return what answers for `web`: conditional requests by ETag first, then by Last-Modified."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = web.pages.get(self.path, Page(status=404))
            status = page.status
            if page.busy:
                page.busy -= 1
                status = 503
            etag, modified = page.headers.get("ETag"), page.headers.get("Last-Modified")
            sent_etag = self.headers.get("If-None-Match")
            if sent_etag is not None:
                status = 304 if sent_etag == etag else status
            elif modified is not None and self.headers.get("If-Modified-Since") == modified:
                status = 304
            web.asked.append((self.path, status, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            if status == 304:
                self.end_headers()
                return
            if "X-Endless" in page.headers:
                self.end_headers()
                self.wfile.write(page.body)
                self.wfile.flush()
                web.hold.wait(20)
                return
            if "X-Unknown-Size" not in page.headers:
                self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            if page.broken:
                page.broken -= 1
                self.wfile.write(page.body[: len(page.body) // 2])
                return
            self.wfile.write(page.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Nobody reads it."""

    return Handler


@pytest.fixture
def web() -> Iterator[Web]:
    """A server that runs during a test."""
    made = Web()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(made)) as server:
        server.daemon_threads = True
        made.host = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.hold.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts follow one another without a wait."""
    monkeypatch.setattr("builder.remote._BACKOFF", 0.0)


@dataclass
class Result:
    """A build, with its events."""

    built: Built
    recording: Recording

    @property
    def cached(self) -> list[bool]:
        """Whether each step was found, in the order of the file."""
        order = [event.vertex for event in self.recording.events if isinstance(event, Planned)]
        ends = {event.vertex: event.cached for event in self.recording.events if isinstance(event, Completed)}
        names = {event.vertex: event.name for event in self.recording.events if isinstance(event, Planned)}
        return [ends[one] for one in order if "ADD" in names[one]]


def run(store: Store, *lines: str, place: Path | None = None, secrets: dict[str, bytes] | None = None) -> Result:
    """Build FROM scratch with `lines`."""
    recording = Recording()
    options = BuildOptions(
        plan=PlanOptions(platform=PLATFORM, build_platform=PLATFORM, context=place),
        dockerfile="\n".join(("FROM scratch", *lines, "")).encode(),
        state=store.root / "state",
        network="none",
        secrets=secrets or {},
    )
    return Result(build(store, options, progress=recording, clock=time.time, client=no_registry), recording)


def members(store: Store, result: Result) -> dict[str, tarfile.TarInfo]:
    """Return what the last layer has, by name."""
    with tarfile.open(fileobj=io.BytesIO(layer_tars(store, result.built.image.layers)[-1])) as tar:
        return {member.name: member for member in tar}


def content(store: Store, result: Result, name: str) -> bytes:
    """Return the data of a file in the last layer."""
    with tarfile.open(fileobj=io.BytesIO(layer_tars(store, result.built.image.layers)[-1])) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def archive() -> bytes:
    """A gzip'd tar with one file."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        member = tarfile.TarInfo("inside")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"data"))
    return raw.getvalue()


def test_a_file_as_the_reference_makes_it(store: Store, web: Web) -> None:
    """Mode 0600, root's, the server's date, the last part of the URL as name; history shows the URL."""
    web.pages["/dir/a%20b.txt?x=1"] = Page(b"hello", {"Last-Modified": DATE})
    url = web.url("/dir/a%20b.txt?x=1#y")

    made = run(store, f"ADD {url} /in/")

    member = members(store, made)["in/a b.txt"]
    assert (0o600, 0, 0, SECONDS, 5) == (member.mode, member.uid, member.gid, int(member.mtime), member.size)
    assert f"ADD {url} /in/ # buildkit".encode() in made.built.image.config
    transfers = [event for event in made.recording.events if isinstance(event, Transfer) and event.id == url]
    assert [(url, 5, 5, True)] == [(one.id, one.current, one.total, one.done) for one in transfers]


@pytest.mark.parametrize(
    ("path", "dest", "name"),
    [
        ("/a/b.bin", "/in/", "in/b.bin"),
        ("/a/b/", "/in/", "in/b"),
        ("/", "/in/", "in/__unnamed__"),
        ("", "/in/", "in/__unnamed__"),
        ("/a/%2e%2e", "/in/", "in/__unnamed__"),
        ("/a/b.bin", "/in/other", "in/other"),
    ],
)
def test_names(store: Store, web: Web, path: str, dest: str, name: str) -> None:
    """Below a directory the file has the name of its URL, else the destination's; without a date it is of 1970."""
    for asked in ("/a/b.bin", "/a/b/", "/", "/a/%2E%2E"):
        web.pages[asked] = Page(b"x")

    member = members(store, run(store, f"ADD {web.url(path)} {dest}"))[name]

    assert (0o600, 0) == (member.mode, int(member.mtime))


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"Last-Modified": DATE}], ids=["etag", "date"])
def test_an_unchanged_file_is_not_downloaded_again(store: Store, web: Web, headers: dict[str, str]) -> None:
    """The second build asks, is told that nothing has changed, and has a cache hit and the same image."""
    web.pages["/a"] = Page(b"one", headers)
    first = run(store, f"ADD {web.url('/a')} /")
    second = run(store, f"ADD {web.url('/a')} /")

    assert [("/a", 200), ("/a", 304)] == web.answers
    assert ([False], [True]) == (first.cached, second.cached)
    assert first.built.image.id == second.built.image.id


def test_changed_content_is_a_miss(store: Store, web: Web) -> None:
    """Another ETag brings the new content."""
    web.pages["/a"] = Page(b"one", {"ETag": '"one"'})
    run(store, f"ADD {web.url('/a')} /")
    web.pages["/a"] = Page(b"two", {"ETag": '"two"'})
    second = run(store, f"ADD {web.url('/a')} /")

    assert [False] == second.cached
    assert b"two" == content(store, second, "a")


def test_without_validators_the_content_decides(store: Store, web: Web) -> None:
    """A server that says neither ETag nor date is asked for the whole file, which is a hit if it is the same."""
    web.pages["/a"] = Page(b"one", {"X-Unknown-Size": "yes"})
    run(store, f"ADD {web.url('/a')} /")
    second = run(store, f"ADD {web.url('/a')} /")

    assert [("/a", 200), ("/a", 200)] == web.answers
    assert [True] == second.cached


def test_another_url_of_the_same_file_is_a_hit(store: Store, web: Web) -> None:
    """Content, name and date are the key, and the URL is not; another date is another file."""
    web.pages |= {"/x/a": Page(b"one"), "/y/a": Page(b"one"), "/z/a": Page(b"one", {"Last-Modified": DATE})}
    cached = [run(store, f"ADD {web.url(path)} /").cached for path in ("/x/a", "/y/a", "/z/a")]

    assert [[False], [True], [False]] == cached


def test_a_download_that_gc_took_comes_again(store: Store, web: Web) -> None:
    """What the server said is only sent with a request while the content is here."""
    web.pages["/a"] = Page(b"one", {"ETag": '"one"'})
    run(store, f"ADD {web.url('/a')} /")
    store.sweep(store.gc())
    second = run(store, f"ADD {web.url('/a')} /")

    assert [("/a", 200), ("/a", 200)] == web.answers
    assert [True] == second.cached


def test_a_damaged_download_comes_again(store: Store, web: Web) -> None:
    """A blob whose file was touched is read again before it is trusted."""
    web.pages["/a"] = Page(b"one", {"ETag": '"one"'})
    run(store, f"ADD {web.url('/a')} /")
    blob = store.blobs.path(Digest(sha256(b"one")))
    blob.write_bytes(b"eno")
    second = run(store, f"ADD {web.url('/a')} /in/")

    assert [("/a", 200), ("/a", 200)] == web.answers
    assert b"one" == content(store, second, "in/a")


def test_checksum(store: Store, web: Web) -> None:
    """The right one is taken, expanded, and nobody is asked the second time."""
    web.pages["/a"] = Page(b"one")
    lines = (f"ARG SUM={sha256(b'one')}", f"ADD --checksum=$SUM {web.url('/a')} /")
    run(store, *lines)
    second = run(store, *lines)

    assert [("/a", 200)] == web.answers
    assert [True] == second.cached


@pytest.mark.parametrize("before", [False, True], ids=["new", "known"])
def test_checksum_mismatch(store: Store, web: Web, before: bool) -> None:
    """A file with another digest is refused with both, and not kept."""
    web.pages["/a"] = Page(b"one", {"ETag": '"one"'})
    if before:
        run(store, f"ADD {web.url('/a')} /")
    wanted = sha256(b"two")
    with pytest.raises(LocatedError) as raised:
        run(store, f"ADD --checksum={wanted} {web.url('/a')} /")

    assert f"digest mismatch {sha256(b'one')}: {wanted}" == raised.value.message
    assert before == (store.blobs.size(Digest(sha256(b"one"))) is not None)


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("ADD --checksum=sha256:{sum} {url} {url} /in/", "checksum can't be specified for multiple sources"),
        ("ADD --checksum=sha256:{sum} local /in/", "checksum requires HTTP(S) or Git sources"),
        ("ADD --checksum=md5:1 {url} /", "unsupported digest algorithm"),
        ("ADD http://[::1 /", "no valid URL"),
        ("COPY {url} /", "source can't be a URL for COPY"),
    ],
)
def test_what_is_refused(store: Store, web: Web, tmp_path: Path, line: str, fragment: str) -> None:
    """Each is a located error with a hint, before anything is asked for."""
    with pytest.raises((LocatedError, LocatedGrammarError)) as raised:
        run(store, line.format(url=web.url("/a"), sum=64 * "0"), place=tmp_path)

    assert isinstance(raised.value, LocatedError | LocatedGrammarError)
    diagnostic = raised.value.diagnostics[0]
    assert fragment in diagnostic.message
    assert diagnostic.span is not None
    assert diagnostic.hint
    assert [] == web.asked


def test_errors_are_located(store: Store, web: Web) -> None:
    """A URL that is not there is an error at its word, with a next action."""
    web.pages["/a"] = Page(b"one")
    with pytest.raises(LocatedError, match="invalid response status 404") as raised:
        run(store, f"ADD {web.url('/a')} {web.url('/b')} /")

    diagnostic = raised.value.diagnostics[0]
    assert diagnostic.span is not None
    assert (2, 6 + len(web.url("/a"))) == tuple(diagnostic.span.start)
    assert "check the URL" in diagnostic.hint


def test_nobody_listens(store: Store, quick: None) -> None:
    """A host that cannot be reached is an error without the password of the URL."""
    with pytest.raises(LocatedError, match=r"cannot download http://me@127\.0\.0\.1:1/a: ") as raised:
        run(store, "ADD http://me:secret@127.0.0.1:1/a /")

    assert raised.value.hint


def test_a_server_that_speaks_no_tls(store: Store, web: Web, quick: None) -> None:
    """OpenSSL's words are told without its codes."""
    url = web.url("/a").replace("http:", "https:")
    with pytest.raises(LocatedError) as raised:
        run(store, f"ADD {url} /")

    assert raised.value.message.startswith(f"cannot download {url} over TLS: ")
    assert "_ssl" not in raised.value.message
    assert "certificate" in raised.value.hint


def test_redirects(store: Store, web: Web) -> None:
    """They are followed; the name is that of the URL as written."""
    web.pages["/old"] = Page(status=302, headers={"Location": "/new"})
    web.pages["/new"] = Page(b"one")

    assert b"one" == content(store, run(store, f"ADD {web.url('/old')} /"), "old")

    web.pages["/new"] = Page(status=302, headers={"Location": "/old"})
    with pytest.raises(LocatedError, match="redirect"):
        run(store, f"ADD {web.url('/old')} /")


def test_a_broken_connection_is_tried_again(store: Store, web: Web, quick: None) -> None:
    """Half a file is not taken for the file."""
    web.pages["/a"] = Page(b"whole", broken=1)

    assert b"whole" == content(store, run(store, f"ADD {web.url('/a')} /"), "a")

    web.pages["/c"] = Page(b"whole", busy=2)
    assert b"whole" == content(store, run(store, f"ADD {web.url('/c')} /"), "c")

    web.pages["/b"] = Page(b"whole", broken=100)
    with pytest.raises(LocatedError, match="cannot download"):
        run(store, f"ADD {web.url('/b')} /")


def test_unpack(store: Store, web: Web) -> None:
    """An archive stays one unless --unpack asks for its content."""
    web.pages["/x.tgz"] = Page(archive())

    assert {"x.tgz"} <= set(members(store, run(store, f"ADD {web.url('/x.tgz')} /")))
    assert b"data" == content(store, run(store, f"ADD --unpack=true {web.url('/x.tgz')} /in/"), "in/inside")
    assert {"x.tgz"} <= set(members(store, run(store, f"ADD --unpack=false {web.url('/x.tgz')} /")))


def test_among_other_sources(store: Store, web: Web, tmp_path: Path) -> None:
    """Sources are copied in the order they are written in, the later over the earlier; flags hold for all."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "a").write_bytes(b"local")
    web.pages["/a"] = Page(b"remote")
    flags = "--chown=3:4 --chmod=640"
    first = run(store, f"ADD {flags} {web.url('/a')} a /in/", place=context)
    second = run(store, f"ADD {flags} a {web.url('/a')} /in/", place=context)

    assert (b"local", b"remote") == (content(store, first, "in/a"), content(store, second, "in/a"))
    member = members(store, second)["in/a"]
    assert (3, 4, 0o640) == (member.uid, member.gid, member.mode)
    assert f"ADD --chown=3:4 --chmod=640 {web.url('/a')} a /in/ #".encode() in first.built.image.config


@pytest.mark.parametrize(
    ("secret", "user", "sent"),
    [
        ("HTTP_AUTH_TOKEN_", "", "Bearer value"),
        ("HTTP_AUTH_HEADER_", "", "value"),
        ("OTHER", "me:p%40ss@", "Basic bWU6cEBzcw=="),
    ],
)
def test_credentials(store: Store, web: Web, secret: str, user: str, sent: str) -> None:
    """A secret for the host, or the user in the URL, goes into the request and not to another host."""
    other = web.host.replace("127.0.0.1", "localhost")
    web.pages["/a"] = Page(status=302, headers={"Location": f"http://{other}/b"})
    web.pages["/b"] = Page(b"one")
    run(store, f"ADD http://{user}{web.host}/a /", secrets={secret + web.host: b"value\n"})

    assert [sent, None] == [headers.get("authorization") for _, _, headers in web.asked]


def test_cancel_ends_a_download(store: Store, web: Web) -> None:
    """A server that has stopped sending keeps nobody who has given up, and nothing of the file is kept."""
    web.pages["/a"] = Page(b"begin", {"X-Endless": "yes"})
    downloads = Downloads(store)
    ended: list[BaseException] = []

    def fetch() -> None:
        try:
            downloads.fetch(RemoteFile(url=web.url("/a"), name=b"a"), lambda _current, _total: begun.set())
        except Canceled as error:
            ended.append(error)

    begun = threading.Event()
    thread = threading.Thread(target=fetch)
    thread.start()
    while not web.asked:
        time.sleep(0.01)
    begun.wait(0.3)
    downloads.cancel()
    thread.join(10)

    assert 1 == len(ended)
    assert store.blobs.size(Digest(sha256(b"begin"))) is None
