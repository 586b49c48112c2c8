"""The programs of bench/ do what they say, shown with work that is small: whether pybuild is fast is not tested."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import page, report
from bench.growth import joined, plot, slope
from bench.parse import read, samples
from bench.plot import Series, draw
from bench.tools import Buildah, Pybuild
from bench.works import Cached, NotDone, Sizes

REPOSITORY = Path(__file__).resolve().parent.parent
LOOP_DEVICES = pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="loop devices are not to be had")


def bench(module: str, *words: str, place: Path) -> Any:
    """Run a program and return the figures that it writes; it leaves nothing behind."""
    figures = place / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", "--dir", str(place), "--json", str(figures), *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert figures.exists(), done.stdout + done.stderr
    assert ["figures.json"] == os.listdir(place)
    return json.loads(figures.read_text())


@pytest.mark.root
@pytest.mark.peers
def test_every_work_is_done(tmp_path: Path) -> None:
    """pybuild does all works, the floors under it as well; the figures are read back as they were written."""
    words = ("--peers", "", "--large", "--scale", "0.005", "--repeat", "1")

    found = bench("compare", *words, place=tmp_path)

    assert {} == {work["name"]: work["failed"] for work in found["works"] if work["failed"]}
    names = ["cached", "edited", "steps", "bridged", "files", "new-files", "written", "pushed", "started"]
    verbs, sizes = ("committed", "saved", "pushed", "pulled"), ("3", "10", "41", "41-text")
    large = [f"large-{verb}-{size}" for size in sizes for verb in verbs]
    assert [*names, *large, "version"] == [work["name"] for work in found["works"]]
    for work in found["works"]:
        tools = [one["name"] for one in work["figures"] if not one["floor"]]
        assert ["pybuild"] == tools
        floors = work["budget"] is not None and work["budget"]["seconds"] is not None
        assert floors == any(one["floor"] for one in work["figures"])
        assert all(wall > 0 and cpu > 0 and peak > 0 for one in work["figures"] for wall, cpu, peak in one["runs"])
    comparison = report.from_json(found)
    assert found == json.loads(json.dumps(report.to_json(comparison)))
    assert len(found["works"]) == sum(line.startswith("| ") for line in report.table(comparison)) - 1
    assert "version: --version (budget 0.040 s: " in report.show(comparison)


@pytest.mark.root
def test_curves_are_measured(tmp_path: Path) -> None:
    """A curve has a figure for each position and builds at the same time do their work once."""
    found = bench("growth", "--only", "size,together", "--most", "2", "--repeat", "1", place=tmp_path)

    assert [("size", [1]), ("together", [1, 2])] == [(one["name"], one["positions"]) for one in found["curves"]]
    assert all(value > 0 for one in found["curves"] for series in one["series"] for value in series["values"])
    assert "all done" in plot(found["curves"][1])


@pytest.mark.root
@LOOP_DEVICES
def test_places_get_file_systems_of_their_own(tmp_path: Path) -> None:
    """Each place is a file system of its own, which gives back what was deleted and leaves nothing when it ends."""
    program = (
        "import os, sys; from pathlib import Path; from bench.disks import give_back, separate\n"
        "top = Path(sys.argv[1]); one, two = places = [top / 'one', top / 'two']\n"
        "print(separate(places))\n"
        "print(len({place.stat().st_dev for place in (top, *places)}), sorted(os.listdir(top)), os.listdir(one))\n"
        "device = f'/sys/dev/block/{os.major(one.stat().st_dev)}:{os.minor(one.stat().st_dev)}/stat'\n"
        "discarded = lambda: int(Path(device).read_text().split()[13]) * 512 >> 20\n"
        "(one / 'sub').mkdir(); (one / 'sub' / 'file').write_bytes(os.urandom(64 << 20)); os.sync(); give_back(one)\n"
        "before = discarded(); (one / 'sub' / 'file').unlink(); os.sync(); give_back(one / 'sub')\n"
        "print(discarded() - before >= 64)\n"
    )

    lines = alone("-c", program, str(tmp_path)).splitlines()

    assert [
        f"for each its own ext4 with a journal and without barriers, in images on {kind(tmp_path)}",
        "3 ['one', 'two'] []",
        "True",
    ] == lines
    assert ["one", "two"] == sorted(os.listdir(tmp_path))
    assert [] == [path for place in tmp_path.iterdir() for path in place.iterdir()]
    assert [] == attached(tmp_path)


@pytest.mark.root
def test_places_share_a_file_system_where_they_must(tmp_path: Path) -> None:
    """Without the program that makes file systems there is one for all, and the figures say so."""
    tools = tmp_path / "tools"
    tools.mkdir()
    program = (
        "import os, sys; from pathlib import Path; from bench.disks import separate\n"
        "top = Path(sys.argv[1]); one = top / 'one'; print(separate([one])); print(os.path.ismount(one))\n"
    )
    place = tmp_path / "place"
    place.mkdir()

    lines = alone("-c", program, str(place), path=str(tools)).splitlines()

    assert [f"one {kind(tmp_path)} for all (no mkfs.ext4)", "False"] == lines
    assert ["one"] == os.listdir(place)


@pytest.mark.root
@LOOP_DEVICES
def test_nothing_is_left_of_what_is_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends everything: no directory, no loop device."""
    words = ("--peers", "", "--only", "version", "--repeat", "100000", "--dir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-m", "bench.compare", *words], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "version: --version\n" == process.stderr.readline()
        during = attached(tmp_path)
        process.send_signal(signal.SIGINT)
        process.wait(30)

    assert 3 == len(during)
    assert [] == os.listdir(tmp_path)
    assert [] == attached(tmp_path)


