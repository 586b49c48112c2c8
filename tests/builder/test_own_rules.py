"""The rules that only pybuild has: what each objects to, and what it lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.build import BuildOptions, parse
from builder.check import Report, check
from builder.fix import fix
from builder.plan import PlanOptions
from grammar.lint.rule import PYBUILD, STYLE
from grammar.lint.selection import EVERYTHING, REFERENCE, Selection
from layerstore import Store
from layerstore.platforms import Platform

HOST = Platform.of("linux", "amd64")
OWN = Selection(select=frozenset({PYBUILD, STYLE}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store without images."""
    return Store.open(tmp_path_factory.mktemp("store"))


def options(text: str, context: Path, target: str | None = None) -> BuildOptions:
    """The options of a check."""
    plan = PlanOptions(platform=HOST, build_platform=HOST, context=context, target=target)
    return BuildOptions(plan=plan, dockerfile=text.encode(), state=context)


def report(store: Store, text: str, context: Path, *, target: str | None = None, selection: Selection = OWN) -> Report:
    """What a check says."""
    given = options(text, context, target)
    return check(store, given, parse(given), whole=True, selection=selection)


def told(found: Report) -> list[tuple[str, int]]:
    """Rules and first lines."""
    return [(one.rule.name, one.lines[0]) for one in found.violations]


def lines_of(name: str, found: Report) -> list[int]:
    """The lines at which one rule objects."""
    return [line for rule, line in told(found) if rule == name]


LATE = {
    "system packages": "FROM debian:12\nCOPY app /app\nRUN apt-get update && apt-get install -y curl\n",
    "several managers": "FROM alpine:3\nCOPY app /app\nRUN apk add --no-cache curl\n",
    "fedora": "FROM fedora:40\nADD app /app\nRUN dnf install -y git && dnf clean all\n",
    "package by name": "FROM python:3\nCOPY app /app\nENV A=b\nRUN python3 -m pip install flask==3\n",
    "below another installation": "FROM node:20\nCOPY app /app\nRUN npm install -g serve@14\nRUN apk add x=1\n",
    "node": "FROM node:20\nWORKDIR /w\nCOPY . .\nRUN npm ci\n",
    "node in a directory": "FROM node:20\nCOPY web /web/\nWORKDIR /web\nRUN npm ci && npm cache clean --force\n",
    "go": "FROM golang:1\nWORKDIR /w\nCOPY . ./\nRUN go mod download\n",
    "requirements": "FROM python:3\nWORKDIR /usr/src/app\nCOPY . /usr/src/app\nRUN pip install -r requirements.txt\n",
    "bundle": "FROM ruby:3\nWORKDIR /w\nADD . .\nRUN bundle install\n",
    "cargo": "FROM rust:1\nWORKDIR /w\nCOPY . .\nRUN cargo fetch\n",
    "of a stage": "FROM a:1 AS m\nCOPY . /s\nRUN make\nFROM b:1\nCOPY --from=m /s/app /srv/app\nRUN dnf install -y c\n",
}


@pytest.mark.parametrize("name", LATE)
def test_copy_before_install(store: Store, tmp_path: Path, name: str) -> None:
    """The COPY is named whose files an installation does not need."""
    for directory in (tmp_path, tmp_path / "web"):
        directory.mkdir(exist_ok=True)
        for file in ("package.json", "requirements.txt", "go.mod", "Gemfile", "Cargo.toml"):
            (directory / file).write_text("{}")
    text = LATE[name]
    copies = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith(("COPY", "ADD"))]

    assert copies[-1:] == lines_of("CopyBeforeInstall", report(store, text, tmp_path))


EARLY = {
    "mentioned": "FROM debian:12\nCOPY app.sh /tmp/\nRUN apt-get install -y curl && rm /tmp/app.sh\n",
    "more is done": "FROM debian:12\nCOPY app /app\nRUN apt-get install -y curl && make\n",
    "something in between": "FROM debian:12\nCOPY app /app\nRUN make\nRUN apk add curl\n",
    "a setting of the system": "FROM debian:12\nCOPY sources.list /etc/apt/\nRUN apk add curl\n",
    "no manifest there": "FROM node:20\nWORKDIR /w\nCOPY . .\nRUN yarn install\n",
    "hooks": "FROM node:20\nWORKDIR /w\nCOPY hooks .\nRUN npm ci\n",
    "cache mount": "FROM node:20\nWORKDIR /w\nCOPY . .\nRUN --mount=type=cache,target=/root/.npm npm ci\n",
    "of an image": "FROM debian:12\nCOPY --from=tools:1 /x /x\nRUN apk add curl\n",
    "a list of packages": "FROM debian:12\nCOPY list /srv/\nRUN apk add $(cat list)\n",
    "a local package": "FROM debian:12\nCOPY pkgs /srv/\nRUN apt-get install -y ./x.deb\n",
    "control flow": "FROM debian:12\nCOPY app /srv/\nRUN if true; then apk add curl; fi\n",
    "editable": "FROM python:3\nWORKDIR /w\nCOPY . .\nRUN pip install -r dev.txt\n",
}


