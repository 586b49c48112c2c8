"""The recorded cases, as far as text alone decides them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grammar import LocatedGrammarError, parse, resolve

CASES = Path(__file__).parents[1] / "cases"
# Errors that need values of variables, base images, contexts or a run: the builder's.
BUILD_TIME = {
    "add-checksum-local", "below-a-file", "broken-archive", "check-as-error", "chmod-invalid", "chmod-out-of-range",
    "chown-name-on-scratch", "chown-name-with-link", "context-name-casing", "copy-from-later-stage",
    "copy-from-unknown", "copy-unbalanced-quote", "copy-url",
    "dir-over-file", "dir-over-link", "expose-invalid", "expose-range", "file-over-dir", "from-blank",
    "from-stage-casing", "ignore-pattern", "ignored-source", "label-unbalanced-quote", "missing-in-stage",
    "missing-source", "mount-from-later-stage", "mount-on-root",
    "mount-source-missing", "mount-unknown-key", "mount-unknown-type", "parents-missing",
    "required-variable", "run-exit-code", "run-killed",
    "run-not-found", "run-unknown-user", "secret-required", "secret-without-id", "stopsignal-unknown",
    "substitution-empty",
    "substitution-modifier", "substitution-unclosed", "target-unknown", "workdir-over-file",
}  # fmt: skip
ERRORS = sorted(path.parent for path in CASES.glob("errors/*/case.json"))


@pytest.mark.parametrize("folder", ERRORS, ids=lambda folder: folder.name)
def test_errors(folder: Path) -> None:
    """Each error has the words of the reference and stands inside the lines that it marks."""
    data = (folder / "Dockerfile").read_bytes()
    expected = json.loads((folder / "expected.json").read_text())["error"]
    if folder.name in BUILD_TIME:
        assert resolve(parse(data)).stages
        return
    with pytest.raises(LocatedGrammarError) as caught:
        resolve(parse(data))

    first = caught.value.diagnostics[0]
    assert expected["fragment"] in first.message
    if expected["lines"] is not None:
        assert first.span is not None
        start, end = first.span.lines
        assert expected["lines"][0] <= start <= end <= expected["lines"][1]


def test_everything_else_is_understood() -> None:
    """No Dockerfile of another area is refused."""
    seen = 0
    for path in sorted(CASES.glob("*/*/*Dockerfile")):
        if path.parent.parent.name != "errors":
            assert resolve(parse(path.read_bytes())).stages, path
            seen += 1

    assert seen > 100
