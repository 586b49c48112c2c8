"""Requests against a server that misbehaves: retries, resumed downloads, redirects, tokens."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

import pytest

from layerstore.digest import Digest
from layerstore.errors import StoreError
from layerstore.oci import Descriptor
from layerstore.reference import Reference
from layerstore.registry.auth import Credentials
from layerstore.registry.client import Client, GivenCredentials
from layerstore.registry.config import Endpoint
from layerstore.registry.errors import AuthError, RegistryError, UnknownImage, Unreachable
from layerstore.registry.http import Network, proxy_for
from layerstore.registry.tokens import Challenge, parse_challenge
from tests.layerstore.registry.conftest import Answer, FakeRegistry, Request, blob_answer, free_port

QUICK = Network(attempts=4, backoff=0.001, timeout=5)
DATA = bytes(range(256)) * 2000


def descriptor(data: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(data), size=len(data))


def endpoint(fake: FakeRegistry, repository: str = "app") -> Endpoint:
    return Endpoint(registry=fake.host, repository=repository, insecure=True)


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(network=QUICK) as one:
        yield one


def download(client: Client, fake: FakeRegistry, blob: Descriptor) -> bytes:
    with contextlib.closing(client.open_blob(endpoint(fake), blob)) as stream:
        return stream.read()


def test_temporary_errors_are_tried_again(client: Client, fake: FakeRegistry) -> None:
    """A registry that answers 503, 500, then 429 with Retry-After is asked until it serves the manifest."""
    answers = iter([Answer(503), Answer(500), Answer(429, headers={"Retry-After": "0"}), Answer(200, b'{"a": 1}')])
    fake.script = lambda _: next(answers)

    document = client.manifest(endpoint(fake), "1")

    assert document.data == b'{"a": 1}'
    assert ["/v2/app/manifests/1"] * 4 == fake.asked("GET")


def test_retries_end(client: Client, fake: FakeRegistry) -> None:
    """A registry that fails for good is given up with its status and its own words."""
    body = json.dumps({"errors": [{"code": "UNAVAILABLE", "message": "disk is full"}]}).encode()
    fake.script = lambda _: Answer(503, body)

    with pytest.raises(RegistryError, match=r"HTTP 503 \(disk is full\)") as caught:
        client.manifest(endpoint(fake), "1")

    assert 503 == caught.value.status
    assert 4 == len(fake.asked("GET"))


def test_too_many_requests_has_a_hint(client: Client, fake: FakeRegistry) -> None:
    """A rate limit that does not go away is explained."""
    fake.script = lambda _: Answer(429)

    with pytest.raises(RegistryError) as caught:
        client.manifest(endpoint(fake), "1")

    assert "log in" in caught.value.hint


def test_dropped_connections_are_tried_again(client: Client, fake: FakeRegistry) -> None:
    """A registry that hangs up without an answer is asked again."""
    answers = iter([Answer(cut=-1), Answer(cut=-1), Answer(200, b"{}")])
    fake.script = lambda _: next(answers)

    assert b"{}" == client.manifest(endpoint(fake), "1").data


def test_a_manifest_cut_short_is_read_again(client: Client, fake: FakeRegistry) -> None:
    """A manifest that breaks off in the middle is asked for anew."""
    answers = iter([Answer(200, b'{"b": 2}', cut=3), Answer(200, b'{"b": 2}')])
    fake.script = lambda _: next(answers)

    assert b'{"b": 2}' == client.manifest(endpoint(fake), "1").data


def test_nobody_listens(client: Client) -> None:
    """An unreachable registry is named, with the reason."""
    with pytest.raises(Unreachable, match=r"cannot reach the registry 127\.0\.0\.1:\d+: Connection refused"):
        client.fetch(Reference.parse(f"127.0.0.1:{free_port()}/app:1"))


def test_a_blob_goes_on_where_it_broke(client: Client, fake: FakeRegistry) -> None:
    """A download that breaks three times is resumed by Range and whole in the end; no byte is sent twice."""
    cuts = iter([1000, 100_000, 1, None])
    fake.script = lambda request: blob_answer(DATA, request, cut=next(cuts))

    assert download(client, fake, descriptor(DATA)) == DATA
    ranges = [request.headers.get("range") for request in fake.requests if "/blobs/" in request.path]
    assert [None, "bytes=1000-", "bytes=101000-", "bytes=101001-"] == ranges


def test_a_blob_goes_on_without_ranges(client: Client, fake: FakeRegistry) -> None:
    """A registry that ignores Range sends all again; what is there already is skipped."""
    cuts = iter([300_000, None])
    fake.script = lambda _: Answer(200, DATA, cut=next(cuts))

    assert download(client, fake, descriptor(DATA)) == DATA


def test_a_wrong_range_is_not_taken(client: Client, fake: FakeRegistry) -> None:
    """A 206 that starts elsewhere than asked is refused, not glued to what came before."""

    def script(request: Request) -> Answer:
        if "range" not in request.headers:
            return Answer(200, DATA, cut=1000)
        return Answer(206, DATA[7:], {"Content-Range": f"bytes 7-{len(DATA) - 1}/{len(DATA)}"})

    fake.script = script

    with pytest.raises(RegistryError, match="1000 of 512000 bytes"):
        download(client, fake, descriptor(DATA))


def test_a_blob_that_is_too_short(client: Client, fake: FakeRegistry) -> None:
    """A blob whose content ends before the size in its descriptor is refused by digest."""
    fake.script = lambda request: blob_answer(DATA[:1000], request) if "range" not in request.headers else Answer(416)

    with pytest.raises(RegistryError):
        download(client, fake, descriptor(DATA))


def test_a_blob_that_never_grows(client: Client, fake: FakeRegistry) -> None:
    """A blob that always breaks off at the same place is given up, and the message says where."""
    fake.script = lambda _: Answer(200, DATA, cut=10)

    with pytest.raises(RegistryError, match=rf"sent 10 of {len(DATA)} bytes of sha256:"):
        download(client, fake, descriptor(DATA))


def test_a_blob_that_is_too_long(client: Client, fake: FakeRegistry) -> None:
    """A registry that sends more than the descriptor's size is refused."""
    fake.script = lambda request: blob_answer(DATA + b"x", request)

    with pytest.raises(RegistryError, match="sends more than the 512000 bytes"):
        download(client, fake, descriptor(DATA))


