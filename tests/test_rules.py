"""docs/rules has a page for every rule, made of its docstring; `python -m tests.test_rules` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from grammar.lint.rule import BUILDKIT, PYBUILD, STYLE, Rule
from grammar.lint.rules import RULES

PAGES = Path(__file__).resolve().parent.parent / "docs" / "rules"
INDEX = "README.md"


def page(rule: Rule) -> str:
    """The page of a rule."""
    if rule.url:
        origin = f"The reference's page: <{rule.url}>"
    else:
        wanted = "Ask for it with" if rule.experimental else "A rule of pybuild's own; leave it out with"
        key = "extend-select" if rule.experimental else "ignore"
        origin = f'{wanted} `{key} = ["{rule.name}"]`.'
    return f"# {rule.name}\n\n{rule.description}\n\n{rule.page}\n\n{origin}\n"


HEADINGS = {
    BUILDKIT: "## Rules that BuildKit has too\n\nUnder the same names, with the same messages.",
    PYBUILD: "## Rules that only pybuild has\n\nBuilds do not look at them, and `build --check` only where asked.",
    STYLE: "## Matters of style\n\nThey have to be asked for, one by one or as the group `style`.",
}

CHOOSING = """
## Choosing

What is looked at follows from these, the later ones having the last word:

1. The rules that BuildKit has (group `buildkit`) and those that only pybuild has (`pybuild`). `pybuild build --check`
   answers as `docker build --check` does: it starts with `buildkit` alone. An ordinary build warns of these alone.
2. `[tool.pybuild.check]` in the nearest `pyproject.toml` or `[check]` in the nearest `.pybuild.toml`, from the
   Dockerfile's directory upwards; of two in one directory `.pybuild.toml` counts. Builds without `--check` read none.

   ```toml
   [tool.pybuild.check]
   select = ["buildkit", "pybuild"]      # these rules and groups instead of the default; "all" is every rule
   extend-select = ["PinBaseImage"]      # these as well
   ignore = ["JSONArgsRecommended"]      # not these
   severity = { UnusedStage = "error", MaintainerDeprecated = "info", FromAsCasing = "off" }
   per-file-ignores = { "*.dev" = ["all"], "tools/Dockerfile" = ["pybuild"] }
   ```

3. `--select RULE,…` in place of `select` and `extend-select`; `--ignore RULE,…` beside `ignore`.
4. The file itself: `# check=skip=RULE,…` in its first lines (`skip=all` for all), `experimental=RULE,…` for rules that
   have to be asked for. `--build-arg BUILDKIT_DOCKERFILE_CHECK=skip=RULE` takes the place of this directive.
5. `# check=skip=RULE` right above one instruction, for that instruction.

The status is 1 where an error or a warning was found; what has the severity `info` is only shown. `# check=error=true`
makes a build fail where one of BuildKit's rules is broken.

## Repairing

`pybuild check --fix` repairs what can be repaired without changing what is built, beyond what the rule is about;
`--diff` shows it instead. `--unsafe-fixes` also takes guesses, such as the name that a misspelt variable is near to.
"""


def index() -> str:
    """The list of all pages."""
    text = "# Rules of `pybuild check`\n\nWritten by `make docs` from what each rule says of itself.\n"
    for group, heading in HEADINGS.items():
        listed = [rule for rule in RULES if rule.group == group]
        rows = "".join(f"| [{rule.name}]({rule.slug}.md) | {rule.description} |\n" for rule in listed)
        text += f"\n{heading}\n\n| rule | what it looks for |\n| --- | --- |\n{rows}"
    return text + CHOOSING


def pages() -> dict[str, str]:
    """Every file of the folder with its text."""
    return {INDEX: index(), **{f"{rule.slug}.md": page(rule) for rule in RULES}}


def test_pages_are_current() -> None:
    """The folder holds what the rules say, and nothing else; `make docs` brings it up to date."""
    assert pages() == {path.name: path.read_text() for path in PAGES.iterdir()}


def test_there_are_the_references_rules() -> None:
    """The names are those of the reference, which files refer to when they skip one."""
    known = [rule for rule in RULES if rule.group == BUILDKIT]

    assert 22 == len({rule.name for rule in known}) == len(known)
    assert "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/" in {rule.url for rule in known}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_page_shows_bad_and_good(rule: Rule) -> None:
    """Whoever meets a rule sees what breaks it and what does not."""
    assert "Bad" in rule.page
    assert "Good" in rule.page.partition("Bad")[2]


if __name__ == "__main__":
    for name, text in pages().items():
        (PAGES / name).write_text(text)
