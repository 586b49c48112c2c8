"""No rule objects to a Dockerfile that is written well, whatever it builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.build import BuildOptions, parse
from builder.check import check
from builder.plan import PlanOptions
from grammar.lint.selection import EVERYTHING
from layerstore import Store
from layerstore.platforms import Platform

GOOD = sorted((Path(__file__).parent / "good").glob("*.Dockerfile"))
HOST = Platform.of("linux", "amd64")
CONTEXT = {
    "package.json": '{"name": "app", "scripts": {"build": "vite build"}, "dependencies": {"left-pad": "1.3.0"}}',
    "package-lock.json": "{}",
    "requirements.txt": "flask==3.0.2\n",
    "pyproject.toml": "[project]\nname = 'app'\n",
    "go.mod": "module example.com/app\n",
    "Cargo.toml": "[package]\nname = 'app'\n",
    "Gemfile": "gem 'rails'\n",
    "src/main.py": "",
    "node_modules/left-pad/index.js": "",
    "workspaces/package.json": '{"workspaces": ["a"]}',
    ".dockerignore": ".git\nnode_modules\n*.log\n**/__pycache__\n.env*\n!.env.example\ndist\ncoverage/\nDockerfile*\n",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store without images: what the base images say is not known, as for most checks."""
    return Store.open(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A context with the files that the rules look into."""
    root = tmp_path_factory.mktemp("context")
    for name, text in CONTEXT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_silence(store: Store, context: Path, path: Path) -> None:
    """Nothing is said of it by the rules that are looked at by default."""
    options = BuildOptions(
        plan=PlanOptions(platform=HOST, build_platform=HOST, context=context),
        dockerfile=path.read_bytes(),
        state=context,
    )
    report = check(store, options, parse(options), whole=True, selection=EVERYTHING)

    assert ([], None) == ([(one.rule.name, one.lines, one.message) for one in report.violations], report.error)


def test_there_are_enough() -> None:
    """The collection is one."""
    assert len(GOOD) >= 30
