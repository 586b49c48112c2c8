"""What `pybuild build` is given: contexts, Dockerfiles, arguments, secrets, and what surrounds its steps."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.building import Project

COPY_A = ("FROM scratch", "COPY a /")


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def said(project: Project, *words: str, **options: object) -> list[str]:
    """The lines that steps print, without what progress puts before them."""
    err = project.build("--no-cache", *words, **options).err
    return [match[1] for line in err.splitlines() if (match := re.match(r"#\d+ \d+\.\d+ (.*)", line))]


# -- where the Dockerfile and the context come from ---------------------------------------------------------------


def test_dockerfile_on_stdin(project: Project) -> None:
    """`-f -` takes the Dockerfile from stdin and the context from the directory."""
    project.write("a", "from the directory")

    assert {"a": b"from the directory"} == project.files("-f", "-", ".", stdin=b"FROM scratch\nCOPY a /\n")


def test_stdin_without_a_context(project: Project) -> None:
    """`-` with the text of a Dockerfile is a build without a context."""
    project.write("a", "not seen")
    project.build("-t", "none:1", "-", stdin=b"FROM busybox\nLABEL a=b\n")

    assert {"a": "b"} == project.config("none:1")["config"]["Labels"]
    lines = project.fails("-", stdin=b"FROM scratch\nCOPY a /\n")
    assert lines[0].startswith(
        'Dockerfile:2:6: error[build]: failed to calculate checksum of ref context: "/a": not found'
    )
    assert "hint: the build context is empty: give a directory" == lines[-1]
    assert {} == project.files("-", stdin=b"FROM scratch\nCOPY a* .\nCOPY . /\n")


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, lzma.compress, bz2.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "xz", "bzip2", "zstd"],
)
def test_tar_on_stdin(project: Project, compress: Callable[[bytes], bytes]) -> None:
    """`-` with a tar, however compressed, is the context with its Dockerfile; as with BuildKit nothing is left out."""
    files = {"Dockerfile": b"FROM scratch\nCOPY . /\n", "a": b"1", "b": b"2", ".dockerignore": b"b\nDockerfile\n"}

    assert files == project.files("-", stdin=compress(tar_of(files)))


def test_tar_on_stdin_with_a_file(project: Project) -> None:
    """`-f` names a Dockerfile inside the tar."""
    tar = tar_of({"sub/other": b"FROM scratch\nCOPY a /x\n", "a": b"1"})

    assert {"x": b"1"} == project.files("-f", "sub/other", "-", stdin=tar)


def test_a_tar_that_leaves_nothing(project: Project) -> None:
    """The unpacked tar is gone afterwards, also if the build failed."""
    project.fails("-", stdin=tar_of({"Dockerfile": b"FROM scratch\nCOPY missing /\n"}))

    assert [] == [name for name in os.listdir(project.root / "tmp") if name.startswith("context")]


def test_lower_case_dockerfile(project: Project) -> None:
    """`dockerfile` is taken where there is no `Dockerfile`, which is taken first."""
    project.write("a", "1")
    project.write("dockerfile", "FROM scratch\nCOPY a /lower\n")
    assert {"lower": b"1"} == project.files(".")

    project.write("Dockerfile", "FROM scratch\nCOPY a /upper\n")
    assert {"upper": b"1"} == project.files(".")


def test_dockerfile_is_a_symlink(project: Project) -> None:
    """A link is followed, also out of the context."""
    project.write("elsewhere/real", "FROM scratch\nCOPY a /\n")
    project.write("context/a", "1")
    os.symlink("../elsewhere/real", project.cwd / "context" / "Dockerfile")

    assert {"a": b"1"} == project.files("context")


def test_file_is_relative_to_the_working_directory(project: Project) -> None:
    """`-f` does not start at the context, and may lie outside of it."""
    project.write("other.Dockerfile", "FROM scratch\nCOPY a /outside\n")
    project.write("context/other.Dockerfile", "FROM scratch\nCOPY a /inside\n")
    project.write("context/a", "1")

    assert {"outside": b"1"} == project.files("-f", "other.Dockerfile", "context")
    assert {"inside": b"1"} == project.files("-f", "context/other.Dockerfile", "context")


def test_its_own_ignore_file(project: Project) -> None:
    """`<Dockerfile>.dockerignore` beside the Dockerfile wins over the context's."""
    project.write("ci.Dockerfile", "FROM scratch\nCOPY . /\n")
    project.write("ci.Dockerfile.dockerignore", "*\n!a\n")
    project.write("context/a", "1")
    project.write("context/b", "2")
    project.write("context/.dockerignore", "a\n.dockerignore\n")

    assert {"a": b"1"} == project.files("-f", "ci.Dockerfile", "context")
    project.write("context/Dockerfile", "FROM scratch\nCOPY . /\n")
    assert {"b", "Dockerfile"} == set(project.files("context"))


