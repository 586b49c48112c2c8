"""Images on the command line: made, listed, inspected, named and removed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Pybuild

ID = re.compile(r"sha256:[0-9a-f]{64}\n\Z")


@pytest.fixture
def image(pybuild: Pybuild) -> str:
    """The ID of a busybox image in the store."""
    return pybuild("base", "busybox").out.strip()


def listed(pybuild: Pybuild, *words: str) -> list[str]:
    """The lines of `pybuild images`, without the header."""
    return pybuild("images", *words).out.splitlines()[1:]


def test_base_busybox(pybuild: Pybuild) -> None:
    """The ID goes to stdout and nothing else; the same busybox makes the same image."""
    first = pybuild("base", "busybox")
    second = pybuild("base", "busybox", "-t", "other:1", "-t", "registry.test/x/y:2")

    assert ID.match(first.out)
    assert first.out == second.out
    assert "Made other:1 registry.test/x/y:2\n" == second.err


def test_base_takes_no_digest(pybuild: Pybuild) -> None:
    """A digest follows from the content: nobody can ask for one."""
    done = pybuild("base", "busybox", "-t", f"x@sha256:{'0' * 64}", status=2)

    assert "has a digest" in done.err
    assert "" == done.out


def test_base_without_its_program(pybuild: Pybuild) -> None:
    """What is missing is said with the package that has it."""
    done = pybuild("base", "busybox", "--program", "/no/busybox", status=1)
    assert "error: this machine has no /no/busybox\nhint: install one: apt-get install busybox-static\n" == done.err

    done = pybuild("base", "busybox", "--program", "/bin/ls", status=1)
    assert "needs shared libraries" in done.err
    assert "hint: install a static one: apt-get install busybox-static" in done.err


def test_base_debian_refuses_options_for_names(pybuild: Pybuild) -> None:
    """A suite or package that could be taken for an option of debootstrap never reaches it."""
    for words in (["--suite=-x"], ["--suite", "a b"], ["--include", "a;b"], ["--mirror", "ftp:"]):
        assert 2 == pybuild("base", "debian", *words, status=2).status


def test_listing(pybuild: Pybuild, image: str) -> None:
    """A row per name, newest image first; IDs alone with -q."""
    pybuild("tag", "busybox", "registry.test:5000/a/b:1")
    rows = [row.split()[:3] for row in listed(pybuild)]

    short = image.removeprefix("sha256:")[:12]
    assert [["busybox", "latest", short], ["registry.test:5000/a/b", "1", short]] == rows
    assert f"{short}\n" == pybuild("images", "-q").out
    assert f"{image}\n" == pybuild("images", "-q", "--no-trunc").out


def test_listing_one_repository(pybuild: Pybuild, image: str) -> None:
    """NAME without a tag means all of them, with a tag one."""
    for name in ("busybox:1", "other"):
        pybuild("tag", image, name)

    assert 2 == len(listed(pybuild, "busybox"))
    assert 1 == len(listed(pybuild, "busybox:1"))
    assert 1 == len(listed(pybuild, "docker.io/library/busybox:latest"))
    assert [] == listed(pybuild, "nothing")


def test_listing_as_json(pybuild: Pybuild, image: str) -> None:
    """One object per line, with docker's keys and the platforms."""
    [line] = pybuild("images", "--format", "json", "--no-trunc").out.splitlines()
    row = json.loads(line)

    assert ["Repository", "Tag", "Digest", "ID", "CreatedAt", "CreatedSince", "Size", "Platforms"] == list(row)
    assert ("busybox", "latest", "<none>", image) == (row["Repository"], row["Tag"], row["Digest"], row["ID"])


def test_images_without_a_name(pybuild: Pybuild, image: str) -> None:
    """An image whose name went to another one is listed with -a."""
    pybuild("base", "host", "-t", "busybox", "true")

    assert 1 == len(listed(pybuild))
    assert ["<none>", "<none>", image[7:19]] == next(
        row.split()[:3] for row in listed(pybuild, "-a") if "<none>" in row
    )


