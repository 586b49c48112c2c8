"""Stages and references between them."""

from __future__ import annotations

import pytest

from grammar import ResolveError, parse, resolve


def _messages(source: bytes) -> list[tuple[str, int]]:
    with pytest.raises(ResolveError) as caught:
        resolve(parse(source))
    return [(d.message, d.span.start.line if d.span else 0) for d in caught.value.diagnostics]


def test_stages() -> None:
    """Names are lower case, ARGs above the first FROM are global, comments describe, spans reach to the last line."""
    source = b"ARG A=1\n# build makes it\nFROM a AS Build\nRUN x \\\n y\n"
    source += b"FROM build\nCOPY --from=BUILD / /\nCOPY --from=0 / /\n"
    dockerfile = resolve(parse(source))
    first, second = dockerfile.stages

    assert (first.name, first.description, first.index, first.span.lines) == ("build", "makes it", 0, (3, 5))
    assert (second.name, second.description, len(second.instructions)) == (None, "", 2)
    assert [arg.pairs[0].name.text for arg in dockerfile.global_args] == ["A"]
    assert dockerfile.stage("BUILD") == first
    assert dockerfile.stage("none") is None


def test_the_last_of_equal_names_counts() -> None:
    """A later stage shadows an earlier one of its name."""
    assert (
        resolve(parse(b"FROM a AS x\nFROM b AS x\nFROM x")).stage("x")
        == resolve(parse(b"FROM a AS x\nFROM b AS x\nFROM x")).stages[1]
    )


def test_references_that_hold() -> None:
    """Names that are no stage may be images or contexts; triggers, and what comes too early, are looked at later."""
    resolve(parse(b"FROM a\nCOPY --from=image:1 / /\nONBUILD COPY --from=later / /\nFROM b AS later"))
    resolve(parse(b"FROM a\nCOPY --from=later / /\nRUN --mount=from=later,target=/m true\nFROM b AS later"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"ARG A", [("dockerfile contains no stages to build", 0)]),
        (b"ENV a=b\nRUN x\nFROM a", [("no build stage in current context", n) for n in (1, 2)]),
        (b"FROM a AS x\nCOPY --from=x / /", [("circular dependency detected on stage: x", 2)]),
        (b"FROM a\nCOPY --from=0 / /", [("circular dependency detected on stage: stage-0", 2)]),
        (
            b"FROM a AS x\nCOPY --from=y / /\nFROM a AS y\nRUN --mount=from=x,target=/m true",
            [("circular dependency detected on stage: x", 2)],
        ),
        (
            b"FROM a AS x\nCOPY --from=y / /\nFROM x AS y",
            [("circular dependency detected on stage: x", 2)],
        ),
        (
            b"FROM a\nCOPY --from=3 / /\nCOPY --from=-1 / /",
            [("invalid stage index 3", 2), ("invalid stage index -1", 3)],
        ),
    ],
)
def test_faults(source: bytes, expected: list[tuple[str, int]]) -> None:
    """Everything that does not fit is told at once, at its line."""
    assert _messages(source) == expected


def test_a_cycle_is_shown_as_a_chain() -> None:
    """The hint names the stages on the way round."""
    with pytest.raises(ResolveError) as caught:
        resolve(parse(b"FROM a AS x\nCOPY --from=z / /\nFROM x AS y\nFROM y AS z"))

    assert caught.value.hint.startswith("x -> z -> y -> x")