def test_a_manifest_with_the_wrong_digest(client: Client, fake: FakeRegistry) -> None:
    """A manifest asked for by digest is what the digest says, or nothing."""
    fake.script = lambda _: Answer(200, b"{}")

    with pytest.raises(RegistryError, match="sent a manifest that is not sha256:"):
        client.manifest(endpoint(fake), Digest.of(b"other"))


def test_a_manifest_that_never_ends(client: Client, fake: FakeRegistry) -> None:
    """What a registry calls a manifest is read up to a limit."""
    fake.script = lambda _: Answer(200, bytes(5 << 20))

    with pytest.raises(RegistryError, match="is larger than 4 MiB"):
        client.manifest(endpoint(fake), "1")


def test_a_config_with_the_wrong_digest(client: Client, fake: FakeRegistry) -> None:
    """A config of the right size and the wrong content is refused."""
    fake.script = lambda request: blob_answer(b"wrong", request)

    with pytest.raises(RegistryError, match="sent content that is not"):
        client.read_blob(endpoint(fake), descriptor(b"right"))


def test_redirects_lose_the_authorization(fake: FakeRegistry, other_fake: FakeRegistry) -> None:
    """A blob that lives on another host is fetched there without the credentials, Range and all."""

    def script(request: Request) -> Answer:
        if "authorization" not in request.headers:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        return Answer(307, headers={"Location": f"http://{other_fake.host}/storage?signature=x"})

    cuts = iter([100, None])
    fake.script = script
    other_fake.script = lambda request: blob_answer(DATA, request, cut=next(cuts))
    given = GivenCredentials(fake.host, Credentials(username="ann", password="pw"))

    with Client(credentials=given, network=QUICK) as client:
        data = download(client, fake, descriptor(DATA))

    assert data == DATA
    assert ["/storage?signature=x"] * 2 == other_fake.asked("GET")
    assert not [request for request in other_fake.requests if "authorization" in request.headers]
    assert "bytes=100-" == other_fake.requests[-1].headers["range"]