# -- arguments, labels, stages --------------------------------------------------------------------------------------


def test_build_args(project: Project) -> None:
    """`K=V` is the value, `K` takes it from the environment, and one that is not set there is not given."""
    project.dockerfile("FROM busybox", "ARG A=a", "ARG B=b", "ARG C=c", "RUN echo $A-$B-$C")
    words = ("--build-arg", "A=1", "--build-arg", "B", "--build-arg", "C", ".")

    assert ["1-2-c"] == said(project, *words, env={"B": "2"})


def test_labels(project: Project) -> None:
    """`--label` adds to the Dockerfile's labels and wins over them."""
    project.dockerfile("FROM scratch", "LABEL a=1 b=1")
    project.build("-t", "labels", "--label", "b=2", "--label", "c=x=y", "--label", "d", ".")

    assert {"a": "1", "b": "2", "c": "x=y", "d": ""} == project.config("labels:latest")["config"]["Labels"]


def test_target(project: Project) -> None:
    """`--target` builds a stage, by name in any case, and nothing that it does not need."""
    project.write("a", "1")
    project.dockerfile("FROM scratch AS one", "COPY a /one", "FROM scratch AS two", "COPY missing /", "FROM one")

    assert {"one": b"1"} == project.files("--target", "ONE", ".")
    assert "COPY missing /" not in project.cached(".")


def test_no_cache(project: Project) -> None:
    """`--no-cache` makes everything anew, `--no-cache-filter` only the stages that it names."""
    project.dockerfile("FROM busybox AS one", "RUN echo 1 >/f", "FROM busybox AS two", "RUN echo 2 >/f",
                       "FROM scratch", "COPY --from=one /f /1", "COPY --from=two /f /2")  # fmt: skip
    project.build(".")
    assert {True} == set(project.cached(".").values())

    anew = project.cached("--no-cache", ".")
    assert {"RUN echo 1 >/f", "RUN echo 2 >/f", "COPY --from=one /f /1", "COPY --from=two /f /2"} == {
        name for name, cached in anew.items() if not cached
    }
    assert {"RUN echo 2 >/f"} == {
        name for name, cached in project.cached("--no-cache-filter", "two", ".").items() if not cached
    }


# -- named contexts -------------------------------------------------------------------------------------------------


def test_build_context_directory(project: Project) -> None:
    """A directory by a name of its own, with its own ignore file; it may also take the place of a stage."""
    project.write("shared/a", "1")
    project.write("shared/b", "2")
    project.write("shared/.dockerignore", "b\n")
    project.write(
        "main/Dockerfile",
        "FROM scratch AS st\nCOPY x /\nFROM scratch\nCOPY --from=lib a /1\nCOPY --from=st a /2\n",
    )

    words = ("--build-context", "lib=shared", "--build-context", "st=shared", "main")
    assert {"1": b"1", "2": b"1"} == project.files(*words)
    project.write("main/Dockerfile", "FROM scratch\nCOPY --from=lib b /\n")
    assert "error" in project.fails("--build-context", "lib=shared", "main")[0]