def test_inspect(pybuild: Pybuild, image: str) -> None:
    """The keys and types that docker's clients read."""
    [document] = json.loads(pybuild("inspect", "busybox").out)

    assert image == document["Id"]
    assert ["busybox:latest"] == document["RepoTags"]
    assert [] == document["RepoDigests"]
    assert "linux" == document["Os"]
    assert ["sh"] == document["Config"]["Cmd"]
    assert "layers" == document["RootFS"]["Type"]
    assert 1 == len(document["RootFS"]["Layers"])
    assert document["Size"] > 1_000_000
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", document["Created"])


def test_inspect_by_id(pybuild: Pybuild, image: str) -> None:
    """A whole ID, a prefix with and without the algorithm, and a name mean the same image."""
    for name in (image, image[7:], image[7:19], image[:15], "busybox:latest", "docker.io/busybox"):
        assert image == json.loads(pybuild("inspect", "--format", "json", name).out)["Id"]


def test_inspect_field(pybuild: Pybuild, image: str) -> None:
    """One field: a text as it is, everything else as JSON."""
    assert f"{image}\n" == pybuild("inspect", "--field", "Id", "busybox").out
    assert "sh\n" == pybuild("inspect", "--field", "Config.Cmd[0]", "busybox").out
    assert '["sh"]\n' == pybuild("inspect", "--field", '.["Config"].Cmd', "busybox").out


@pytest.mark.parametrize(
    ("field", "status", "message"),
    [
        ("Config.Cmdd", 1, "error: --field Config.Cmdd: there is no Cmdd\nhint: there are: ArgsEscaped, Cmd, "),
        ("Config.Cmd[3]", 1, "error: --field Config.Cmd[3]: there is no 3\nhint: the list has 1 elements\n"),
        ("Id.x", 1, "error: --field Id.x: Id is neither an object nor a list\n"),
        ("Config..Cmd", 2, "error: --field Config..Cmd: '..Cmd' means nothing\nhint: "),
        ("{{.Id}}", 2, "error: --field {{.Id}}: '{{.Id}}' means nothing\nhint: "),
    ],
)
def test_fields_that_are_none(pybuild: Pybuild, image: str, field: str, status: int, message: str) -> None:
    """A path that leads nowhere says where it ends."""
    assert pybuild("inspect", "--field", field, image, status=status).err.startswith(message)


def test_inspect_knows_no_templates(pybuild: Pybuild, image: str) -> None:
    """A Go template is refused, not printed."""
    done = pybuild("inspect", "--format", "{{.Id}}", image, status=2)

    assert "" == done.out
    assert "hint: --field Config.Env shows one field\n" in done.err


def test_history(pybuild: Pybuild, image: str) -> None:
    """One row per step with the size of its layer; the image's ID stands on the newest."""
    [header, row] = pybuild("history", "busybox").out.splitlines()
    assert ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"] == re.split(r"\s{3,}", header)
    assert row.startswith(image[7:19])
    assert "pybuild base busybox" in row

    [line] = pybuild("history", "--format", "json", "--no-trunc", "busybox").out.splitlines()
    assert (image, "pybuild base busybox") == (json.loads(line)["ID"], json.loads(line)["CreatedBy"])
    assert f"{image[7:19]}\n" == pybuild("history", "-q", "busybox").out


def test_removing_names(pybuild: Pybuild, image: str) -> None:
    """A name is taken away; the last one takes the image along."""
    pybuild("tag", "busybox", "other:1")

    assert "Untagged: other:1\n" == pybuild("rmi", "other:1").out
    assert f"Untagged: busybox:latest\nDeleted: {image}\n" == pybuild("rmi", "busybox").out
    assert "" == pybuild("images", "-qa").out