@pytest.mark.parametrize("name", EARLY)
def test_copy_that_may_be_needed(store: Store, tmp_path: Path, name: str) -> None:
    """Where files may be needed nothing is said."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "dev.txt").write_text("-e .\n")
    (tmp_path / "hooks" / "package.json").write_text('{"scripts": {"postinstall": "node x.js"}}')
    if name == "no manifest there":
        (tmp_path / "package.json").unlink()

    assert [] == lines_of("CopyBeforeInstall", report(store, EARLY[name], tmp_path))


def test_global_argument(store: Store, tmp_path: Path) -> None:
    """The first RUN of a stage that uses one is told, with the fix; stages based on it are repaired by the same."""
    text = "ARG v=1\nFROM scratch AS a\nRUN x ${v}\nRUN y $v\nFROM a\nRUN z $v\nFROM scratch\nRUN '$v' \\$v ${v:-1}\n"
    found = report(store, text, tmp_path)

    assert [3] == lines_of("UndeclaredGlobalArg", found)
    fixed = fix(store, options(text, tmp_path), EVERYTHING).text.decode()
    assert text.replace("RUN x", "ARG v\nRUN x") == fixed


def test_global_argument_of_an_unknown_base(store: Store, tmp_path: Path) -> None:
    """A variable that chooses a base image may be one that this image sets."""
    text = "ARG NODE_VERSION=20\nARG other=1\nFROM node:${NODE_VERSION}\nRUN echo $NODE_VERSION\nRUN echo $other\n"

    assert [5] == lines_of("UndeclaredGlobalArg", report(store, text, tmp_path))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("FROM scratch AS orphan\nRUN a\nFROM scratch\nRUN b\n", []),
        ("FROM debian:1 AS orphan\nRUN a\nFROM scratch\n", [1]),
        ("FROM debian:1\nRUN a\nFROM scratch\n", [1]),
        ("FROM debian:1 AS compiler\nRUN a\nFROM scratch\nCOPY --from=compilr /a /\n", [1]),
        ("FROM debian:1 AS unit-test\nRUN a\nFROM scratch\n", []),
        ('FROM debian:1 AS orphan\nCMD ["a"]\nFROM scratch\n', []),
        ("# orphan is built by hand\nFROM debian:1 AS orphan\nFROM scratch\n", []),
        ("FROM debian:1 AS used\nFROM scratch\nRUN --mount=from=used,target=/x a\n", []),
        ("FROM debian:1 AS used\nFROM used AS also\nFROM scratch\nCOPY --from=1 /a /\n", []),
    ],
)
def test_unused_stage(store: Store, tmp_path: Path, text: str, lines: list[int]) -> None:
    """A stage that nobody uses is told unless it seems to be meant as a target."""
    assert lines == lines_of("UnusedStage", report(store, text, tmp_path))


def test_unused_stage_with_a_target(store: Store, tmp_path: Path) -> None:
    """With a target the others are somebody else's business."""
    text = "FROM debian:1 AS orphan\nFROM debian:1 AS other\nFROM scratch\n"

    assert [] == lines_of("UnusedStage", report(store, text, tmp_path, target="other"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("FROM debian:1\nRUN apt-get update && apt-get install -y a\n", [2]),
        ("FROM debian:1\nRUN <<E\napt-get update\napt-get install -y a\nE\n", [2]),
        ("FROM debian:1\nRUN apt-get install -y a && apt-get clean\n", [2]),
        ("FROM debian:1\nRUN apt-get install -y a && rm -rf /var/lib/apt/lists/*\n", []),
        ("FROM debian:1\nRUN apt-get install -y a && find /var/lib/apt/lists -delete\n", []),
        ("FROM debian:1\nRUN --mount=type=cache,target=/var/lib/apt apt-get install -y a\n", []),
        ("FROM debian:1\nRUN --mount=type=cache,target=/var/cache/apt apt-get install -y a\n", [2]),
        ("FROM debian:1 AS b\nRUN apt-get install -y a\nFROM scratch\nCOPY --from=b /a /\n", []),
        ("FROM debian:1 AS b\nRUN apt-get install -y a\nFROM b\nCOPY a /\n", [2]),
    ],
)
def test_apt_lists(store: Store, tmp_path: Path, text: str, lines: list[int]) -> None:
    """Lists have to go in the same RUN, where the layer is part of an image."""
    assert lines == lines_of("AptListsNotRemoved", report(store, text, tmp_path))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("FROM debian:1\nARG API_TOKEN\nRUN a\nRUN b $API_TOKEN\nRUN c ${API_TOKEN}\n", [4]),
        ("FROM debian:1\nARG API_TOKEN\nENV T=x$API_TOKEN\n", [3]),
        ('FROM debian:1\nARG API_TOKEN\nLABEL t="${API_TOKEN:-x}" u=1\n', [3]),
        ("FROM debian:1\nARG API_TOKEN\nCOPY <<E /e\n$API_TOKEN\nE\n", [3]),
        ("FROM debian:1 AS b\nARG API_TOKEN\nRUN b $API_TOKEN\nFROM scratch\nCOPY --from=b /a /\n", []),
        ("FROM debian:1\nARG PUBLIC_KEY\nRUN b $PUBLIC_KEY\n", []),
        ("FROM debian:1\nRUN --mount=type=secret,id=t,env=API_TOKEN b $API_TOKEN\n", []),
    ],
)
def test_secret_argument(store: Store, tmp_path: Path, text: str, lines: list[int]) -> None:
    """The place is told where the value becomes part of an image, and no place where it does not."""
    assert lines == lines_of("SecretArgInImage", report(store, text, tmp_path))