def test_build_context_image(project: Project) -> None:
    """`docker-image://` replaces the image of a FROM."""
    project.dockerfile("FROM nowhere.invalid/base:1", "RUN test -x /bin/busybox")
    project.build("--build-context", "nowhere.invalid/base:1=docker-image://busybox", ".")


def test_build_context_layout(project: Project) -> None:
    """`oci-layout://` takes an image from a directory, by its tag."""
    project.write("a", "1")
    project.dockerfile(*COPY_A)
    project.build("-t", "packed:7", "-o", "type=oci,tar=false,dest=layout", ".")
    project("rmi", "packed:7")
    project.dockerfile("FROM base AS b", "FROM scratch", "COPY --from=b a /copied")

    assert {"copied": b"1"} == project.files("--build-context", "base=oci-layout://layout:7", ".")
    lines = project.fails("--build-context", "base=oci-layout://layout:8", ".")
    assert "8" in lines[0]
    assert lines[1].startswith("hint: it has ")


# -- secrets and agents ---------------------------------------------------------------------------------------------


def test_secrets(project: Project) -> None:
    """A secret comes from a file or a variable; it is in no later build's key."""
    project.write("token.txt", "from-file")
    project.dockerfile(
        "FROM busybox",
        "RUN --mount=type=secret,id=f,required rev /run/secrets/f",
        "RUN --mount=type=secret,id=v,env=V,required echo ${#V}",
        "RUN --mount=type=secret,id=w,required rev /run/secrets/w && echo",
        "RUN ls /run/secrets 2>/dev/null || echo gone",
    )
    words = ("--secret", "id=f,src=token.txt", "--secret", "id=v,env=MINE", "--secret", "id=w")
    env = {"MINE": "from-variable", "w": "by-its-id"}
    assert ["elif-morf", "13", "di-sti-yb", "gone"] == said(project, *words, ".", env=env)

    env["MINE"] = "changed"
    assert {True} == set(project.cached(*words, ".", env=env).values())


def test_a_secret_that_is_missing(project: Project) -> None:
    """A required secret that was not given is an error at the RUN; a source that cannot be had, of the option."""
    project.dockerfile("FROM busybox", "RUN --mount=type=secret,id=f,required true")

    lines = project.fails(".")
    assert "Dockerfile:2:1: error[secret]: secret f: not found" == lines[0]
    assert "hint: pass --secret id=f,src=FILE or id=f,env=NAME" == lines[-1]
    assert "error: --secret f: cannot read f: No such file or directory" == project.fails("--secret", "id=f", ".")[0]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A socket that answers everyone with a word."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(b"a key\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_ssh(project: Project, agent: Path) -> None:
    """A step speaks with the socket of the caller's agent, named or taken from the environment."""
    project("base", "host", "-t", "perl", "sh", "perl")
    connect = 'socket(S, 1, 1, 0); connect(S, pack("Sa108", 1, $ENV{SSH_AUTH_SOCK})) or die $!; print <S>'
    project.dockerfile("FROM perl", f"RUN --mount=type=ssh,required perl -e '{connect}'")

    assert ["a key"] == said(project, "--ssh", f"default={agent}", ".")
    assert ["a key"] == said(project, "--ssh", "default", ".", env={"SSH_AUTH_SOCK": str(agent)})
    assert "SSH_AUTH_SOCK is not set" in project.fails("--ssh", "default", ".", status=2)[0]


# -- what steps find around them ------------------------------------------------------------------------------------


def test_add_host(project: Project) -> None:
    """`--add-host` adds a line to /etc/hosts of the steps; nothing of it is in the image."""
    project.dockerfile("FROM busybox", "RUN grep -w db /etc/hosts")

    assert ["10.1.2.3\tdb"] == said(project, "--add-host", "db:10.1.2.3", "-t", "hosts", ".")
    files = project.files("--add-host", "db:10.1.2.3", ".")
    assert b"10.1.2.3" not in b"".join(data for name, data in files.items() if name.startswith("etc/"))