def test_removing_an_image_with_several_names(pybuild: Pybuild, image: str) -> None:
    """By its ID it only goes with --force."""
    pybuild("tag", "busybox", "other:1")
    done = pybuild("rmi", image, status=1)
    assert "has several names: busybox:latest, other:1\nhint: remove them by name, or use --force\n" in done.err

    assert f"Untagged: busybox:latest\nUntagged: other:1\nDeleted: {image}\n" == pybuild("rmi", "-f", image).out


def test_what_is_not_there(pybuild: Pybuild, image: str) -> None:
    """A name that is not found suggests the near one; with --force its removal is no error."""
    done = pybuild("rmi", "busibox", status=1)
    assert "error: no image here is called busibox\nhint: did you mean busybox:latest?\n" == done.err

    assert "" == pybuild("rmi", "-f", "nothing").out
    assert "pybuild pull nothing" in pybuild("inspect", "nothing", status=1).err
    assert "error: invalid image reference Busybox: " in pybuild("history", "Busybox", status=1).err


def test_store(pybuild: Pybuild, image: str) -> None:
    """A fresh store is clean; a removed image's layer is garbage, which du shows and gc takes."""
    assert "is clean\n" in pybuild("store", "check").err
    assert "0B of it not needed" in pybuild("store", "du").out

    pybuild("rmi", image)
    assert "0B of it not needed" not in pybuild("store", "du").out
    dry = pybuild("store", "gc", "--dry-run")
    assert 1 == len([line for line in dry.out.splitlines() if line.startswith("layer sha256:")])
    freed = pybuild("store", "prune").err
    assert freed == dry.err.replace("Would free", "Freed")
    assert [] == os.listdir(pybuild.root / "trees")


def test_store_check_finds_damage(pybuild: Pybuild, image: str) -> None:
    """A byte that changed on disk is found, named by its layer, and makes the exit status 1."""
    [layer] = json.loads(pybuild("inspect", image).out)[0]["RootFS"]["Layers"]
    passwd = pybuild.root / "trees" / layer.removeprefix("sha256:") / "etc/passwd"
    text = passwd.read_bytes()
    passwd.write_bytes(text.replace(b"root", b"boot", 1))
    done = pybuild("store", "check", status=1)

    assert done.out.startswith(f"{layer}: ")
    assert done.err.startswith("1 fault in ")


@pytest.mark.parametrize("words", [["--unused-for", "soon"], ["--unused-for", "7"], ["--all", "--unused-for", "7d"]])
def test_gc_refuses_what_means_nothing(pybuild: Pybuild, words: list[str]) -> None:
    """A duration has a unit, and one option does not hide the other."""
    assert 2 == pybuild("store", "gc", *words, status=2).status


def test_times_follow_source_date_epoch(pybuild: Pybuild) -> None:
    """With SOURCE_DATE_EPOCH no time of the image is later."""
    pybuild("base", "busybox", env={"SOURCE_DATE_EPOCH": "86400"})
    [document] = json.loads(pybuild("inspect", "busybox").out)
    tree = pybuild.root / "trees" / document["RootFS"]["Layers"][0].removeprefix("sha256:")

    assert "1970-01-02T00:00:00Z" == document["Created"]
    assert 86400 == (tree / "bin/busybox").stat().st_mtime


@pytest.mark.root
def test_a_base_of_the_host_runs(pybuild: Pybuild, tmp_path: Path) -> None:
    """Programs taken from this machine start where nothing but their own files is."""
    pybuild("base", "host", "-t", "tools", "sh", "cat", "env", "/usr/bin/python3")
    [document] = json.loads(pybuild("inspect", "tools").out)
    tree = pybuild.root / "trees" / document["RootFS"]["Layers"][0].removeprefix("sha256:")
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", str(tree), str(root)], check=True)
    done = subprocess.run(
        ["chroot", str(root), "/bin/sh", "-c", "env true=1 cat /etc/passwd"], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("root:x:0:0:")
