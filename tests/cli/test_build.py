"""`pybuild build` from outside: the example, what a cached build costs, and what steps find around them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.building import REPOSITORY, Project

HELLO = str(REPOSITORY / "examples" / "hello")

WATCHED = """
import atexit, sys

def watch(event, _arguments):
    if event in ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.system"):
        sys.stderr.write(f"started a process: {event}\\n")

sys.addaudithook(watch)
atexit.register(lambda: sys.stdout.write("\\n".join(sys.modules)))
from builder.cli import main
main(sys.argv[1:])
"""

HEAVY = {
    "asyncio", "click", "ctypes", "inspect", "lark", "layerstore.layers", "pyroute2", "subprocess", "tqdm", "urllib3",
    "zstandard",
}  # fmt: skip

LOADED = """
builder builder.build builder.cachekey builder.chmod builder.cli builder.cli.building
builder.cli.buildwords builder.cli.context builder.cli.errors builder.cli.inputs builder.cli.state builder.cli.words
builder.context
builder.dockerignore builder.errors builder.events builder.execute builder.filetree builder.glob builder.graph
builder.image builder.instructions builder.mounts builder.ops builder.plan builder.ports builder.progress
builder.progress.quiet builder.selection builder.solve builder.sources builder.stage builder.steps builder.steptext
grammar grammar.ast grammar.diagnostics grammar.duration grammar.errors grammar.expand grammar.flags grammar.format
grammar.heredoc grammar.lalr grammar.mount grammar.node grammar.parse grammar.record grammar.resolve grammar.source
grammar.tables grammar.text grammar.transform
layerstore layerstore.blobs layerstore.cache layerstore.compress layerstore.db layerstore.digest layerstore.durable
layerstore.entry layerstore.errors layerstore.files layerstore.home layerstore.images layerstore.lease layerstore.lock
layerstore.platforms layerstore.recover layerstore.reference layerstore.store
"""


def watched(project: Project, *words: str) -> tuple[set[str], str]:
    """Run pybuild in an interpreter that tells what it loads and what it starts."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "--root", str(project.root), *words],
        cwd=project.cwd,
        env=project.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split()), done.stderr


def test_the_example_builds_and_runs(project: Project) -> None:
    """The example is built and run from any directory, without a network."""
    project.build("-t", "hello:1", HELLO, cwd=Path("/"))
    done = project("run", "--rm", "--network", "none", "hello:1", "reader")

    assert b"Hello" in done.out
    assert b"reader" in done.out
    project.check()


def test_a_second_build_is_all_cached(project: Project) -> None:
    """The same context again executes nothing, and yields the same image."""
    first = project.id(HELLO)
    steps = project.cached(HELLO)

    assert 9 == len([name for name in steps if not name.startswith("FROM")])
    assert set(steps.values()) == {True}
    assert first == project.id(HELLO)


def test_a_long_chain_is_seen_whole(project: Project) -> None:
    """Steps on many small layers have fewer mounted, and find what was written, removed and changed all the same."""
    steps = [f"RUN echo {number} > /made{number}" for number in range(100)]
    steps[45] = "RUN rm /made3; ln -s made5 /link; chmod 600 /made7"
    look = (
        "ls / | grep -c made; cat /made0 /made99 /link; stat -c %a /made7; test -e /made3 || echo no; stat -c %y /made*"
    )
    project.dockerfile(
        "FROM busybox",
        *steps,
        "RUN grep -o '[=:]/[^,:]*/\\(trees\\|work\\)/[0-9a-zA-Z._-]*' /proc/mounts > /lowers",
        f"RUN ({look}) > /seen",
        "RUN true",
    )

    project("build", "--network", "none", "-t", "long", ".")

    lowers = project("run", "--rm", "--network", "none", "long", "cat", "/lowers").out.decode().split()
    places = [lower.split("/")[-2] for lower in lowers]
    assert 2 + 2 == places.count("work")  # two copies, the upper, and what overlayfs works in
    assert len(lowers) < 50
    seen = project("run", "--rm", "--network", "none", "long", "cat", "/seen").out.decode().split()
    assert ["98", "0", "99", "5", "600", "no"] == seen[:6]
    fresh = project("run", "--rm", "--network", "none", "long", "sh", "-c", look).out.decode().split()
    assert seen == fresh
    assert [] == list((project.root / "work").iterdir())


def test_another_store_makes_the_same_layers(project: Project, base_store: Path, tmp_path: Path) -> None:
    """What is copied and run makes the same layers in every store: nothing of this machine or moment is in them."""
    subprocess.run(["cp", "-a", str(base_store), str(tmp_path / "other")], check=True)
    project.dockerfile("FROM busybox", "COPY a /dir/a", "WORKDIR /w")
    project.write("a", "a")
    other = Project(tmp_path / "other", project.cwd)
    ours, theirs = (one.id(".", env={"SOURCE_DATE_EPOCH": "1700000000"}) for one in (project, other))

    assert project.config(ours)["rootfs"] == other.config(theirs)["rootfs"]
    assert ours == theirs


def test_a_cached_build_starts_no_process_and_loads_nothing_heavy(project: Project) -> None:
    """A build that finds everything needs neither runner nor network nor compression, and starts nothing."""
    project.build(HELLO)
    modules, err = watched(project, "build", "--progress", "none", HELLO)

    assert "" == err
    assert set() == modules & HEAVY
    assert [] == [name for name in modules if name.split(".")[0] == "runner"]


def test_a_cached_build_writes_nothing(project: Project) -> None:
    """The second build of the same within minutes leaves the store as it is, byte for byte."""
    project.build(HELLO)
    project.build(HELLO)
    before = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    project.build(HELLO)

    after = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    assert before == after


def test_an_uncached_build_is_seen_to_start_processes(project: Project) -> None:
    """The watcher of the test above does see what a RUN starts."""
    project.dockerfile("FROM busybox", "RUN true")
    modules, err = watched(project, "build", "--progress", "none", ".")

    assert "started a process" in err
    assert "runner" in modules


def test_what_a_cached_build_loads(project: Project) -> None:
    """The modules of the project that a cached build loads. A new one costs every build: think before it goes in."""
    project.build(HELLO)
    modules, _ = watched(project, "build", "--progress", "none", HELLO)

    ours = {name for name in modules if name.split(".")[0] in ("builder", "grammar", "layerstore", "runner")}
    assert sorted(LOADED.split()) == sorted(ours)
