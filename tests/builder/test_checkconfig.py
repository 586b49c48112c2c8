"""The project's wishes about checks: where they are found, what they choose, and where their mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.checkconfig import load, parse_names
from builder.errors import ConfigError, UsageError
from grammar.diagnostics import Severity
from grammar.lint.options import CheckOptions
from grammar.lint.rules import RULES
from grammar.lint.selection import EVERYTHING, REFERENCE, Selection

NOTHING = CheckOptions()


def names(selection: Selection, directive: CheckOptions = NOTHING) -> set[str]:
    """The rules that are looked at."""
    return {rule.name for rule in RULES if selection.wants(rule, directive)}


def write(directory: Path, name: str, *lines: str) -> None:
    """Write a file with wishes."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("\n".join(lines) + "\n")


def test_without_a_file(tmp_path: Path) -> None:
    """Nobody wishing anything, what is looked at is the default."""
    assert names(EVERYTHING) == names(load(tmp_path).selection(None))
    assert names(REFERENCE) <= names(EVERYTHING)


def test_nearest_file(tmp_path: Path) -> None:
    """The nearest file counts, whichever it is; one without the section is none."""
    write(tmp_path, "pyproject.toml", "[tool.pybuild.check]", 'select = ["StageNameCasing"]')
    write(tmp_path / "a", "pyproject.toml", "[project]", 'name = "pybuild-user"')
    write(tmp_path / "a" / "b", ".pybuild.toml", "[check]", 'select = ["UndefinedVar"]')
    write(tmp_path / "a" / "b", "pyproject.toml", "[tool.pybuild.check]", 'select = ["FromAsCasing"]')

    assert {"StageNameCasing"} == names(load(tmp_path / "a").selection(None))
    assert {"UndefinedVar"} == names(load(tmp_path / "a" / "b").selection(None))


def test_keys(tmp_path: Path) -> None:
    """Every key does what it says."""
    write(
        tmp_path,
        "pyproject.toml",
        "[tool.pybuild.check]",
        'select = ["StageNameCasing", "FromAsCasing", "JSONArgsRecommended"]',
        'extend-select = ["InvalidDefinitionDescription"]',
        'ignore = ["FromAsCasing"]',
        'severity = { StageNameCasing = "error", JSONArgsRecommended = "off" }',
        'per-file-ignores = { "*.dev" = ["StageNameCasing"], "sub/Dockerfile" = ["all"] }',
    )
    config = load(tmp_path)

    selection = config.selection(tmp_path / "Dockerfile")
    assert {"StageNameCasing", "InvalidDefinitionDescription"} == names(selection)
    levels = {rule.name: selection.severity(rule) for rule in RULES if selection.wants(rule, NOTHING)}
    assert {"StageNameCasing": Severity.ERROR, "InvalidDefinitionDescription": Severity.WARNING} == levels
    assert {"InvalidDefinitionDescription"} == names(config.selection(tmp_path / "x" / "Dockerfile.dev"))
    assert set() == names(config.selection(tmp_path / "sub" / "Dockerfile"))


def test_the_command_has_the_last_word(tmp_path: Path) -> None:
    """--select takes the place of what the file selects, even what it ignores; --ignore comes on top."""
    write(tmp_path, ".pybuild.toml", "[check]", 'ignore = ["UndefinedVar"]', 'severity = { UndefinedVar = "off" }')
    config = load(tmp_path)

    assert "UndefinedVar" not in names(config.selection(None))
    assert {"UndefinedVar"} == names(config.selection(None, select=["UndefinedVar"]))
    assert {"FromAsCasing"} == names(
        config.selection(None, select=["UndefinedVar", "FromAsCasing"], ignore=["UndefinedVar"])
    )


def test_the_directive_has_the_very_last_word(tmp_path: Path) -> None:
    """What the file skips is skipped; what has to be asked for can be asked for there, unless it is refused here."""
    directive = CheckOptions.parse("skip=UndefinedVar,InvalidDefinitionDescription;experimental=all")
    asked = CheckOptions.parse("experimental=InvalidDefinitionDescription")

    assert "UndefinedVar" not in names(EVERYTHING, directive)
    assert "InvalidDefinitionDescription" in names(REFERENCE, asked)
    assert "InvalidDefinitionDescription" not in names(Selection(ignore=frozenset({"buildkit"})), asked)
    assert {"buildkit"} == {rule.group for rule in RULES if REFERENCE.wants(rule, directive)}
    assert set() == names(EVERYTHING, CheckOptions.parse("skip=all"))


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ('select = ["UndefinedVr"]', "3:12", "there is no rule called UndefinedVr (did you mean UndefinedVar?)"),
        ('ignore = ["undefinedvar"]', "3:12", "there is no rule called undefinedvar (did you mean UndefinedVar?)"),
        ('selct = ["all"]', "3:1", "unknown key selct (did you mean select?)"),
        ('severity = { UndefinedVar = "fatal" }', "3:14", "the severity of UndefinedVar is none"),
        ('severity = { style = "off" }', "3:14", "style is a group of rules"),
        ('select = "all"', "3:1", "select is not a list of rules"),
        ("select = ]", "3:10", "Invalid value"),
        ("select = [", "3:11", "Invalid value"),
        ('per-file-ignores = { "a" = ["no"] }', "3:30", "there is no rule called no"),
        ("severity = 1", "3:1", "severity is not a table"),
        ("per-file-ignores = 1", "3:1", "per-file-ignores is not a table"),
    ],
)
def test_mistakes(tmp_path: Path, line: str, place: str, message: str) -> None:
    """A mistake is told with file, line and column, and with what would be right."""
    write(tmp_path, ".pybuild.toml", "# select, no, severity, a", "[check]", line)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)

    assert f"{tmp_path / '.pybuild.toml'}:{place}: error[config]: {message}" == caught.value.render().splitlines()[0]
    assert caught.value.hint


def test_no_table(tmp_path: Path) -> None:
    """A value where a table belongs is told too."""
    write(tmp_path, "pyproject.toml", "[tool.pybuild]", "check = 1")

    with pytest.raises(ConfigError, match=r"tool\.pybuild\.check is not a table"):
        load(tmp_path)


def test_names_of_the_command() -> None:
    """Names are separated by commas, and have to exist."""
    assert frozenset({"UndefinedVar", "all", "style"}) == parse_names(["UndefinedVar, all", "style"], "--select")
    with pytest.raises(
        UsageError, match=r"--select: there is no rule called UndefinedVars \(did you mean UndefinedVar"
    ):
        parse_names(["UndefinedVars"], "--select")
