"""Images in and out on the command line: registries, archives, imports."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Pybuild
from tests.layerstore.registry.conftest import PASSWORD, USER, RealRegistry, free_port, start_registry, stop_registry

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that lets everyone in."""
    running = start_registry(tmp_path_factory.mktemp("registry"), password=False)
    yield running
    stop_registry(running)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that wants USER and PASSWORD."""
    running = start_registry(tmp_path_factory.mktemp("closed"), password=True)
    yield running
    stop_registry(running)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tar of a very small root file system."""
    path = tmp_path / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        header = tarfile.TarInfo("etc/motd")
        header.size = 6
        tar.addfile(header, io.BytesIO(b"hello\n"))
    return path


def imported(pybuild: Pybuild, rootfs: Path, name: str) -> str:
    return pybuild("import", str(rootfs), name, env={"SOURCE_DATE_EPOCH": "1600000000"}).out.strip()


def test_push_and_pull(pybuild: Pybuild, rootfs: Path, registry: RealRegistry, tmp_path: Path) -> None:
    """A pushed image is pulled elsewhere under its name, with its digest; quiet commands print the name only."""
    name = f"{registry.host}/cli/app:1"
    identity = imported(pybuild, rootfs, name)
    other = Pybuild(tmp_path / "other", pybuild.cwd)

    pushed = pybuild("push", name)
    pulled = other("pull", name)
    again = other("pull", name)
    quiet = other("pull", "-q", name)

    assert (f"{name}\n", f"{name}\n") == (pushed.out, pulled.out)
    digest = [line for line in pushed.err.splitlines() if line.startswith("digest: sha256:")]
    assert digest == [line for line in pulled.err.splitlines() if line.startswith("digest: ")]
    assert ": pushed\n" in pushed.err
    assert ": pull complete\n" in pulled.err
    assert pulled.err.endswith(" is now here\n")
    assert again.err.endswith(" was up to date\n")
    assert (f"{name}\n", "") == (quiet.out, quiet.err)
    assert identity == json.loads(other("inspect", name).out)[0]["Id"]


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_push_with_compression(pybuild: Pybuild, rootfs: Path, registry: RealRegistry, compression: str) -> None:
    """--compression decides how the layers are sent."""
    name = f"{registry.host}/cli/{compression}:1"
    imported(pybuild, rootfs, name)

    pybuild("push", "-q", "--compression", compression, name)

    manifest = json.loads(
        subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
        ).stdout
    )
    ending = {"uncompressed": ".tar", "gzip": ".tar+gzip", "zstd": ".tar+zstd"}[compression]
    assert [True] == [layer["mediaType"].endswith(ending) for layer in manifest["layers"]]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("push", "none:1"), 1, "no image here is called none:1"),
        (("push", "--compression", "lz4", "x"), 2, "lz4"),
        (("push", "--compression-level", "5", "x"), 2, "means nothing with no --compression"),
        (("push", "--compression", "gzip", "--compression-level", "12", "x"), 2, "means nothing with gzip"),
        (("pull", "UPPER"), 1, "must be lowercase"),
        (("pull", "--platform", "nonsense", "x"), 1, '"nonsense": unknown operating system or architecture'),
        (("pull",), 2, "missing argument"),
        (("login", "-u", "a", "-p", "b", "--password-stdin", "x"), 2, "exclude each other"),
        (("login", "--password-stdin", "x"), 2, "needs --username"),
        (("login", "x"), 2, "no terminal to ask for the username"),
        (("login", "-u", "a", "--password-stdin", "x"), 2, "the password is empty"),
        (("login", "-u", "a", "-p", "b", "a b"), 2, "is no registry"),
        (("save",), 2, "missing argument"),
        (("save", "--format", "oci-dir", "x"), 2, "writes a directory"),
        (("save", "none"), 1, "no image here is called none"),
        (("load",), 1, "this is no image archive"),
        (("load", "-i", "missing.tar"), 1, "cannot read"),
        (("import", "missing.tar"), 1, "cannot read missing.tar"),
        (("import", "https://example.com/x.tar"), 2, "is remote"),
        (("import", "-c", "RUN x", "-"), 2, "--change cannot do RUN"),
        (("import", "-c", "NONSENSE x", "-"), 1, "NONSENSE"),
        (("import", "-", "x@sha256:" + "0" * 64), 2, "has a digest"),
    ],
)
def test_mistakes(pybuild: Pybuild, words: tuple[str, ...], status: int, message: str) -> None:
    """Every mistake is one message and an exit status, never a traceback."""
    done = pybuild(*words, status=status)

    assert message in done.err
    assert done.err.startswith(("error: ", "--change:"))
    assert "Traceback" not in done.err


def test_unreachable(pybuild: Pybuild) -> None:
    """A registry that nobody runs is named with the reason."""
    host = f"127.0.0.1:{free_port()}"

    done = pybuild("pull", f"{host}/x", status=1)

    assert f"error: cannot reach the registry {host}: Connection refused\n" in done.err


def test_login(pybuild: Pybuild, rootfs: Path, closed: RealRegistry) -> None:
    """Without login a closed registry says so; with it, push and pull work; logout forgets."""
    name = f"{closed.host}/private/app:1"
    imported(pybuild, rootfs, name)
    config = pybuild.cwd / ".docker" / "config.json"

    before = pybuild("push", name, status=1)
    wrong = pybuild("login", "-u", USER, "--password-stdin", closed.host, stdin="wrong\n", status=1)
    assert not config.exists()
    done = pybuild("login", "-u", USER, "--password-stdin", f"http://{closed.host}/v2/", stdin=f"{PASSWORD}\n")
    mode = stat.S_IMODE(config.stat().st_mode)
    pybuild("push", name)
    pybuild("pull", name)
    gone = pybuild("logout", closed.host)
    none = pybuild("logout", closed.host)
    after = pybuild("pull", name, status=1)

    assert f"hint: log in with `pybuild login {closed.host}`" in before.err
    assert "wants a name and a password" in wrong.err
    assert f"Login Succeeded; the credentials are in {config}\n" == done.out
    assert 0o600 == mode
    assert f"Removed the credentials for {closed.host}\n" == gone.out
    assert f"Not logged in to {closed.host}\n" == none.out
    assert "pybuild login" in after.err


