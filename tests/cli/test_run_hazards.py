"""`pybuild run` interrupted and killed at many moments: nothing is left once the next command has looked."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.runcli import Cli, end, host_state, wait_for

pytestmark = pytest.mark.root

_SCRIPT = "trap 'exit 1' INT TERM; sleep 0.3 & wait"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    one = Cli(tmp_path_factory.mktemp("store"))
    one.add_image("box")
    return one


@pytest.mark.parametrize("milliseconds", range(60, 300, 40))
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_at_any_moment(cli: Cli, signum: signal.Signals, milliseconds: int) -> None:
    """Whether it was being made, was starting, ran or was being removed."""
    before = host_state(cli.root)
    process = cli.start("run", "--rm", "--network", "none", "-m", "64m", "-v", "/data", "box", "sh", "-c", _SCRIPT)
    assert process.stderr is not None
    time.sleep(milliseconds / 1000)

    process.send_signal(signum)
    error = process.stderr.read().decode()
    end(process)

    assert "BUG" not in error
    wait_for(lambda: cli.ps() == [])
    wait_for(lambda: host_state(cli.root) == before)
    assert [] == [name for name in _names(cli, "containers") if len(name) == 64]
    assert [] == _names(cli, "containers/names")
    assert [] == _names(cli, "volumes")


def _names(cli: Cli, folder: str) -> list[str]:
    path = cli.root / folder
    return os.listdir(path) if path.exists() else []
