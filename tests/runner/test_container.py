"""The records of containers: names, ids, states, and what is made of those whose supervisors were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.container import (
    Config,
    Container,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerRunningError,
    Containers,
    Status,
    new_id,
)
from runner.errors import RunnerError
from runner.signals import parse_signal
from runner.volumes import Volumes


@pytest.fixture
def containers(tmp_path: Path) -> Containers:
    ticks = iter(range(1_000_000_000, 2_000_000_000))
    return Containers(tmp_path / "containers", clock=lambda: float(next(ticks)))


def config(name: str = "", **changes: object) -> Config:
    made = Config(id=new_id(), name=name, image="box", labels=(("a", "b"),))
    return made._replace(**changes)  # type: ignore[arg-type]


def test_life_of_a_container(containers: Containers) -> None:
    """Created, running, exited: what the supervisor records is what others read."""
    mine = containers.create(config("one"))
    other = containers.find("one")
    seen = [other.state().status]
    mine.started(os.getpid(), address="10.0.0.2", ports=("0.0.0.0:80->80/tcp",))
    seen.append(other.state().status)
    running = other.state()
    mine.exited(7, oom_killed=True)
    mine.release()
    ended = containers.find(mine.id[:10]).state()

    assert [Status.CREATED, Status.RUNNING] == seen
    assert (os.getpid(), "10.0.0.2", ("0.0.0.0:80->80/tcp",)) == (running.pid, running.address, running.ports)
    assert (Status.EXITED, 7, True, 0, ()) == (ended.status, ended.exit_code, ended.oom_killed, ended.pid, ended.ports)
    assert ended.started < ended.finished
    assert mine.config == other.config


def test_names(containers: Containers) -> None:
    """A name belongs to one container at a time; those that were given none get one of two words."""
    first = containers.create(config("crown"))
    with pytest.raises(ContainerExistsError) as taken:
        containers.create(config("crown"))
    nameless = containers.create(config())

    assert first.config.short_id in taken.value.message
    assert 2 == len(nameless.config.name.split("_"))
    assert ["crown", nameless.config.name] == sorted(os.listdir(containers.root / "names"), key=lambda n: n != "crown")

    containers.remove(first)
    again = containers.create(config("crown"))
    assert again.id == containers.find("crown").id


@pytest.mark.parametrize("name", ["!", "a/b", "-x", ".hidden", "x y", "ü", "x"])
def test_names_that_cannot_be(containers: Containers, name: str) -> None:
    """Nothing that would be an option, a path or a hidden file becomes a name."""
    with pytest.raises(RunnerError):
        containers.create(config(name))

    assert [] == containers.all()


def test_find(containers: Containers) -> None:
    """By name, by ID, by the beginning of an ID as long as it means one."""
    one = containers.create(config("one", id="a" * 63 + "1"))
    containers.create(config("two", id="a" * 63 + "2"))

    assert one.id == containers.find("one").id == containers.find(one.id).id
    with pytest.raises(ContainerNotFoundError, match="several"):
        containers.find("aaa")
    with pytest.raises(ContainerNotFoundError, match="no such container: b"):
        containers.find("b")


def test_what_runs_is_not_removed(containers: Containers) -> None:
    """Only its supervisor, or nobody, has the lock of a container that can go."""
    mine = containers.create(config("one"))
    mine.started(os.getpid())

    with pytest.raises(ContainerRunningError):
        containers.remove(containers.find("one"))
    mine.exited(0)
    mine.release()
    containers.remove(containers.find("one"))

    assert [] == containers.all()
    assert [] == os.listdir(containers.root / "names")


_SUPERVISOR = """
import os, sys, time
from pathlib import Path
from runner.container import Config, Containers
containers = Containers(Path(sys.argv[1]))
mine = containers.create(Config(id=sys.argv[2], name="lost", auto_remove=sys.argv[3] == "rm"))
if sys.argv[4] == "running":
    child = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)  # returns once it is executed, the lock closed
    mine.started(child)
    print(child, flush=True)
else:
    print(0, flush=True)
