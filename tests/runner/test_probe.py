"""The probe tells what is true, fast, and leaves nothing; the doctor prints it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from builder.cli.doctor import as_json, as_text
from runner.probe import probe

pytestmark = pytest.mark.root

IMPORTS = "import dataclasses, os; from runner.probe import probe; "
AS_NOBODY = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); "
PROGRAM = "print(dataclasses.asdict(probe()))"


def test_root_here_is_on_the_first_rung() -> None:
    """Root with everything: rung 1, nothing missing; the mounts and interfaces are as before; well below 150 ms."""
    before = Path("/proc/self/mountinfo").read_text()
    start = time.perf_counter()
    found = probe()
    took = time.perf_counter() - start

    assert (1, (), True, True) == (found.rung, found.missing, found.overlay_root, found.seccomp)
    assert before == Path("/proc/self/mountinfo").read_text()
    assert took < 1  # the budget is 150 ms; a busy machine gets more


def test_an_unprivileged_user_is_told_what_is_missing() -> None:
    """Nobody has no capabilities: not rung 1, and the words say what the next better rung needs."""
    program = IMPORTS + AS_NOBODY + PROGRAM  # the interpreter's own files may be readable by root only
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    found = eval(answer)

    assert found["rung"] in {3, 0}
    assert (65534, frozenset(), False, False) == (
        found["uid"],
        found["capabilities"],
        found["overlay_root"],
        found["net_admin"],
    )
    assert found["missing"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "isolation: rung 1 (root: overlayfs"),
        ({"rung": 3, "missing": ("more ids",)}, "for the next better rung: more ids"),
        ({"rung": 0}, "isolation: rung 0 (none"),
        ({"rung": 1, "missing": ("NAT",)}, "for all of it: NAT"),
    ],
)
def test_doctor_text(changes: dict[str, object], text: str) -> None:
    """The verdict is printed, and what is missing."""
    assert text in as_text(replace(probe(), **changes))  # type: ignore[arg-type]


def test_doctor_json() -> None:
    """Every ability is in the JSON object, and whether containers run here."""
    document = json.loads(as_json(probe()))

    assert {*asdict(probe()), "supported"} == set(document)
    assert document["supported"] is True
    assert isinstance(document["capabilities"], list)


def test_fields_are_documented_by_rungs() -> None:
    """The doctor names every rung that the probe can give."""
    from builder.cli.doctor import RUNGS

    for rung in range(5):
        assert RUNGS[rung] in as_text(replace(probe(), rung=rung))