def test_registry_auth_file(pybuild: Pybuild, closed: RealRegistry, tmp_path: Path) -> None:
    """REGISTRY_AUTH_FILE names the one file with credentials, as for podman and skopeo; skopeo reads what is there."""
    auth = tmp_path / "auth.json"
    env = {"REGISTRY_AUTH_FILE": str(auth)}
    pybuild("login", "-u", USER, "--password-stdin", closed.host, stdin=PASSWORD, env=env)

    assert auth.exists()
    assert not (pybuild.cwd / ".docker").exists()
    shown = subprocess.run(
        ["skopeo", "login", "--get-login", "--authfile", str(auth), closed.host],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{USER}\n" == shown.stdout


def test_mirrors(pybuild: Pybuild, rootfs: Path, registry: RealRegistry, tmp_path: Path) -> None:
    """CONTAINERS_REGISTRIES_CONF sends a pull of docker.io to a mirror."""
    name = f"{registry.host}/hub/library/thing:1"
    identity = imported(pybuild, rootfs, name)
    pybuild("push", name)
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[[registry]]\nprefix = "docker.io"\n[[registry.mirror]]\nlocation = "{registry.host}/hub"\n', encoding="utf-8"
    )

    done = pybuild("pull", "thing:1", env={"CONTAINERS_REGISTRIES_CONF": str(conf)})

    assert "docker.io/library/thing:1\n" == done.out
    assert identity == json.loads(pybuild("inspect", "thing:1").out)[0]["Id"]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci", "oci-dir"])
def test_save_and_load(pybuild: Pybuild, rootfs: Path, tmp_path: Path, form: str) -> None:
    """Each format is written whole and loaded under its name in another store."""
    identity = imported(pybuild, rootfs, "thing:1")
    other = Pybuild(tmp_path / "other", pybuild.cwd)

    pybuild("save", "--format", form, "-o", "saved", "thing:1")
    loaded = other("load", "-i", "saved")
    quiet = other("load", "-q", "-i", "saved")

    assert "Loaded image: thing:1\n" == loaded.out
    assert "thing:1\n" == quiet.out
    assert identity == json.loads(other("inspect", "thing:1").out)[0]["Id"]
    assert ["saved"] == os.listdir(pybuild.cwd)


def test_save_by_id(pybuild: Pybuild, rootfs: Path, tmp_path: Path) -> None:
    """An image saved by its ID has no name in the archive, and says its ID when it is loaded."""
    identity = imported(pybuild, rootfs, "thing:1")
    other = Pybuild(tmp_path / "other", pybuild.cwd)
    pybuild("save", "-o", "saved", identity)

    assert f"Loaded image ID: {identity}\n" == other("load", "-i", "saved").out


def test_save_does_not_leave_half_a_file(pybuild: Pybuild, rootfs: Path) -> None:
    """A file that cannot be written is told, and what was there stays."""
    imported(pybuild, rootfs, "thing:1")
    (pybuild.cwd / "there").mkdir()

    done = pybuild("save", "-o", "there", "thing:1", status=1)

    assert "there is no file" in done.err
    assert [] == os.listdir(pybuild.cwd / "there")
    assert ["there"] == os.listdir(pybuild.cwd)


def test_import(pybuild: Pybuild, rootfs: Path) -> None:
    """The changes are in the config, the message in the history; the same tar at the same time makes the same image."""
    packed = rootfs.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(rootfs.read_bytes()))
    changes = ("-c", 'CMD ["cat", "/etc/motd"]', "-c", "ENV A=1 B=$A", "-c", "WORKDIR /srv", "-c", "EXPOSE 80")
    env = {"SOURCE_DATE_EPOCH": "1600000000"}

    first = pybuild("import", *changes, "-m", "from a test", str(rootfs), "thing:1", env=env)
    second = pybuild("import", *changes, "-m", "from a test", "--platform", "linux", str(packed), env=env)

    shown = json.loads(pybuild("inspect", "thing:1").out)[0]
    assert first.out == second.out == shown["Id"] + "\n"
    assert ["cat", "/etc/motd"] == shown["Config"]["Cmd"]
    assert ["A=1", "B="] == shown["Config"]["Env"][1:]
    assert ("/srv", {"80/tcp": {}}) == (shown["Config"]["WorkingDir"], shown["Config"]["ExposedPorts"])
    assert ("from a test", "2020-09-13T12:26:40Z") == (shown["Comment"], shown["Created"])


def test_build_pushes(pybuild: Pybuild, rootfs: Path, registry: RealRegistry) -> None:
    """FROM pulls from a registry, --push sends the result to one."""
    base = f"{registry.host}/cli/base:1"
    imported(pybuild, rootfs, base)
    pybuild("push", base)
    pybuild("rmi", base)
    name = f"{registry.host}/cli/built:1"

    pybuild("build", "-q", "--push", "-t", name, "-f", "-", ".", stdin=f"FROM {base}\nLABEL a=b\n")

    shown = json.loads(
        subprocess.run(
            ["skopeo", "inspect", "--config", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
        ).stdout
    )
    assert {"a": "b"} == shown["config"]["Labels"]