PINS = {
    "PinAptPackages": ("RUN apt-get install -y a=1 b", "RUN apt-get install -y a=1 b/bookworm $LIST ./c.deb"),
    "PinApkPackages": ("RUN apk add --virtual .x a", "RUN apk add --no-cache --virtual .x a=1 b~2"),
    "PinPipPackages": (
        "RUN pip install 'a==1' b",
        "RUN pip install 'a==1' 'b>=2' c@https://h/c.tgz\nRUN pip install -r r",
    ),
    "PinNpmPackages": ("RUN npm install -g @a/b", "RUN npm install -g @a/b@1 c@latest\nRUN npm ci"),
    "PinBaseImage": ("FROM debian", "FROM debian:12\nFROM a:5000/b:1\nFROM c@sha256:" + "0" * 64 + "\nFROM scratch"),
}


@pytest.mark.parametrize("name", PINS)
def test_style(store: Store, tmp_path: Path, name: str) -> None:
    """Versions are looked at only where that is asked for."""
    bad, good = PINS[name]
    head = "" if name == "PinBaseImage" else "FROM debian:12\n"

    assert [1 if not head else 2] == lines_of(name, report(store, f"{head}{bad}\n", tmp_path))
    assert [] == lines_of(name, report(store, f"{head}{good}\n", tmp_path))
    assert [] == lines_of(name, report(store, f"{head}{bad}\n", tmp_path, selection=EVERYTHING))
    asked = f"# check=experimental={name}\n{head}{bad}\n"
    assert 1 == len(lines_of(name, report(store, asked, tmp_path, selection=EVERYTHING)))
    assert [] == lines_of(name, report(store, asked, tmp_path, selection=REFERENCE))


def test_unused_ignore_patterns(store: Store, tmp_path: Path) -> None:
    """Patterns without effect are told at their line of the ignore file, but for those of what comes and goes."""
    (tmp_path / "src" / "__pycache__").mkdir(parents=True)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "generated.txt").touch()
    (tmp_path / ".gitignore").write_text("/result/\n")
    patterns = [
        "# comment",
        "src/*",
        "nothing-like-it",
        "  node_module",
        "__pycache__",
        ".git",
        "*.log",
        "result",
        "a #b",
    ]
    (tmp_path / ".dockerignore").write_text("\n".join([*patterns, "!gone", "generated.txt"]))
    found = report(store, "FROM scratch\n", tmp_path)
    deeper = "in the root of the context; **/__pycache__ would match src/__pycache__"

    assert [
        (3, 1, 'Ignore pattern "nothing-like-it" matches nothing in the build context'),
        (4, 3, 'Ignore pattern "node_module" matches nothing (did you mean node_modules?)'),
        (5, 1, f'Ignore pattern "__pycache__" matches nothing {deeper}'),
        (9, 1, 'Ignore pattern "a #b" matches nothing: a comment needs a line of its own'),
        (10, 1, 'Ignore pattern "!gone" matches nothing in the build context'),
    ] == [(one.span.start.line, one.span.start.column, one.message) for one in found.violations]
    assert {".dockerignore"} == {one.file.name for one in found.violations if one.file}


def test_excuses(store: Store, tmp_path: Path) -> None:
    """Own rules are skipped as all others are."""
    text = "FROM debian:1\n# check=skip=AptListsNotRemoved\nRUN apt-get install -y a\n"

    assert [] == lines_of("AptListsNotRemoved", report(store, text, tmp_path))
    assert [] == told(report(store, f"# check=skip=all\n{text}RUN apt-get install b\n", tmp_path))


def test_the_reference_knows_none_of_them(store: Store, tmp_path: Path) -> None:
    """What is compared with the reference is not touched by rules it lacks."""
    text = "FROM debian AS orphan\nFROM debian\nCOPY a /a\nRUN apt-get install b\n"

    assert [] == told(report(store, text, tmp_path, selection=REFERENCE))
    expected = ["UnusedStage", "CopyBeforeInstall", "AptListsNotRemoved"]
    assert expected == [name for name, _ in told(report(store, text, tmp_path, selection=EVERYTHING))]