def test_network_none(project: Project) -> None:
    """Without a network there is the loopback interface only."""
    project.dockerfile("FROM busybox", "RUN ls /sys/class/net; ip route | wc -l")

    assert ["lo", "0"] == said(project, "--network", "none", ".")


def test_network_host(project: Project) -> None:
    """With the host's network, steps see its interfaces."""
    project.dockerfile("FROM busybox", "RUN ls /sys/class/net")
    ours = sorted(name for name in os.listdir("/sys/class/net") if not name.startswith("pb"))

    seen = said(project, "--network", "host", "--allow", "network.host", ".")
    assert ours == sorted(name for name in seen if not name.startswith("pb"))


def test_network_bridge(project: Project) -> None:
    """On the bridge a step has an address, a way out and a name server."""
    project.dockerfile(
        "FROM busybox",
        "RUN ip -4 -o addr show dev eth0 | awk '{print $4}'; ip route | awk '/default/ {print $3}'; \\",
        "    grep -c . /etc/resolv.conf",
    )
    address, gateway, names = said(project, "--network", "bridge", ".")

    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+/\d+", address)
    assert address.rsplit(".", 1)[0] == gateway.rsplit(".", 1)[0]
    assert int(names) > 0


def test_limits(project: Project) -> None:
    """`--shm-size` and `--ulimit` hold inside the step."""
    project.dockerfile("FROM busybox", "RUN df -k /dev/shm | awk 'NR==2 {print $2}'; ulimit -n; ulimit -Hn")

    assert ["8192", "100", "200"] == said(project, "--shm-size", "8m", "--ulimit", "nofile=100:200", ".")
    for words in (("--shm-size", "much"), ("--ulimit", "nofile=x"), ("--ulimit", "unheard=1")):
        assert words[1].partition("=")[0] in project.fails(*words, ".", status=2)[0]


def test_entitlements(project: Project) -> None:
    """What a RUN asks for is given only if the caller allows it."""
    project.dockerfile("FROM busybox", "RUN --security=insecure grep CapEff /proc/self/status")
    lines = project.fails(".")
    assert lines[0].startswith("Dockerfile:2:")
    assert "security.insecure" in "".join(lines)
    assert "--allow" in lines[-1]

    ours = re.findall(r"CapEff:\t(\w+)", Path("/proc/self/status").read_text())
    assert [f"CapEff:\t{ours[0]}"] == said(project, "--allow", "security.insecure", ".")


# -- platforms and times --------------------------------------------------------------------------------------------


def test_platform(project: Project) -> None:
    """`--platform` is the image's; one that is none is refused, one that the base does not have says so."""
    project.dockerfile("FROM scratch", "LABEL a=b")
    project.build("--platform", "linux/arm64", "-t", "arm", ".")
    config = project.config("arm:latest")
    assert ("linux", "arm64") == (config["os"], config["architecture"])

    for text in ("linux/amd64,", "not a platform", "linux/a/b/c"):
        project.fails("--platform", text, ".")


def test_source_date_epoch(project: Project) -> None:
    """All times of the image are the given one, from the environment or an argument."""
    project.write("a", "1")
    project.dockerfile("FROM scratch", "COPY a /", "LABEL a=b")
    project.build("-t", "dated", ".", env={"SOURCE_DATE_EPOCH": "1000000000"})
    config = project.config("dated:latest")

    assert "2001-09-09T01:46:40Z" == config["created"]
    assert {"2001-09-09T01:46:40Z"} == {step["created"] for step in config["history"]}
    project.build("-t", "dated2", "--build-arg", "SOURCE_DATE_EPOCH=1000000000", ".")
    assert config == project.config("dated2:latest")
    assert "invalid SOURCE_DATE_EPOCH: soon" in project.fails("--build-arg", "SOURCE_DATE_EPOCH=soon", ".")[0]
    assert "invalid SOURCE_DATE_EPOCH: soon" in project.fails(".", env={"SOURCE_DATE_EPOCH": "soon"})[0]


