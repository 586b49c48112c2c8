"""Contexts that were edited since the last build: what steps see, what is written, and what is the same anyway."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from layerstore import Store
from tests.building import Project

CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
CAP_NET_ADMIN = bytes.fromhex("0100000200100000000000000000000000000000")
SHOW = "RUN cd /app && ls -R . && cat $(find . -type f | sort) && stat -c '%n %h' $(find . -type f | sort)"


@pytest.fixture
def edited(project: Project) -> Project:
    """A project with a context of a few directories that was built once, a while ago."""
    for number in range(20):
        project.write(f"src/{number % 4}/{number}", f"file {number}\n")
    project.dockerfile("FROM busybox", "COPY src /app", SHOW)
    project.build("-t", "first", ".")
    return project


def layers(project: Project, name: str) -> list[str]:
    found: list[str] = project.config(f"{name}:latest")["rootfs"]["diff_ids"]
    return found


def deltas(project: Project) -> dict[str, set[str]]:
    """What is in the trees that only hold what differs."""
    return {
        tree.name.removesuffix(".delta"): {str(path.relative_to(tree)) for path in tree.rglob("*")}
        for tree in (project.root / "trees").glob("*.delta")
    }


def built_elsewhere(project: Project, base: Path, where: Path) -> list[str]:
    """Build in a store that knows nothing but the base image; the layers of the image."""
    subprocess.run(["cp", "-a", base, where], check=True)
    alone = Project(where, project.cwd)
    alone.build("-t", "alone", ".")
    return layers(alone, "alone")


def test_an_edited_file_is_all_that_is_written(edited: Project, base_store: Path, tmp_path: Path) -> None:
    """The step sees the context as it is now; layers are those of a store that never saw it before."""
    edited.write("src/1/5", "edited\n")
    edited.write("src/new/one", "new\n")
    (edited.cwd / "src" / "2" / "6").unlink()
    log = edited.build("-t", "second", ".").err
    assert "edited" in log
    assert "./new/one 1" in log
    assert "file 6\n" not in log
    [(layer, paths)] = deltas(edited).items()
    assert layers(edited, "second")[1] == f"sha256:{layer}"
    assert {"app", "app/1", "app/1/5", "app/2", "app/2/6", "app/new", "app/new/one"} == paths
    assert layers(edited, "second") == built_elsewhere(edited, base_store, tmp_path / "elsewhere")
    edited.check()


def test_what_the_image_below_has_shows_where_the_context_has_nothing(edited: Project) -> None:
    """A file that is gone from the context is not gone from the image that the context is copied over."""
    edited.dockerfile("FROM busybox", "RUN mkdir -p /app/3 && echo below >/app/3/7", "COPY src /app", SHOW)
    assert "file 7\n" in edited.build(".").err
    (edited.cwd / "src" / "3" / "7").unlink()
    log = edited.build("-t", "second", ".").err
    assert "file 7\n" not in log
    assert "below" in log
    edited.check()


def test_an_edit_that_is_taken_back_is_cached(edited: Project) -> None:
    """Content counts, not history: what was built before is found again, though the file was written anew."""
    path = edited.cwd / "src" / "1" / "5"
    edited.write("src/1/5", "edited\n")
    assert [False, False] == list(edited.cached(".").values())[1:]
    edited.write("src/1/5", "file 5\n")
    assert [True, True] == list(edited.cached(".").values())[1:]
    path.unlink()
    edited.build(".")
    edited.check()


def test_edited_stages_are_versions_too(project: Project) -> None:
    """What is copied from another stage is compared with what was copied from it before."""
    make = "RUN mkdir /out && for i in 1 2 3 4 5 6 7 8 9; do echo $i >/out/$i; done; touch -d @5 /out /out/*"
    lines = ["FROM busybox AS made", make, "FROM busybox", "COPY --from=made /out /app", "RUN cat /app/*"]
    project.dockerfile(*lines)
    project.build(".")
    lines[1] += " && echo new >/out/3"
    project.dockerfile(*lines)
    assert "new" in project.build(".").err
    assert [{"app", "app/3"}] == list(deltas(project).values())
    project.check()


def test_a_new_copy_of_known_content_is_found(edited: Project) -> None:
    """A copy that was never done is done before its key is known; where its layer was made before, that one counts."""
    again = edited.cwd / "again"
    subprocess.run(["cp", "-r", edited.cwd / "src", again], check=True)
    for path in again.rglob("*"):
        os.utime(path, (5, 5))
    edited.dockerfile("FROM busybox", "COPY src /app", "FROM busybox", "COPY again/ /app", SHOW)
    edited.build("-t", "one", ".")
    for path in again.rglob("*"):
        os.utime(path, (6, 6))
    assert [True, True] == list(edited.cached(".").values())[-2:]
    edited.check()


def test_no_cache_copies_anew_and_makes_the_same(edited: Project) -> None:
    """--no-cache reads and writes everything again, and makes the same layer."""
    edited.build("-t", "second", "--no-cache", ".")
    assert layers(edited, "first")[1] == layers(edited, "second")[1]
    assert {} == deltas(edited)
    edited.check()


def test_two_builds_of_a_new_context_copy_once(project: Project) -> None:
    """The second of two builds that begin at once waits for the copy of the first and then finds it."""
    for number in range(3000):
        project.write(f"src/{number % 10}/{number}", f"file {number}\n")
    project.dockerfile("FROM busybox", "COPY src /app", "RUN ls /app")
    old = time.time() - 60
    for path in (project.cwd / "src").rglob("*"):
        os.utime(path, (old, old))
    time.sleep(0.1)
    with project.running("-t", "one", ".") as one, project.running("-t", "two", ".") as two:
        outputs = [one.communicate(timeout=60)[0].decode(), two.communicate(timeout=60)[0].decode()]
        assert [0, 0] == [one.returncode, two.returncode], outputs
    with Store.open(project.root) as store:
        made = [record for record in store.cache.recent() if ["op", "copy"] in (record.ingredients or [])]
    assert 1 == len({record.layers for record in made}), json.dumps([record.key for record in made])
    assert layers(project, "one") == layers(project, "two")
    assert 1 == len([path for path in (project.root / "trees").iterdir() if (path / "app").is_dir()])
    project.check()


def test_saving_an_edited_image(edited: Project, base_store: Path, tmp_path: Path) -> None:
    """An image whose layer is only a difference on disk is saved whole, and loaded elsewhere is the same."""
    edited.write("src/1/5", "edited\n")
    edited.build("-t", "second", ".")
    assert deltas(edited)
    edited("save", "-o", "image.tar", "second")
    subprocess.run(["cp", "-a", base_store, tmp_path / "other"], check=True)
    other = Project(tmp_path / "other", edited.cwd)
    other("load", "-i", "image.tar")
    assert layers(edited, "second") == layers(other, "second")
    edited.write("Dockerfile", "FROM second\n")
    assert b"edited\n" == other.files(".")["app/1/5"] == edited.files(".")["app/1/5"]
    edited.check()
    other.check()


def test_large_files_count_by_all_their_bytes(project: Project) -> None:
    """Pieces of a large file only say when it is read, before its layer is written or while; its content is its key."""
    data = bytearray(os.urandom(9 << 20))
    project.dockerfile("FROM busybox", "COPY big /big", "RUN wc -c /big")

    def cached() -> list[bool]:
        project.write("big", bytes(data))
        return list(project.cached("-t", "last", ".").values())[1:]

    assert [False, False] == cached()
    first = layers(project, "last")
    for at in (0, 5000):  # the first is in a piece that is looked at, the second is not
        data[at] ^= 1
        assert [False, False] == cached()
        assert first != layers(project, "last")
        data[at] ^= 1
        assert [True, True] == cached()
    with contextlib.closing(sqlite3.connect(project.root / "store.db")) as database, database:
        assert database.execute("DELETE FROM cache WHERE variant = 'note'").rowcount
    # Nobody knows the pieces any more: it is copied, found to be known, and the layer from before counts.
    assert [True, True] == cached()
    assert first == layers(project, "last")
    project.check()


@pytest.mark.root
def test_a_capability_that_a_file_gets_or_loses_is_seen(edited: Project, base_store: Path, tmp_path: Path) -> None:
    """Only the change time tells that a file with the same data has another capability; owner and mode do not count."""
    ping = edited.cwd / "src" / "1" / "5"
    plain = layers(edited, "first")
    for name, capability in (("caps", CAP_NET_RAW), ("others", CAP_NET_ADMIN)):
        os.setxattr(ping, "security.capability", capability)
        time.sleep(0.05)  # so that it can be remembered
        assert [False, False] == list(edited.cached("-t", name, ".").values())[1:]
        assert layers(edited, name)[1] not in plain
        assert layers(edited, name) == built_elsewhere(edited, base_store, tmp_path / name)
    edited.write("src/1/9", "another file is edited\n")
    edited.build("-t", "both", ".")
    assert layers(edited, "both") == built_elsewhere(edited, base_store, tmp_path / "both")
    edited.write("src/1/9", "file 9\n")
    os.removexattr(ping, "security.capability")
    assert [True, True] == list(edited.cached("-t", "none", ".").values())[1:]
    edited.check()


def test_files_whose_change_time_alone_is_new_are_the_same(edited: Project) -> None:
    """They are read again, and nothing is made."""
    for path in (edited.cwd / "src").rglob("*"):
        path.chmod(path.stat().st_mode)
    assert [True, True] == list(edited.cached(".").values())[1:]


def test_a_damaged_file_of_small_files_costs_time_only(edited: Project, base_store: Path, tmp_path: Path) -> None:
    """What is read there is verified; the context has it, too."""
    [small] = (edited.root / "trees").glob("*.small")
    data = small.read_bytes()
    small.write_bytes(data.replace(b"file 6\n", b"FILE 6\n"))
    edited.write("src/1/5", "edited\n")
    edited.build("-t", "second", ".")
    assert layers(edited, "second") == built_elsewhere(edited, base_store, tmp_path / "elsewhere")
    edited.check()


def test_a_new_checkout(project: Project, base_store: Path, tmp_path: Path) -> None:
    """New files that hold what was copied before are found; those that hold something else make another layer."""

    def check_out(word: str) -> None:
        for number in range(600):
            path = project.write(f"src/{number % 7}/{number}", f"{word} {number}\n")
            os.utime(path, (5, 5))

    project.dockerfile("FROM busybox", "COPY src /app", "RUN cat /app/3/3")
    check_out("one")
    project.build(".")
    check_out("one")
    assert [True, True] == list(project.cached(".").values())[1:]
    check_out("two")
    assert [False, False] == list(project.cached("-t", "two", ".").values())[1:]
    assert layers(project, "two") == built_elsewhere(project, base_store, tmp_path / "elsewhere")
    check_out("one")
    assert [True, True] == list(project.cached(".").values())[1:]
    project.check()


@pytest.mark.root
@pytest.mark.parametrize("below", ["true", "mkdir -p /app/1 && cp /bin/true /app/1/large && touch /app/1/empty"])
def test_capabilities_show_however_a_file_is_read(
    project: Project, base_store: Path, tmp_path: Path, below: str
) -> None:
    """Whether a copy is made before its files are read or after, whatever their size, their capabilities count."""
    for number in range(20):
        project.write(f"src/{number % 4}/{number}", f"file {number}\n")
    some = [
        project.write("src/1/empty"),
        project.write("src/1/large", b"large" * 100_000),
        project.cwd / "src" / "1" / "5",
    ]
    project.dockerfile("FROM busybox", f"RUN {below}", "COPY src /app", "RUN true")
    project.build(".")
    for path in some:
        os.setxattr(path, "security.capability", CAP_NET_RAW)
    project.build("-t", "known", ".")
    assert layers(project, "known")[2] == built_elsewhere(project, base_store, tmp_path / "elsewhere")[2]
    project.build("-t", "anew", "--no-cache", ".")
    assert layers(project, "known")[2] == layers(project, "anew")[2]
    with Store.open(project.root) as store:
        [image] = [image for image in store.images.list() if "known" in str(image.names)]
        view = store.layers.view(image.layers[2:3])
        found = [view.lstat(os.fsencode(f"app/1/{path.name}")) for path in some]
    assert [((b"security.capability", CAP_NET_RAW),)] * 3 == [entry and entry.xattrs for entry in found]
    project.check()
