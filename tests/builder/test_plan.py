"""Plans: which steps a target needs, how they are named, and what the config becomes without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

import grammar
from builder.errors import LocatedError
from builder.image import go_duration, go_quote, timestamp
from builder.ops import ImageOp, RunOp
from builder.plan import Base, Plan, PlanOptions, plan
from builder.ports import InvalidPort, expand_ports
from layerstore.digest import DiffId
from layerstore.errors import NotFound
from layerstore.platforms import Platform
from layerstore.reference import Reference

AMD64 = Platform.of("linux", "amd64")
BASE = DiffId.of(b"base")


class OneImage:
    """A resolver that knows a single image, and counts how often it is asked."""

    def __init__(self, **config: Any) -> None:
        self.asked: list[str] = []
        self.config = config

    def image(self, reference: Reference, platform: Platform) -> Base:
        self.asked.append(reference.familiar)
        if reference.familiar_name != "base":
            raise NotFound(f"no image here is called {reference.familiar}", hint="pull it")
        document = {"os": "linux", "architecture": "amd64", "config": self.config}
        op = ImageOp(reference=reference.canonical, layers=(BASE,), platform=str(platform))
        return Base(reference=reference.canonical, document=document, op=op)


def planned(text: str, *, resolver: OneImage | None = None, **options: Any) -> Plan:
    """Plan a Dockerfile with a context that nobody reads."""
    chosen = {"context": Path("/context"), **options}
    settings = PlanOptions(platform=AMD64, build_platform=AMD64, **chosen)
    return plan(grammar.resolve(grammar.parse(text.encode())), settings, resolver or OneImage())


MULTI_STAGE = """\
ARG BASE=base
FROM $BASE AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache make
FROM build AS test
RUN make test
FROM scratch AS unneeded
COPY nothing /
FROM base:2
RUN apt-get install -y thing
COPY --from=build /src/out /usr/bin/
ENTRYPOINT ["thing"]
"""


def test_the_graph_of_a_target(snapshot: SnapshotAssertion) -> None:
    """The pruned graph of the last stage, as a person reads it."""
    made = planned(MULTI_STAGE)

    assert snapshot == made.graph.describe(made.target)


def test_another_target_needs_other_steps(snapshot: SnapshotAssertion) -> None:
    """--target test leaves the last stage out."""
    made = planned(MULTI_STAGE, target="TEST")

    assert snapshot == made.graph.describe(made.target)


def test_config_and_history(snapshot: SnapshotAssertion) -> None:
    """Every instruction that changes only metadata, in the reference's form."""
    text = """\
FROM base
ARG A=1
ENV B=$A "C D"=x
LABEL l=$B
EXPOSE 80 53/udp
VOLUME /data
USER app
HEALTHCHECK --interval=5s CMD true
STOPSIGNAL SIGINT
CMD run
ONBUILD RUN true
MAINTAINER Ada
"""
    made = planned(text)
    document = json.loads(made.config.document_for((BASE,), (0,), epoch=0))

    assert snapshot == document


def test_ids_do_not_depend_on_where_the_context_is() -> None:
    """The same Dockerfile has the same vertices in every checkout."""
    text = "FROM base\nCOPY a /a\nRUN true\n"
    one, other = (planned(text, context=Path(path)) for path in ("/one", "/other"))

    assert one.target.id == other.target.id


def test_metadata_does_not_touch_the_steps_after_it() -> None:
    """A LABEL, CMD or EXPOSE before a RUN leaves its vertex as it was."""
    plain = planned("FROM base\nRUN true\n")
    edited = planned("FROM base\nLABEL a=b\nEXPOSE 1\nCMD x\nRUN true\n")

    assert plain.target.id == edited.target.id


def test_an_image_is_asked_for_once() -> None:
    """Two stages on one base resolve it a single time."""
    resolver = OneImage()
    planned("FROM base AS a\nRUN one\nFROM base\nCOPY --from=a /x /x\n", resolver=resolver)

    assert ["base:latest"] == resolver.asked


def test_a_base_that_nothing_needs_is_not_asked_for() -> None:
    """A stage outside the target may have a base that does not exist."""
    resolver = OneImage()
    planned("FROM gone AS broken\nFROM base\nRUN true\n", resolver=resolver)

    assert ["base:latest"] == resolver.asked


@pytest.mark.parametrize(
    ("text", "place", "fragment"),
    [
        ("FROM gone\n", (1, 6), "failed to resolve source metadata for docker.io/library/gone:latest"),
        ("FROM base\nRUN --security=insecure true\n", (2, 1), "security.insecure is not allowed"),
        ("FROM base\nADD https://x.invalid/a.git?nope=1 /\n", (2, 5), 'unexpected query "nope"'),
        ("FROM --platform=$NONE base\n", (1, 6), "empty platform value"),
        ("FROM base\nCOPY --from=7 a b\n", (2, 6), "invalid stage index 7"),
        ("FROM base\nVOLUME $NONE\n", (2, 8), "can not be an empty string"),
    ],
)
def test_errors_have_their_place(text: str, place: tuple[int, int], fragment: str) -> None:
    """The error points at the word."""
    with pytest.raises((LocatedError, grammar.LocatedGrammarError)) as raised:
        planned(text)

    assert isinstance(raised.value, LocatedError | grammar.LocatedGrammarError)
    diagnostic = raised.value.diagnostics[0]
    assert fragment in diagnostic.message
    assert diagnostic.span is not None
    assert place == tuple(diagnostic.span.start)
    assert diagnostic.hint


