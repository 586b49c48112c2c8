"""Contexts that are fetched: git repositories, archives and Dockerfiles by their URLs."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.building import Project
from tests.gitserver import Server, serving

DATE = "Fri, 02 Jan 2015 03:04:05 GMT"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server for repositories and files."""
    with serving(tmp_path / "repositories") as made:
        yield made


def archive(files: dict[str, str], *, mtime: int = 0) -> bytes:
    """A tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), mtime
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


# -- git ------------------------------------------------------------------------------------------------------------


def test_git_context(project: Project, server: Server) -> None:
    """Its Dockerfile and its files, of the ref and directory that were asked for; the working directory has no say."""
    project.write("a", "not this")
    project.dockerfile("FROM nothing")
    repository = server.repository("r.git", Dockerfile="FROM scratch\nCOPY a /\n", a="1")
    repository.git("tag", "v1")
    repository.commit(a="2", sub__dockerfile="FROM scratch\nCOPY . /all/\n")

    assert {"a": b"2"} == project.files(repository.url)
    assert {"a": b"1"} == project.files(f"{repository.url}#v1")
    assert {"all/dockerfile": b"FROM scratch\nCOPY . /all/\n"} == project.files(f"{repository.url}?subdir=sub")


def test_git_context_is_cached(project: Project, server: Server) -> None:
    """Built again, everything is found; a commit in full does not even need the server."""
    repository = server.repository("r.git", Dockerfile="FROM scratch\nCOPY a /\n", a="1")
    project.build(repository.url)

    assert {True} == set(project.cached(repository.url).values())
    assert ["/r.git"] == server.fetches
    gone = repository.url.replace(server.host, "127.0.0.1:1")
    assert {True} == set(project.cached(f"{gone}#{repository.head}").values())
    assert "failed to fetch remote" in project.fails(gone)[0]


def test_no_cache_adds_a_repository_again(project: Project, server: Server) -> None:
    """--no-cache makes the layer of a repository anew, and the same."""
    repository = server.repository("r.git", a="1")
    project.dockerfile("FROM scratch", f"ADD {repository.url} /x/")
    assert {"x/a": b"1"} == project.files(".") == project.files("--no-cache", ".")
    assert False is list(project.cached("--no-cache", ".").values())[-1]


def test_no_ignore_file_applies(project: Project, server: Server) -> None:
    """What is committed is in the context, whatever .dockerignore says."""
    repository = server.repository("r.git", a="1", b="2")
    repository.write(".dockerignore", "a\n")
    repository.write("Dockerfile.dockerignore", "b\n")
    repository.commit(Dockerfile="FROM scratch\nCOPY a b /\n")

    assert {"a": b"1", "b": b"2"} == project.files(repository.url)


def test_files_of_a_git_context(project: Project, server: Server, tmp_path: Path) -> None:
    """`-f` is relative to the root or the subdirectory, links stay inside, and stdin may have the Dockerfile."""
    (tmp_path / "secret").write_text("FROM scratch\n")
    repository = server.repository("r.git", d__x="FROM scratch\nCOPY d/x /\n", d__y="FROM scratch\nCOPY y /\n")
    (repository.path / "Dockerfile").symlink_to("/d/x")
    (repository.path / "out").symlink_to(tmp_path / "secret")
    repository.commit()

    assert {"x"} == set(project.files("-f", "d/x", repository.url))
    assert {"x"} == set(project.files(repository.url))
    assert {"y"} == set(project.files("-f", "y", f"{repository.url}#main:d"))
    assert {"z"} == set(project.files("-f", "-", repository.url, stdin=b"FROM scratch\nCOPY d/y /z\n"))
    for name in ("nope", "out", "../../secret"):
        lines = project.fails("-f", name, repository.url)
        assert f"error: cannot read the Dockerfile {name} in {repository.url}: No such file or directory" == lines[0]


def test_run_in_a_git_context(project: Project, server: Server) -> None:
    """A step reads the context by a bind mount, and may be told to keep .git."""
    repository = server.repository("r.git", a="1")
    repository.commit(
        Dockerfile="FROM busybox\nRUN --mount=target=/in cp -r /in /out\nFROM scratch\nCOPY --from=0 /out /\n"
    )

    assert {"Dockerfile", "a"} == set(project.files(repository.url))
    kept = project.files("--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", repository.url)
    assert f"{repository.head}\n".encode() == kept[".git/HEAD"]


def test_a_directory_comes_first(project: Project) -> None:
    """`github.com/x/y` is a directory where there is one."""
    project.write("github.com/x/y/Dockerfile", "FROM scratch\nCOPY Dockerfile /here\n")

    assert {"here"} == set(project.files("github.com/x/y"))


def test_git_contexts_that_mean_nothing(project: Project, server: Server) -> None:
    """Queries are looked at before anything is fetched."""
    assert 'unexpected query "x"' in project.fails(f"{server.url('r.git')}?x=1", status=2)[0]
    assert [] == server.asked


def test_private_repository(project: Project, server: Server) -> None:
    """A token comes as a secret; without it the hint says so. The secret is in nothing that is kept."""
    repository = server.repository("r.git", Dockerfile="FROM scratch\nCOPY a /\n", a="1")
    server.token = "Bearer verysecretword"
    assert "--secret id=GIT_AUTH_TOKEN" in project.fails(repository.url)[-1]

    secret = ("--secret", "id=GIT_AUTH_HEADER,env=TOKEN")
    assert {"a": b"1"} == project.files(*secret, repository.url, env={"TOKEN": server.token})
    kept = (path for path in project.root.rglob("*") if path.is_file())
    assert not any(b"verysecretword" in path.read_bytes() for path in kept)


def test_check_of_a_git_context(project: Project, server: Server) -> None:
    """A Dockerfile in a repository is checked like another."""
    repository = server.repository("r.git", Dockerfile="FROM scratch\nMAINTAINER me\n")

    assert b"MaintainerDeprecated" in project("check", repository.url, status=1).out
    assert b"MaintainerDeprecated" in project("build", "--check", repository.url, status=1).out


# -- HTTP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "xz", "zstd"],
)
def test_archive_by_url(project: Project, server: Server, compress: Callable[[bytes], bytes]) -> None:
    """A tar is unpacked; `-f` is a file in it, and no ignore file applies."""
    tar = archive(
        {"Dockerfile": "FROM scratch\nCOPY a /\n", "x/y": "FROM scratch\nCOPY a /b\n", "a": "1", ".dockerignore": "a\n"}
    )
    server.files["/c.tar"] = (compress(tar), "")

    assert {"a": b"1"} == project.files(server.url("c.tar"))
    assert {"b": b"1"} == project.files("-f", "x/y", server.url("c.tar"))


def test_dockerfile_by_url(project: Project, server: Server) -> None:
    """Anything else is the Dockerfile, and alone in its context."""
    server.files["/d"] = (b"FROM scratch\nCOPY . /x/\n", DATE)

    assert {"x/context": b"FROM scratch\nCOPY . /x/\n"} == project.files(server.url("d"))
    assert "is a Dockerfile, so it holds no file for -f" in project.fails("-f", "x", server.url("d"), status=2)[0]
    assert "invalid response status 404" in project.fails(server.url("nope"))[0]


# -- named contexts -------------------------------------------------------------------------------------------------


def test_named_git_context(project: Project, server: Server) -> None:
    """A repository for FROM, COPY --from, RUN --mount, and in the place of a stage; unused ones are not asked for."""
    repository = server.repository("r.git", a="1", bin__b="2")
    project.dockerfile("FROM busybox AS one", "RUN --mount=from=lib,target=/lib cp /lib/a /mounted",
                       "FROM lib AS two", "FROM lib",
                       "COPY --from=one /mounted /", "COPY --from=lib bin /copied/",
                       "COPY --from=two a /two")  # fmt: skip
    given = ("--build-context", f"lib={repository.url}#main", "--build-context", "none=git://127.0.0.1:1/x")

    found = project.files(*given, ".")
    assert {"a": b"1", "bin/b": b"2", "mounted": b"1", "copied/b": b"2", "two": b"1"} == found
    assert {True} == set(project.cached(*given, ".").values())


def test_named_file(project: Project, server: Server) -> None:
    """A URL is a context with that file, as it is: an archive stays one."""
    tar = archive({"a": "1"})
    server.files["/x/f.tar"] = (tar, DATE)
    project.dockerfile("FROM scratch", "COPY --from=lib f.tar /")

    assert {"f.tar": tar} == project.files("--build-context", f"lib={server.url('x/f.tar')}", ".")


def test_named_context_that_cannot_be_had(project: Project) -> None:
    """The error is at what needs it."""
    project.dockerfile("FROM scratch", "COPY --from=lib a /")

    lines = project.fails("--build-context", "lib=git://127.0.0.1:1/x", ".")
    assert lines[0].startswith("Dockerfile:2:")
    assert "failed to fetch remote git://127.0.0.1:1/x" in lines[0]


# -- SOURCE_DATE_EPOCH ----------------------------------------------------------------------------------------------


def test_epoch_of_contexts(project: Project, server: Server) -> None:
    """The commit's time, the server's date, an archive's newest file; a directory has none, a named context its own."""
    dockerfile = "FROM scratch\nCOPY Dockerfile /\n"
    repository = server.repository("r.git", Dockerfile=dockerfile)
    server.files["/dated.tar"] = (archive({"Dockerfile": dockerfile}, mtime=86400), DATE)
    server.files["/undated.tar"] = (archive({"Dockerfile": dockerfile}, mtime=86400), "")
    project.dockerfile("FROM scratch", "COPY Dockerfile /")

    def created(value: str, *words: str) -> str:
        return str(project.config(project.id("--build-arg", f"SOURCE_DATE_EPOCH={value}", *words))["created"])

    assert "2017-07-14T02:40:00Z" == created("context", repository.url)
    assert "2015-01-02T03:04:05Z" == created("context", server.url("dated.tar"))
    assert "1970-01-02T00:00:00Z" == created("context", server.url("undated.tar"))
    named = ("--build-context", f"lib={repository.url}", "--build-context", f"here={os.curdir}", ".")
    assert "2017-07-14T02:40:00Z" == created("lib", *named)
    assert created("here", *named) > "2020"
