"""docs/rules has a page for every rule, made of its docstring; `python -m tests.test_rules` writes them anew."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from grammar.lint.rule import Rule
from grammar.lint.rules import RULES

PAGES = Path(__file__).resolve().parent.parent / "docs" / "rules"
INDEX = "README.md"


def page(rule: Rule) -> str:
    """The page of a rule."""
    return f"# {rule.name}\n\n{rule.description}\n\n{inspect.getdoc(rule)}\n\nThe reference's page: <{rule.url}>\n"


def index() -> str:
    """The list of all pages."""
    rows = "".join(f"| [{rule.name}]({rule.slug}.md) | {rule.description} |\n" for rule in RULES)
    head = "# Rules of `pybuild check`\n\nWritten by `make docs` from what each rule says of itself.\n\n"
    skipping = (
        "\nA rule is skipped for a file by `# check=skip=RULE,…` in its first lines (`skip=all` for all of them), for\n"
        "one instruction by the same comment right above it, and for one command by\n"
        "`--build-arg BUILDKIT_DOCKERFILE_CHECK=skip=RULE`, which takes the place of the directive.\n"
    )
    return f"{head}| rule | what it looks for |\n| --- | --- |\n{rows}{skipping}"


def pages() -> dict[str, str]:
    """Every file of the folder with its text."""
    return {INDEX: index(), **{f"{rule.slug}.md": page(rule) for rule in RULES}}


def test_pages_are_current() -> None:
    """The folder holds what the rules say, and nothing else; `make docs` brings it up to date."""
    assert pages() == {path.name: path.read_text() for path in PAGES.iterdir()}


def test_there_are_the_references_rules() -> None:
    """The names are those of the reference, which files refer to when they skip one."""
    assert 22 == len({rule.name for rule in RULES}) == len(RULES)
    assert "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/" in {rule.url for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_page_shows_bad_and_good(rule: Rule) -> None:
    """Whoever meets a rule sees what breaks it and what does not."""
    text = inspect.getdoc(rule) or ""

    assert "Bad" in text
    assert "Good" in text.partition("Bad")[2]


if __name__ == "__main__":
    for name, text in pages().items():
        (PAGES / name).write_text(text)