def test_redirects_on_the_same_host_keep_the_authorization(fake: FakeRegistry) -> None:
    """Within one origin the header stays: it would be asked for again."""

    def script(request: Request) -> Answer:
        if "authorization" not in request.headers:
            return Answer(401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        if request.path == "/elsewhere":
            return Answer(200, b"{}")
        return Answer(302, headers={"Location": "/elsewhere"})

    fake.script = script
    given = GivenCredentials(fake.host, Credentials(username="ann", password="pw"))

    with Client(credentials=given, network=QUICK) as client:
        assert b"{}" == client.manifest(endpoint(fake), "1").data


def test_redirects_in_a_circle(client: Client, fake: FakeRegistry) -> None:
    """Redirects that lead nowhere end."""
    fake.script = lambda request: Answer(307, headers={"Location": request.path})

    with pytest.raises(RegistryError, match="redirects again and again"):
        client.manifest(endpoint(fake), "1")


class TokenServer:
    """Scripts a registry and its token server on one host; every token is good for `uses` requests."""

    def __init__(self, fake: FakeRegistry, *, uses: int = 1000, anonymous: bool = True) -> None:
        self.fake = fake
        self.uses = uses
        self.anonymous = anonymous
        self.issued = 0
        self.left: dict[str, int] = {}
        fake.script = self.answer

    def answer(self, request: Request) -> Answer:
        if request.path.startswith("/token"):
            if not self.anonymous and "authorization" not in request.headers and request.method == "GET":
                return Answer(401)
            self.issued += 1
            token = f"token-{self.issued}"
            self.left[f"Bearer {token}"] = self.uses
            key = "access_token" if request.method == "POST" else "token"
            return Answer(200, json.dumps({key: token, "expires_in": 300}).encode())
        given = request.headers.get("authorization", "")
        if self.left.get(given, 0) <= 0:
            challenge = f'Bearer realm="http://{self.fake.host}/token",service="reg",scope="ignored"'
            return Answer(401, headers={"WWW-Authenticate": challenge})
        self.left[given] -= 1
        return Answer(200, b"{}", {"Docker-Content-Digest": Digest.of(b"{}")})


def test_bearer_tokens_are_fetched_once_and_shared(client: Client, fake: FakeRegistry) -> None:
    """One token, with the right service and scope, serves all requests of one repository."""
    TokenServer(fake)

    for _ in range(3):
        client.manifest(endpoint(fake), "1")

    tokens = [path for path in fake.asked("GET") if path.startswith("/token")]
    assert [{"service": ["reg"], "scope": ["repository:app:pull"]}] == [parse_qs(urlsplit(p).query) for p in tokens]


def test_an_expired_token_is_renewed(client: Client, fake: FakeRegistry) -> None:
    """A registry that no longer takes a token is asked again with a new one; nobody notices."""
    server = TokenServer(fake, uses=2)

    for _ in range(5):
        assert b"{}" == client.manifest(endpoint(fake), "1").data

    assert 3 == server.issued


def test_tokens_are_not_used_up_to_their_last_second(fake: FakeRegistry) -> None:
    """A token is replaced before the time its issuer gave it is over."""
    from layerstore.registry.http import Http
    from layerstore.registry.tokens import Tokens

    server = TokenServer(fake)
    times = [1000.0]
    http = Http(QUICK)
    tokens = Tokens(http, lambda _: None, clock=lambda: times[-1])
    place = endpoint(fake)
    tokens.challenged(place, f'Bearer realm="http://{fake.host}/token",service="reg"')

    headers = [tokens.header(place, ("repository:app:pull",))]
    for moment in (1285.0, 1295.0):
        times.append(moment)
        headers += [tokens.header(place, ("repository:app:pull",))]
    http.close()

    assert ["Bearer token-1", "Bearer token-1", "Bearer token-2"] == headers
    assert 2 == server.issued


def test_the_token_server_gets_the_password(fake: FakeRegistry) -> None:
    """Name and password go to the token server as basic authentication, and the registry sees only the token."""
    TokenServer(fake, anonymous=False)
    given = GivenCredentials(fake.host, Credentials(username="ann", password="pä:w"))

    with Client(credentials=given, network=QUICK) as client:
        client.manifest(endpoint(fake), "1")

    asked = [request for request in fake.requests if request.path.startswith("/token")]
    assert ["Basic YW5uOnDDpDp3"] == [request.headers["authorization"] for request in asked]
    assert "account=ann" in asked[0].path


def test_an_identity_token_is_exchanged_by_post(fake: FakeRegistry) -> None:
    """An identity token goes into an OAuth2 refresh, never into a URL or a header."""
    TokenServer(fake)
    given = GivenCredentials(fake.host, Credentials(identity_token="id-secret"))

    with Client(credentials=given, network=QUICK) as client:
        client.manifest(endpoint(fake), "1")

    (post,) = [request for request in fake.requests if request.method == "POST"]
    form = parse_qs(post.body.decode())
    assert (["refresh_token"], ["id-secret"], ["repository:app:pull"], ["reg"]) == (
        form["grant_type"],
        form["refresh_token"],
        form["scope"],
        form["service"],
    )


def test_without_credentials_the_hint_is_login(client: Client, fake: FakeRegistry) -> None:
    """A repository that wants a password says so and names the command."""
    TokenServer(fake, anonymous=False)

    with pytest.raises(AuthError, match="wants a name and a password") as caught:
        client.manifest(endpoint(fake), "1")

    assert f"log in with `pybuild login {fake.host}`" == caught.value.hint


def test_a_denied_repository(client: Client, fake: FakeRegistry) -> None:
    """403 is told as what it is, with the registry's own words."""
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no way"}]}).encode()
    fake.script = lambda _: Answer(403, body)

    with pytest.raises(AuthError, match=r"denies it \(no way\)"):
        client.manifest(endpoint(fake), "1")


def test_an_unknown_image(client: Client, fake: FakeRegistry) -> None:
    """404 is UnknownImage, which callers can tell from a registry that fails."""
    with pytest.raises(UnknownImage, match=r"cannot read 127.*/app:1: .* does not have it"):
        client.manifest(endpoint(fake), "1")


@pytest.mark.parametrize("status", [404, 200])
def test_head_falls_back_to_get(client: Client, fake: FakeRegistry, status: int) -> None:
    """A registry whose HEAD says nothing (no header, or an old proxy's 404) is asked in full."""
    fake.script = lambda request: Answer(status) if request.method == "HEAD" else Answer(200, b"{}")

    assert Digest.of(b"{}") == client.head(endpoint(fake), "1")


class Uploads:
    """Scripts a registry that takes uploads; `faults` are the answers that come before the good ones."""

    def __init__(self, fake: FakeRegistry, faults: list[Answer], *, location: str = "/v2/app/blobs/uploads/") -> None:
        self.faults = iter(faults)
        self.location = location
        self.numbers = itertools.count(1)
        fake.script = self.answer

    def answer(self, request: Request) -> Answer:
        if request.method == "POST":
            return Answer(202, headers={"Location": f"{self.location}{next(self.numbers)}?_state=a%2Bb"})
        return next(self.faults, Answer(201))


def opened(data: bytes) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.closing(io.BytesIO(data))


def test_an_upload_begins_again_after_a_fault(client: Client, fake: FakeRegistry) -> None:
    """Uploads that break, fail or get lost start over with a fresh session and the whole content."""
    Uploads(fake, [Answer(cut=-1), Answer(500), Answer(404)])
    counts: list[int] = []

    client.upload(endpoint(fake), Digest.of(DATA), len(DATA), lambda: opened(DATA), count=counts.append)

    puts = [request for request in fake.requests if request.method == "PUT"]
    assert [DATA] * 4 == [request.body for request in puts]
    assert [str(len(DATA))] * 4 == [request.headers["content-length"] for request in puts]
    assert all("transfer-encoding" not in request.headers for request in puts)
    query = parse_qs(urlsplit(puts[-1].path).query)
    assert {"_state": ["a+b"], "digest": [Digest.of(DATA)]} == query
    assert len(DATA) == counts[-1]


def test_an_upload_that_is_refused(client: Client, fake: FakeRegistry) -> None:
    """An upload that the registry finds wrong is not repeated."""
    Uploads(fake, [Answer(400, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())])

    with pytest.raises(RegistryError, match=r"upload a blob to .*HTTP 400 \(DIGEST_INVALID\)"):
        client.upload(endpoint(fake), Digest.of(DATA), len(DATA), lambda: opened(DATA))

    assert 1 == len(fake.asked("PUT"))


def test_an_upload_to_another_host_has_no_authorization(fake: FakeRegistry, other_fake: FakeRegistry) -> None:
    """The place an upload is sent to may be a store elsewhere, which must not see the credentials."""
    Uploads(fake, [], location=f"http://{other_fake.host}/store/")
    answer = fake.script
    basic = Answer(401, headers={"WWW-Authenticate": "Basic"})
    fake.script = lambda request: answer(request) if "authorization" in request.headers else basic
    other_fake.script = lambda _: Answer(201)
    given = GivenCredentials(fake.host, Credentials(username="ann", password="pw"))

    with Client(credentials=given, network=QUICK) as client:
        client.upload(endpoint(fake), Digest.of(DATA), len(DATA), lambda: opened(DATA))

    (put,) = [request for request in other_fake.requests if request.method == "PUT"]
    assert put.body == DATA
    assert "authorization" not in put.headers


def test_a_mount_that_is_not_done_is_given_back(client: Client, fake: FakeRegistry) -> None:
    """Where a registry begins an upload instead of mounting, that upload is canceled."""
    Uploads(fake, [Answer(204)])

    assert not client.mount_blob(endpoint(fake), Digest.of(DATA), "base/image")
    assert 1 == len(fake.asked("DELETE"))


def test_stop_ends_waiting(fake: FakeRegistry) -> None:
    """A client that is stopped gives up at once, also one that was told to wait for an hour."""
    fake.script = lambda _: Answer(503, headers={"Retry-After": "3600"})

    with Client(network=QUICK) as client:
        timer = threading.Timer(0.1, client.stop)
        timer.start()
        with pytest.raises(StoreError, match="canceled"):
            client.manifest(endpoint(fake), "1")
        timer.join()


def test_stop_ends_reading(fake: FakeRegistry) -> None:
    """A client that is stopped does not go on waiting for a registry that fell silent in the middle of a blob."""
    silence = threading.Event()
    fake.script = lambda _: Answer(200, DATA, cut=1000, hold=silence)

    with Client(network=Network(timeout=25)) as client:
        timer = threading.Timer(0.2, client.stop)
        timer.start()
        began = time.monotonic()
        with pytest.raises(StoreError, match="canceled"):
            download(client, fake, descriptor(DATA))
        took = time.monotonic() - began
        timer.join()
    silence.set()

    assert took < 5


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("Negotiate", None),
        ('Basic realm="x, y"', Challenge(bearer=False)),
        ("basic", Challenge(bearer=False)),
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a:pull,push"',
            Challenge(bearer=True, realm="https://a/t?x=1,2", service="s"),
        ),
        ('Basic realm="x", Bearer realm="https://a/t"', Challenge(bearer=True, realm="https://a/t")),
        ("bearer realm=https://a/t", Challenge(bearer=True, realm="https://a/t")),
        (r'Bearer realm="https://a/\"q\"",service=""', Challenge(bearer=True, realm='https://a/"q"')),
        ("Bearer", None),
    ],
)
def test_challenges(header: str, expected: Challenge | None) -> None:
    """WWW-Authenticate in the forms that registries really send."""
    assert expected == parse_challenge(header)


@pytest.mark.parametrize(
    ("host", "no", "expected"),
    [
        ("example.com", "", "http://proxy:3128"),
        ("localhost:5000", "", None),
        ("127.0.0.2:5000", "", None),
        ("example.com", "*", None),
        ("r.example.com", "example.com", None),
        ("r.example.com", ".example.com", None),
        ("notexample.com", "example.com", "http://proxy:3128"),
        ("example.com:5000", "other, example.com:5000", None),
        ("10.1.2.3:5000", "10.0.0.0/8", None),
        ("11.1.2.3:5000", "10.0.0.0/8", "http://proxy:3128"),
    ],
)
def test_proxies(host: str, no: str, expected: str | None) -> None:
    """NO_PROXY by name, domain, port and network; loopback is always direct."""
    assert expected == proxy_for({"https": "proxy:3128", "no": no}, "https", host)
