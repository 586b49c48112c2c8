"""Capability sets, as names, as masks, and as a process in a container holds them."""

from __future__ import annotations

import pytest

from runner import ExitStatus, SetupError, SpecError, User, privileged
from runner.caps import ALL_CAPABILITIES, CAPABILITIES, DEFAULT_CAPABILITIES, available, mask
from tests.runner.conftest import Bench

FIELDS = ("grep", "-E", "^Cap(Inh|Prm|Eff|Bnd|Amb)", "/proc/self/status")


def held(bench: Bench, capabilities: frozenset[str], user: User | None = None) -> list[int]:
    """Return the inheritable, permitted, effective, bounding and ambient masks inside a container."""
    spec = bench.spec(*FIELDS)
    status, text = bench.run(
        spec._replace(process=spec.process._replace(capabilities=capabilities, user=user or User()))
    )
    assert status == ExitStatus(0, None)
    return [int(word, 16) for word in text.split()[1::2]]


def test_numbers_are_the_kernels() -> None:
    """Names stand at the positions of linux/capability.h, and docker's default set has its well-known mask."""
    assert (CAPABILITIES.index("CAP_SYS_ADMIN"), CAPABILITIES.index("CAP_CHECKPOINT_RESTORE")) == (21, 40)
    assert mask(DEFAULT_CAPABILITIES) == 0xA80425FB


@pytest.mark.root
def test_default_set(bench: Bench) -> None:
    """Root in a container holds docker's set, nothing inheritable, nothing ambient."""
    assert held(bench, DEFAULT_CAPABILITIES) == [0, 0xA80425FB, 0xA80425FB, 0xA80425FB, 0]


@pytest.mark.root
def test_other_users_hold_nothing(bench: Bench) -> None:
    """A user other than root holds no capability, but setuid programs can get the bounding set."""
    assert held(bench, DEFAULT_CAPABILITIES, User(uid=1000, gid=1000)) == [0, 0, 0, 0xA80425FB, 0]


@pytest.mark.root
def test_added_dropped_and_none(bench: Bench) -> None:
    """Any set can be asked for, also the empty one."""
    changed = DEFAULT_CAPABILITIES - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}

    assert held(bench, changed)[3] == mask(changed)
    assert held(bench, frozenset()) == [0] * 5


@pytest.mark.root
def test_privileged_holds_what_we_hold(bench: Bench) -> None:
    """A privileged container has every capability that the caller could pass on."""
    status, text = bench.run(privileged(bench.spec(*FIELDS)))

    assert status == ExitStatus(0, None)
    assert int(text.split()[7], 16) == mask(available())


@pytest.mark.root
def test_what_we_do_not_hold(bench: Bench) -> None:
    """Asking for a capability that is not there is an error with its name, not a weaker container."""
    missing = sorted(ALL_CAPABILITIES - available())
    if not missing:
        pytest.skip("needs a capability that root does not hold here: this process holds every one")
    with pytest.raises(SetupError) as caught:
        held(bench, frozenset({missing[0]}))

    assert (caught.value.stage, caught.value.path) == ("capabilities", missing[0])


def test_unknown_name(bench: Bench) -> None:
    """A name the kernel does not have is refused."""
    with pytest.raises(SpecError, match="CAP_NOTHING"):
        held(bench, frozenset({"CAP_NOTHING"}))
