"""The shape of the code, read from its imports: three leaves, one root, one reader of the process (docs/design.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = ("grammar", "layerstore", "runner")
PACKAGES = (*LEAVES, "builder")
THIRD_PARTY = {
    "grammar": {"lark"},
    "layerstore": {"zstandard", "urllib3", "isal"},
    "runner": {"pyroute2", "yaml"},
    "builder": {"click", "tqdm", "urllib3", "pygls", "lsprotocol"},
}
OPTIONAL = {
    "pygls": "builder/lsp/server.py",
    "lsprotocol": "builder/lsp/server.py",
    "yaml": "runner/cdi.py",
}
CTYPES = {
    "runner/syscalls.py": "the wrappers of the system calls that Python lacks",
    "layerstore/durable.py": "syncfs(2), and a leaf imports no other leaf",
}
PROGRAMS = {
    "grammar/generate.py": "the program that writes grammar/tables.py",
    "runner/generate.py": "the program that writes runner/requests.py",
    "runner/launcher.py": "the process that containers are born in; its arguments are the caller's last will",
    "runner/lastwill.py": "the program that cleans up after a killed caller; the directories are its arguments",
    "runner/child.py": "the process that becomes the container; its own directory is what it checks",
}
PROCESS = {
    ("os", "environ"),
    ("os", "environb"),
    ("os", "getenv"),
    ("os", "getcwd"),
    ("os", "getcwdb"),
    ("os", "isatty"),
    ("os", "get_terminal_size"),
    ("shutil", "get_terminal_size"),
    ("sys", "argv"),
    ("Path", "cwd"),
    ("Path", "home"),
}
CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}


def sources(*packages: str) -> list[Path]:
    """Every module of the packages."""
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module


def relative(path: Path) -> str:
    """The path as it is written in this file."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_know_neither_each_other_nor_the_builder(leaf: str) -> None:
    """grammar, layerstore and runner import no other package of the project."""
    others = set(PACKAGES) - {leaf}
    found = [(relative(path), name) for path in sources(leaf) for name in imports(path) if name.split(".")[0] in others]

    assert [] == found


def test_nobody_imports_the_command_line() -> None:
    """builder.cli is the top: only itself and `python -m builder` import it."""
    files = [path for path in sources(*PACKAGES) if "builder/cli/" not in relative(path)]
    found = [relative(path) for path in files if any(name.startswith("builder.cli") for name in imports(path))]

    assert ["builder/__main__.py"] == found


@pytest.mark.parametrize("package", PACKAGES)
def test_third_party_imports(package: str) -> None:
    """A package imports the libraries that are its own business and no others."""
    import sys

    allowed = THIRD_PARTY[package] | set(PACKAGES) | sys.stdlib_module_names
    found = {
        (relative(path), name)
        for path in sources(package)
        for name in imports(path)
        if name.split(".")[0] not in allowed
    }

    assert set() == found


@pytest.mark.parametrize("library", OPTIONAL)
def test_optional_libraries_have_one_home(library: str) -> None:
    """What need not be installed is imported by one module, which one command imports."""
    found = {relative(path) for path in sources(*PACKAGES) for name in imports(path) if name.split(".")[0] == library}

    assert {OPTIONAL[library]} == found


def test_ctypes_has_two_homes() -> None:
    """System calls are wrapped in one place each."""
    found = {relative(path) for path in sources(*PACKAGES) for name in imports(path) if name.split(".")[0] == "ctypes"}

    assert set(CTYPES) == found


def attributes(path: Path) -> Iterator[tuple[str, str]]:
    """Every `name.attribute` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """Every `name.attribute(…)` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            yield node.func.value.id, node.func.attr


def below_the_command_line() -> list[Path]:
    """What is to be told about the process, and not to look."""
    return [
        path for path in sources(*PACKAGES) if "builder/cli/" not in relative(path) and relative(path) not in PROGRAMS
    ]


def test_only_the_command_line_looks_at_the_process() -> None:
    """Arguments, environment, terminal and working directory are read in builder/cli/ alone."""
    found = [(relative(path), *one) for path in below_the_command_line() for one in attributes(path) if one in PROCESS]

    assert [] == found


def test_only_the_command_line_reads_the_clock() -> None:
    """Below builder/cli/ a clock is a parameter; naming one as a default is allowed, asking it is not."""
    found = [(relative(path), *one) for path in below_the_command_line() for one in calls(path) if one in CLOCK]

    assert [] == found


def test_only_the_command_line_prints() -> None:
    """`print` is nowhere: what is shown goes through click or a stream that was handed in."""
    found = [
        relative(path)
        for path in below_the_command_line()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert [] == found


def test_every_module_says_what_it_knows() -> None:
    """A module that holds code begins with a docstring."""
    files = [path for path in sources(*PACKAGES) if path.read_text().strip()]
    found = [relative(path) for path in files if ast.get_docstring(ast.parse(path.read_text())) is None]

    assert [] == found


def test_packages_are_installed() -> None:
    """Every package folder is listed in pyproject.toml, so that an installed pybuild is whole."""
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in sources(*PACKAGES)}

    assert folders == listed