def test_times_of_exported_files(project: Project) -> None:
    """Files that are exported all have the given time; without one they keep their own."""
    project.write("d/a", "1")
    os.utime(project.cwd / "d/a", ns=(0, 7_000_000_000))
    project.dockerfile("FROM scratch", "COPY d /d")
    env = {"SOURCE_DATE_EPOCH": "1000000000"}

    project.build("--output", "type=tar,dest=own.tar", ".")
    project.build("--output", "type=tar,dest=dated.tar", "--output", "type=local,dest=out", ".", env=env)

    with tarfile.open(project.cwd / "own.tar") as own, tarfile.open(project.cwd / "dated.tar") as dated:
        assert 7 == own.getmember("d/a").mtime
        assert {"d": 1_000_000_000, "d/a": 1_000_000_000} == {member.name: member.mtime for member in dated}
    found = [os.lstat(project.cwd / path).st_mtime_ns for path in ("out/d", "out/d/a")]
    assert [1_000_000_000_000_000_000] * 2 == found


def test_rewrite_timestamp(project: Project) -> None:
    """Later times in new layers are clamped, so that a build makes the same image again; the base is left alone."""
    project.write("old", "1")
    os.utime(project.cwd / "old", ns=(0, 7_000_000_000))
    project.dockerfile(
        "FROM busybox", "COPY old /d/", "RUN echo x >/d/new && ln /d/new /d/link && rm /bin/yes", "WORKDIR /made"
    )
    env = {"SOURCE_DATE_EPOCH": "1000000000"}
    words = ("-t", "app:1", "--output", "type=image,rewrite-timestamp=true")

    first = project.id(*words, ".", env=env)
    assert first == project.id("--no-cache", *words, ".", env=env)
    assert first == project.id(*words, "--output", "type=oci,dest=a.tar,rewrite-timestamp=true", ".", env=env)
    plain = project.id("--no-cache", "-t", "plain:1", ".", env=env)
    assert first != plain

    project.build("-t", "again:1", "--output", "type=tar,dest=all.tar", "--no-cache", ".")
    base = project.config("busybox:latest")["rootfs"]["diff_ids"]
    layers = project.config("app:1")["rootfs"]["diff_ids"]
    assert base == layers[: len(base)]
    project.write(
        "check/Dockerfile", "FROM app:1\nRUN stat -c '%n %Y %h' /d/old /d/new /d/link /made; ls /bin/yes || true\n"
    )
    assert [
        "/d/old 7 1", "/d/new 1000000000 2", "/d/link 1000000000 2", "/made 1000000000 2",
        "ls: /bin/yes: No such file or directory",
    ] == said(project, "check")  # fmt: skip


def test_rewrite_timestamp_needs_a_time(project: Project) -> None:
    """Without SOURCE_DATE_EPOCH there is nothing to clamp to; two outputs cannot disagree."""
    project.dockerfile("FROM scratch", "LABEL a=b")
    rewrite = ("--output", "type=image,rewrite-timestamp=true")

    assert "SOURCE_DATE_EPOCH" in project.fails(*rewrite, ".", status=2)[-1]
    project.fails(*rewrite, "--output", "type=oci,dest=a.tar", ".", status=2, env={"SOURCE_DATE_EPOCH": "1"})


# -- registries -----------------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_base_images_from_a_registry(project: Project, registry: str) -> None:
    """FROM fetches what the store does not have; `--pull` asks again, and takes what the name means now."""
    base = f"{registry}/base:1"
    project.dockerfile("FROM busybox", "RUN echo one >/version")
    project.build("-t", base, "--push", ".")
    project("rmi", base)
    project.dockerfile(f"FROM {base}", "RUN cat /version")
    assert ["one"] == said(project, ".")

    other = Project(project.root.parent / "other-store", project.cwd)
    other.write("second/Dockerfile", f"FROM {base}\nRUN echo two >/version\n")
    other.build("-t", base, "--push", "second")
    assert ["one"] == said(project, ".")
    assert ["two"] == said(project, "--pull", ".")