def test_a_context_that_is_not_there() -> None:
    """A Dockerfile from standard input has nothing to COPY from."""
    with pytest.raises(LocatedError, match="no build context"):
        planned("FROM base\nCOPY a /\n", context=None)


def test_stages_of_no_cache() -> None:
    """--no-cache-filter marks the steps of the stages it names, and no others."""
    made = planned(MULTI_STAGE, no_cache=frozenset({"build"}))

    marked = {vertex.stage for vertex in made.graph.vertices.values() if vertex.ignore_cache}
    assert {"build"} == marked


def test_proxies_are_given_but_do_not_count() -> None:
    """HTTP_PROXY reaches a RUN in both spellings and changes no id."""
    plain = planned("FROM base\nRUN true\n")
    proxied = planned("FROM base\nRUN true\n", build_args={"HTTP_PROXY": "http://proxy.invalid"})

    assert isinstance(proxied.target.op, RunOp)
    assert ("HTTP_PROXY=http://proxy.invalid", "http_proxy=http://proxy.invalid") == proxied.target.op.proxies
    assert plain.target.id == proxied.target.id


def test_ports() -> None:
    """Ranges, protocols in any case, addresses left out, and what is refused."""
    assert ["80/tcp"] == expand_ports("80")
    assert ["53/udp"] == expand_ports("53/UDP")
    assert ["8/sctp", "9/sctp"] == expand_ports("8-9/sctp")
    assert ["80/tcp"] == expand_ports("127.0.0.1:8080:80")
    for text in ("http", "70000", "9-8", "80/xdp", ""):
        with pytest.raises(InvalidPort):
            expand_ports(text)


def test_words_as_go_prints_them() -> None:
    """Durations, quoted strings and times, as they stand in history."""
    assert ["0s", "250ms", "2.5s", "1m30s", "1h0m0s", "-1s"] == [
        go_duration(ns) for ns in (0, 250_000_000, 2_500_000_000, 90_000_000_000, 3_600_000_000_000, -1_000_000_000)
    ]
    assert r'"a\"b\\\n\t\x01é\xff"' == go_quote('a"b\\\n\t\x01é\udcff')
    assert ["1970-01-01T00:00:00Z", "2001-09-09T01:46:40.5Z"] == [timestamp(0), timestamp(1_000_000_000_500_000_000)]


NAMED_STEPS = r"""
FROM base AS a
ARG A=a
ENV E=e
ONBUILD RUN echo $A $B
ONBUILD LABEL counted=too
ONBUILD COPY f /$A
WORKDIR /
WORKDIR "/x $A"
RUN echo $A "${E:+y}" '$A' \$A $B ${B:-x}
RUN echo ${A
run --mount=type=secret,id=$A,env=SEC   echo $SEC \
  # comment
  end
RUN ["echo", "$A"]
RUN <<EOF
  first $A

EOF
RUN <<EOF
one
two
EOF
RUN <<EOF cat > /x
one
EOF
COPY ["f", "/$A b"]
COPY --link f $B/$A
ADD <<EOF /$A
$A
EOF
FROM a
RUN echo $A
FROM a AS copies
COPY --from=1 /f /f
"""


def test_names_of_steps() -> None:
    """Steps are called as BuildKit calls them: variables and counts; a stage that begins with another has no FROM."""
    made = planned(NAMED_STEPS)
    names = [vertex.name for vertex in made.graph.needed(made.target) if vertex.name.startswith(("[a", "[s", "[c"))]
    assert names == [
        "[a  1/13] FROM docker.io/library/base:latest",
        "[a  2/13] WORKDIR /x a",
        "[a  3/13] RUN echo a \"y\" '$A' $A $B ${B:-x}",
        "[a  4/13] RUN echo ${A",
        "[a  5/13] RUN --mount=type=secret,id=a,env=SEC   echo ****   end",
        '[a  6/13] RUN ["echo", "a"]',
        "[a  7/13] RUN <<EOF (first a)",
        "[a  8/13] RUN <<EOF (one...)",
        "[a  9/13] RUN <<EOF cat > /x",
        "[a 10/13] COPY [f, /a b]",
        "[a 11/13] COPY --link f /a",
        "[a 12/13] ADD <<EOF /a",
        "[stage-1 1/4] ONBUILD RUN echo a $B",
        "[stage-1 2/4] ONBUILD COPY f /a",
        "[stage-1 3/4] RUN echo a",
        "[copies 3/4] COPY --from=1 /f /f",
    ]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("FROM base AS named\nRUN true", "[2/2] RUN true"),
        ("FROM base\nRUN --mount=type=tmpfs,target=/x true", "[stage-0 2/2] RUN --mount=type=tmpfs,target=/x true"),
        ("FROM base\nCOPY --from=base:2 /f /", "[stage-0 2/2] COPY --from=base:2 /f /"),
        ("FROM scratch\nCOPY f /", "[1/1] COPY f /"),
    ],
)
def test_names_without_a_stage(text: str, last: str) -> None:
    """Steps of a Dockerfile with one stage go without its name, unless it reads something else, as with BuildKit."""
    assert last == planned(text).target.name