time.sleep(60)
"""


def killed_supervisor(containers: Containers, identity: str, *words: str) -> int:
    """Let a process supervise a container and kill it; the pid of what it had started."""
    words = (str(containers.root), identity, *words)
    process = subprocess.Popen([sys.executable, "-c", _SUPERVISOR, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    return child


def _command(pid: int) -> str:
    """What a process executes; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.root
def test_killed_supervisor_is_recorded(containers: Containers) -> None:
    """The next look ends what still runs and records 137."""
    child = killed_supervisor(containers, new_id(), "keep", "running")

    [lost] = containers.all()

    assert (Status.EXITED, 137) == (lost.state().status, lost.state().exit_code)
    assert "killed" in lost.state().error
    assert "sleep" not in _command(child)


@pytest.mark.root
@pytest.mark.parametrize("when", ["running", "starting"])
def test_killed_supervisor_with_rm(containers: Containers, when: str) -> None:
    """What was to be removed is, also where its supervisor never came to start it."""
    killed_supervisor(containers, new_id(), "rm", when)

    assert [] == containers.all()
    assert ["lock", "names"] == sorted(os.listdir(containers.root))
    assert [] == os.listdir(containers.root / "names")


@pytest.mark.root
def test_killed_before_the_start(containers: Containers) -> None:
    """A container whose supervisor was killed before it ran stays as created, with the reason."""
    killed_supervisor(containers, new_id(), "keep", "starting")

    [lost] = containers.all()

    assert (Status.CREATED, 137) == (lost.state().status, lost.state().exit_code)


def test_litter_of_a_crash_goes(containers: Containers) -> None:
    """A directory that never became a container is removed with its name, which can be taken again."""
    keeper = containers.create(config("keeper"))
    litter = containers.root / new_id()
    (litter / "upper" / "deep").mkdir(parents=True)
    os.symlink(litter.name, containers.root / "names" / "lost")

    assert [keeper.id] == [one.id for one in containers.all()]
    assert not litter.exists()
    assert ["keeper"] == os.listdir(containers.root / "names")
    assert "lost" == containers.create(config("lost")).config.name


def test_signal_reaches_the_right_process_only(containers: Containers) -> None:
    """A pid that was used again is not taken for the container's process."""
    victim = subprocess.Popen(["sleep", "60"])
    mine = containers.create(config("one"))
    mine.started(victim.pid)
    other = containers.find("one")
    state = other.state()
    mine._state = state._replace(birth=state.birth - 1)
    mine._enter(mine._state)

    assert not other.signal(signal.SIGKILL)
    assert victim.poll() is None

    mine._enter(state)
    assert other.signal(signal.SIGKILL)
    assert -signal.SIGKILL == victim.wait(10)


def test_anonymous_volumes_of_others_stay(containers: Containers) -> None:
    """A volume that was made for one container and is used by another goes with neither alone."""
    for name in ("shared", "own"):
        containers.volumes.create(name)
    first = containers.create(config("one", volumes=("shared", "own"), anonymous=("shared", "own")))
    containers.create(config("two", volumes=("shared",)))

    containers.remove(first)
    containers.remove_volumes(first.config)

    assert ["shared"] == os.listdir(containers.volumes.root)


def test_volume_names(tmp_path: Path) -> None:
    """A volume's name is one path component that cannot lead elsewhere."""
    volumes = Volumes(tmp_path)

    assert volumes.create("data")
    assert not volumes.create("data")
    assert volumes.is_empty("data")
    for name in ("..", "a/b", "", "-x", "."):
        with pytest.raises(RunnerError):
            volumes.path(name)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigusr1", 10), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), (" HUP ", 1)],
)
def test_signals(text: str, number: int) -> None:
    """Names in every form that images use, and numbers."""
    assert number == parse_signal(text)


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNONE", "RTMIN+99", "-1", "SIG_DFL", "RTMAX-x"])
def test_signals_that_are_none(text: str) -> None:
    """Everything else is refused with a hint."""
    with pytest.raises(RunnerError) as caught:
        parse_signal(text)

    assert caught.value.hint


def test_container_is_not_reentered(containers: Containers) -> None:
    """Only the holder of the lock may change the state."""
    containers.create(config("one"))
    stranger: Container = containers.find("one")

    with pytest.raises(AssertionError, match="BUG"):
        stranger.exited(0)
