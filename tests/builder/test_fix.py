"""Fixes of rules: what they write, and that nothing else changes about what is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builder.build import BuildOptions, parse
from builder.errors import BuildError
from builder.fix import Fixed, fix
from builder.plan import PlanOptions, plan
from builder.storebases import StoreBases
from grammar import GrammarError
from grammar.lint.selection import EVERYTHING
from layerstore import Store
from layerstore.platforms import Platform

HOST = Platform.of("linux", "amd64")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store without images."""
    return Store.open(tmp_path_factory.mktemp("store"))


def options(text: bytes, place: Path) -> BuildOptions:
    """The options of a check in an empty context."""
    return BuildOptions(
        plan=PlanOptions(platform=HOST, build_platform=HOST, context=place), dockerfile=text, state=place
    )


def fixed(store: Store, text: str, place: Path) -> Fixed:
    """The Dockerfile after all safe fixes."""
    return fix(store, options(text.encode(), place), EVERYTHING)


CASES = {
    "keyword": ("from scratch\nENV a=b\nrun x\nUSER u\nCMD []\n", "FROM scratch\nENV a=b\nRUN x\nUSER u\nCMD []\n"),
    "keyword lower": ("from scratch\nENV a=b\nuser x\n", "from scratch\nenv a=b\nuser x\n"),
    "as": ("FROM scratch as one\n", "FROM scratch AS one\n"),
    "as after the keyword": ("from scratch AS one\nRUN a\nRUN b\n", "FROM scratch AS one\nRUN a\nRUN b\n"),
    "stage name": (
        "FROM scratch AS One\nFROM scratch\nCOPY --from=One /a /b\n",
        "FROM scratch AS one\nFROM scratch\nCOPY --from=One /a /b\n",
    ),
    "maintainer": (
        'FROM scratch\nMAINTAINER Mira "M" $x <m@example.com>\n',
        'FROM scratch\nLABEL org.opencontainers.image.authors="Mira \\"M\\" \\$x <m@example.com>"\n',
    ),
    "legacy": ("FROM scratch\nENV DIR /srv/app\n", "FROM scratch\nENV DIR=/srv/app\n"),
    "legacy with blanks": ("FROM scratch\nENV DIR  /srv/my  $app\n", 'FROM scratch\nENV DIR="/srv/my  $app"\n'),
    "legacy with quotes": ("FROM scratch\nENV A 'b c' d\n", "FROM scratch\nENV A='b c'\\ d\n"),
    "legacy label": ("FROM scratch\nLABEL a b c\n", 'FROM scratch\nLABEL a="b c"\n'),
    "legacy over lines": ("FROM scratch\nENV a b \\\n  # why\n  c\n", 'FROM scratch\nENV a="b \\\n  # why\n  c"\n'),
    "legacy with backtick": (
        '# escape=`\nFROM scratch\nENV A C:\\a "b\n',
        '# escape=`\nFROM scratch\nENV A C:\\a "b\n',
    ),
    "empty continuation": ("FROM scratch\nRUN a \\\n\n  # b\n \n  c\n", "FROM scratch\nRUN a \\\n  # b\n  c\n"),
    "empty continuation at the end": ("FROM scratch\nRUN a \\\n\n\n", "FROM scratch\nRUN a \\\n"),
    "heredoc": ("FROM scratch\nRUN <<A \\\n\n <<B\n\na\nA\n\nB\n", "FROM scratch\nRUN <<A \\\n <<B\n\na\nA\n\nB\n"),
    "crlf": (
        "FROM scratch as one\r\nENV a b\r\nRUN a \\\r\n\r\n  b\r\n",
        "FROM scratch AS one\r\nENV a=b\r\nRUN a \\\r\n  b\r\n",
    ),
    "expose": ("FROM scratch\nEXPOSE 53/UDP 127.0.0.1:8080:80/Tcp\n", "FROM scratch\nEXPOSE 53/udp 80/tcp\n"),
    "expose by variable": ("FROM scratch\nENV p=53/UDP\nEXPOSE $p\n", "FROM scratch\nENV p=53/UDP\nEXPOSE $p\n"),
    "platform": ("FROM --platform=$TARGETPLATFORM scratch\n", "FROM scratch\n"),
    "platform of a stage": (
        "FROM --platform=$BUILDPLATFORM scratch AS a\nFROM --platform=$TARGETPLATFORM a\n",
        "FROM --platform=$BUILDPLATFORM scratch AS a\nFROM --platform=$TARGETPLATFORM a\n",
    ),
    "global argument": (
        "ARG v=1\nFROM scratch\nENV a=b\n\n# about c\n# check=skip=all\nENV c=$v\nENV d=$v\n",
        "ARG v=1\nFROM scratch\nENV a=b\n\nARG v\n# about c\n# check=skip=all\nENV c=$v\nENV d=$v\n",
    ),
    "relative directory": ("FROM scratch\nWORKDIR app\n", "FROM scratch\nWORKDIR app\n"),
    "shell form": ("FROM scratch\nCMD run it\n", "FROM scratch\nCMD run it\n"),
    "through a continuation": (
        "FROM scratch\nRU\\\nN x\nENV \\\n # why\n a b\nuser u\n",
        "FROM scratch\nRU\\\nN x\nENV \\\n # why\n a=b\nUSER u\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fix(store: Store, tmp_path: Path, name: str) -> None:
    """What a fix writes; what cannot be repaired safely is left as it is."""
    before, after = CASES[name]

    assert after == fixed(store, before, tmp_path).text.decode()


def test_byte_order_mark_and_bytes(store: Store, tmp_path: Path) -> None:
    """What stands around a fix is kept byte for byte, even what is no UTF-8."""
    text = b"\xef\xbb\xbfFROM scratch as a\n# \xff\nRUN \xfe\n"

    assert b"\xef\xbb\xbfFROM scratch AS a\n# \xff\nRUN \xfe\n" == fix(store, options(text, tmp_path), EVERYTHING).text


def meaning(store: Store, text: bytes, place: Path) -> tuple[object, ...]:
    """What would be built: the steps, and the config but for what fixes are meant to change."""
    given = options(text, place)
    planned = plan(parse(given), given.plan, StoreBases(store))
    document = {key: value for key, value in planned.config.document.items() if key not in ("author", "history")}
    labels = dict(document["config"].get("Labels") or {})
    authors = labels.pop("org.opencontainers.image.authors", planned.config.document.get("author"))
    document["config"] = {**document["config"], "Labels": labels}
    return tuple(planned.graph.vertices), planned.target.id, document, authors


VALUES = st.lists(
    st.sampled_from(["a", " ", "  ", "$v", "${v:-x y}", '"', "'", "\\", "`", "=", "#", "\\\n", "\t", "é", "$"]),
    max_size=6,
).map("".join)
KEYWORDS = st.sampled_from(["ENV", "env", "Env", "LABEL", "label", "MAINTAINER"])
LINES = st.one_of(
    st.builds("{} k {}".format, KEYWORDS, VALUES),
    st.builds(
        "{} {}".format,
        st.sampled_from(["EXPOSE", "expose"]),
        st.sampled_from(["80/TCP", "1:2/Udp", "$v/TCP", "'80/TCP'"]),
    ),
    st.sampled_from(
        [
            "RUN a \\\n\n  b",
            "run <<A\n\nx\nA",
            "FROM scratch as Two",
            "from scratch AS three",
            "ENV c=$v \\\n  # $v\n\n  d=e",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@example(lines=["MAINTAINER k ", "MAINTAINER k `", "ENV k "], ending="\n", escape="`")
@given(lines=st.lists(LINES, max_size=5), ending=st.sampled_from(["\n", "\r\n"]), escape=st.sampled_from("\\`"))
def test_fixes_keep_the_meaning(store: Store, lines: list[str], ending: str, escape: str) -> None:
    """A repaired file can be read, builds the same steps, has nothing left to repair, and is repaired once."""
    text = (
        "\n".join([f"# escape={escape}", "FROM scratch AS One", "ENV v=1", *lines, ""]).replace("\n", ending).encode()
    )
    place = store.root
    try:
        before = meaning(store, text, place)
    except (GrammarError, BuildError):
        return  # what cannot be built has no meaning to keep
    repaired = fix(store, options(text, place), EVERYTHING)

    assert before == meaning(store, repaired.text, place)
    assert [] == [one for one in repaired.report.violations if one.fix and one.fix.safe]
    assert repaired.text == fix(store, options(repaired.text, place), EVERYTHING).text