def alone(*words: str, path: str | None = None) -> str:
    """What Python prints in a mount namespace of its own; `path` is where it finds programs, instead of the usual."""
    unshare = shutil.which("unshare") or "unshare"
    return subprocess.run(
        [unshare, "--mount", "--propagation", "private", sys.executable, *words],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def attached(place: Path) -> list[str]:
    """The images below `place` that loop devices hold."""
    files = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [file for file in files if file.startswith(f"{place}/")]


def kind(place: Path) -> str:
    """The type of a file system, as findmnt has it."""
    words = ["findmnt", "-n", "-o", "FSTYPE", "--target", str(place)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_curves_of_the_same_machine_are_kept() -> None:
    """A curve that was taken again replaces the old one; others stay unless they are another machine's."""
    kept: dict[str, Any] = {
        "machine": {"cpu": "a", "date": "1"},
        "curves": [{"name": "files", "n": 1}, {"name": "steps", "n": 1}],
    }
    found: dict[str, Any] = {"machine": {"cpu": "a", "date": "2"}, "curves": [{"name": "steps", "n": 2}]}

    assert {"machine": found["machine"], "curves": [kept["curves"][0], *found["curves"]]} == joined(kept, found)
    assert found == joined({**kept, "machine": {"cpu": "b", "date": "1"}}, found)
    assert found == joined(None, found)


def test_slopes() -> None:
    """The exponent of a power is found, that of a constant is 0, and one point has none."""
    slopes = [slope([(x, 3 * x**power) for x in (1, 10, 200)]) for power in (0, 0.5, 1, 2)]

    assert [0, 0.5, 1, 2] == [round(found or 0, 9) for found in slopes]
    assert slope([(1, 1)]) is None


def test_plots_are_drawings() -> None:
    """A plot is well-formed, names its curves, and places points by their logarithm."""
    svg = ElementTree.fromstring(draw("a < b", "files", "seconds", [Series("one", [(1, 1), (10, 1), (100, 1)])]))

    name = "{http://www.w3.org/2000/svg}"
    (curve,) = svg.iter(f"{name}polyline")
    xs = [float(point.partition(",")[0]) for point in curve.attrib["points"].split()]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert ["a < b", "one"] == [text for one in svg.iter(f"{name}text") if (text := one.text) in ("a < b", "one")]


def test_dockerfiles_are_read() -> None:
    """The samples are whole Dockerfiles of the size that they are said to have."""
    ordinary, long = samples(100)

    found = read(ordinary, 1)

    assert 100 <= long.lines + 1 < 130
    assert ordinary.lines == found["lines"]
    assert all(found[name] > 0 for name in ("parse", "resolve", "format"))


def test_what_was_executed_is_counted(tmp_path: Path) -> None:
    """Steps that came from the cache are told from those that did not, in what each tool prints."""
    plain = "#1 [1/3] FROM busybox\n#1 CACHED\n#2 [2/3] COPY a /a\n#2 CACHED\n#3 [3/3] RUN true\n#3 DONE 0.1s\n"
    buildah = "STEP 1/3: FROM busybox\nSTEP 2/3: COPY a /a\n--> Using cache 12\nSTEP 3/3: RUN true\n--> 34\n"

    assert 1 == Pybuild(tmp_path / "one").executed(plain)
    assert 1 == Buildah(tmp_path / "two").executed(buildah)


def test_work_that_was_not_done_is_refused(tmp_path: Path) -> None:
    """A rebuild that executed a step is not taken for a cached one."""
    work = Cached(tmp_path / "work", Sizes())

    with pytest.raises(NotDone, match="steps executed: 1 instead of 0"):
        work.check(Pybuild(tmp_path / "pybuild"), "#2 [2/2] RUN true\n#2 DONE 0.1s\n")


def test_page_is_current() -> None:
    """docs/benchmarks.md is what the figures beside it say."""
    assert page.render() == page.PAGE.read_text()