def test_help_names_every_option(project: Project) -> None:
    """Every option has a help text."""
    text = project("build", "--help").out.decode()
    for name in ("--secret", "--ssh", "--build-context", "--network", "--ulimit", "--no-cache-filter", "--iidfile"):
        assert name in text


def test_metadata_is_json(project: Project) -> None:
    """`--metadata-file` holds what buildx's does: config, names asked for and the manifest, if any."""
    project.dockerfile("FROM busybox", "LABEL a=b")
    project.build("-t", "meta:1", "--metadata-file", "meta.json", "--iidfile", "iid", ".")
    metadata = json.loads((project.cwd / "meta.json").read_text())

    assert (project.cwd / "iid").read_text() == metadata["containerimage.config.digest"]
    assert "docker.io/library/meta:1" == metadata["image.name"]
    assert subprocess.run(["sha256sum"], input=project.blob("meta:1"), capture_output=True, check=True).stdout[:64] == (
        metadata["containerimage.config.digest"].removeprefix("sha256:").encode()
    )
    assert {"containerimage.config.digest", "image.name"} == set(metadata)

    project.build("-t", "again:1", "-o", "type=oci,dest=layout,tar=false", "--metadata-file", "meta.json", ".")
    metadata = json.loads((project.cwd / "meta.json").read_text())
    (descriptor,) = json.loads((project.cwd / "layout" / "index.json").read_text())["manifests"]
    del descriptor["annotations"]
    assert "docker.io/library/again:1" == metadata["image.name"]
    assert descriptor["digest"] == metadata["containerimage.digest"]
    assert descriptor == metadata["containerimage.descriptor"]


def test_which_ignore_file_counts(project: Project) -> None:
    """One that is named after the Dockerfile counts only beside it; a named context has the common one."""
    for folder in ("", "other/"):
        project.write(folder + ".dockerignore", "a\n.docker*\n*Dockerfile*\nother\n*.tar\n")
        project.write(folder + "Dockerfile.dockerignore", "b\n.docker*\n*Dockerfile*\nother\n*.tar\n")
        project.write(folder + "a", "1")
        project.write(folder + "b", "2")
    project.dockerfile("FROM scratch", "COPY . /")
    assert {"a": b"1"} == project.files(".")
    assert {"b": b"2"} == project.files("-f", "-", ".", stdin=b"FROM scratch\nCOPY . /\n")
    project.dockerfile("FROM scratch", "COPY --from=other . /")
    assert {"b": b"2"} == project.files("--build-context", "other=other", ".")


def test_names_of_contexts(project: Project) -> None:
    """A context may be named as an image is in any form; `scratch` stays what it is; what is no name is refused."""
    project.write("other/a", "1")
    for written in ("image", "image:latest", "docker.io/library/image", "docker.io/library/image:latest"):
        project.dockerfile("FROM scratch", "COPY --from=image . /")
        assert {"a": b"1"} == project.files("--build-context", f"{written}=other", ".")
    project.dockerfile("FROM scratch", "LABEL a=b")
    assert {} == project.files("--build-context", "scratch=other", ".")
    lines = project.fails("--build-context", "Other=other", ".", status=2)
    assert lines[0].startswith("error: invalid context name Other: ")
    assert "hint: did you mean other?" == lines[1]


def test_a_secret_whose_variable_is_not_set(project: Project) -> None:
    """It is empty, as with buildx: a build that can do without goes on where its secrets are not given."""
    project.dockerfile("FROM busybox", "RUN --mount=type=secret,id=s,env=S,required echo [$S] > /said")
    assert b"[]\n" == project.files("--secret", "id=s,env=NOT_SET", ".")["said"]
