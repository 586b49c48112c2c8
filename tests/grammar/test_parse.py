"""From text to nodes and trees: layout, forms, heredocs, places."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import grammar
from grammar import (
    Cmd,
    Copy,
    Env,
    ExecForm,
    Healthcheck,
    Onbuild,
    ParseError,
    Position,
    Run,
    ShellForm,
    Span,
    parse,
    parse_instruction,
    parse_nodes,
    resolve,
)


def _nodes(source: str) -> list[tuple[str, list[str]]]:
    return [(node.keyword, node.arguments) for node in parse_nodes(source.encode())[1]]


def test_layout() -> None:
    """Blanks, case, comments, blank lines and continuations do not change what is read."""
    source = "\ufeff \tfrom  a\r\n\r\n  # no\r\nRun a \\  \r\n# gone\r\n\r\n   b \\\r\n\r\n"

    assert _nodes(source) == [("from", ["a"]), ("run", ["a    b"])]


def test_lines_and_comments_of_nodes() -> None:
    """Nodes know their lines; comments above them are theirs until an empty comment or an instruction."""
    _, nodes = parse_nodes(b"# a\n#\n# b\n\n # c\nFROM x\nRUN y \\\n# inner\n z\n# d\n")

    assert [(n.line.first, n.line.last) for n in nodes] == [(6, 6), (7, 9)]
    assert nodes[0].line.comments == ("b", "c")
    assert nodes[0].line.reference_comments == ("b", "# c")
    assert nodes[1].line.comments == ()


@pytest.mark.parametrize(
    ("line", "last"),
    [("RUN a\\", "b"), ("RUN a\\ \t", "b"), ("RUN a\\\\", ""), ("RUN a \\\\\\", ""), ("RUN a`", "")],
)
def test_continuations(line: str, last: str) -> None:
    """A single escape character at the end continues the line, blanks behind it do not matter, a pair does not."""
    source = f"FROM x\n{line}\nb c\n"
    if last:
        assert _nodes(source)[1:] == [("run", ["ab c"])]
    else:
        with pytest.raises(ParseError, match="unknown instruction: b"):
            parse_nodes(source.encode())


def test_the_other_escape_character() -> None:
    """`# escape` changes continuations and the quoting of ENV words."""
    source = "# escape=`\nFROM x\nRUN a `\n b\nENV a=b` c d=C:\\x\nCOPY a C:\\\n"

    assert _nodes(source)[1:] == [("run", ["a  b"]), ("env", ["a", "b` c", "d", "C:\\x"]), ("copy", ["a", "C:\\"])]


def test_directives() -> None:
    """Keys are in lower case; anything else ends them; a shebang and later lines are comments."""
    assert parse(b"#ESCAPE=`\n# Syntax = a/b:1 \n# x=y\n# check=skip=all\nFROM a").directives == {
        "escape": "`",
        "syntax": "a/b:1",
    }
    assert parse(b"#!/x\n# escape=`\nFROM a").escape == "\\"


@pytest.mark.parametrize(
    ("text", "arguments", "json"),
    [
        ('CMD [ "a" ,"b\\u00e9\\/" ]', ["a", "bé/"], True),
        ("CMD []", [], True),
        ("CMD", [], False),
        ("CMD ['a']", ["['a']"], False),
        ('CMD ["a"', ['["a"'], False),
        ('CMD ["a"] x', ['["a"] x'], False),
        ('CMD ["\t"]', ['["\t"]'], False),
        ('CMD ["\\ud83d\\ude00\\ud800"]', ["😀\ufffd"], True),
        ('CMD ["a",\v"b"]', ['["a",\v"b"]'], False),
        ('CMD\v["a",\t"b"]', ["a", "b"], True),
        ('COPY --link\f["a"\f,"c"]', ['["a"', ',"c"]'], False),
        ('HEALTHCHECK\vCMD\v["x"]', ["CMD", "x"], True),
        ('COPY ["a b", "c"]', ["a b", "c"], True),
        ('COPY ["a b", c]', ['["a', 'b",', "c]"], False),
        ("RUN [ -f x ]", ["[ -f x ]"], False),
        ('HEALTHCHECK CMD ["x"]', ["CMD", "x"], True),
        ('ENV a=b c="d e" f=', ["a", "b", "c", '"d e"', "f", ""], False),
        ("ENV a b=c d", ["a", "b=c d"], False),
        ("ENV 'a b'=c\\ d=e", ["'a b'", "c\\ d=e"], False),
        ('ENV a="b', ["a", '"b'], False),
        ("ENV a=b\\\\\\", ["a", "b\\\\"], False),
        ("ARG a b='c d'", ["a", "b='c d'"], False),
        ("LABEL a=b\u00a0c=d", ["a", "b", "c", "d"], False),
        ("EXPOSE 80 $P", ["80", "$P"], False),
        ("WORKDIR  /a  b ", ["/a  b"], False),
        ("FROM a AS b", ["a", "AS", "b"], False),
        ("FROM a b", ["a", "b"], False),
        ("ONBUILD COPY --from=x a b", ["COPY", "a", "b"], False),
    ],
)
def test_arguments(text: str, arguments: list[str], json: bool) -> None:
    """Each keyword has its own rules for what an argument is."""
    _, nodes = parse_nodes(text.encode())

    assert (nodes[0].arguments, nodes[0].json) == (arguments, json)


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("COPY --a --b=c d e", [("a", None), ("b", "c")], ["d", "e"]),
        ('COPY --a="x y" d', [("a", "x y")], ["d"]),
        ("COPY --a='x\\'y' d", [("a", "x'y")], ["d"]),
        ("COPY --a=x\\ y d", [("a", "x y")], ["d"]),
        ("COPY --a -- --b c", [("a", None)], ["--b", "c"]),
        ("COPY a --b c", [], ["a", "--b", "c"]),
        ('RUN --a="open b', [("a", "open b")], []),
        ("RUN --", [], []),
        ("RUN -x", [], ["-x"]),
        ("# escape=`\nARG --a=b\\ c` d` e", [("a", "b c`")], ["d` e"]),
    ],
)
def test_flags(text: str, flags: list[tuple[str, str | None]], rest: list[str]) -> None:
    """Words with two dashes behind the keyword are flags, quotes in them vanish, a bare pair of dashes ends them."""
    _, nodes = parse_nodes(text.encode())

    assert [(flag.name, flag.value) for flag in nodes[0].flags] == flags
    assert nodes[0].arguments == rest


@pytest.mark.parametrize(
    ("opening", "name", "expand", "chomp", "fd"),
    [
        ("<<EOF", "EOF", True, False, None),
        ("<<-EOF", "EOF", True, True, None),
        ("3<<EOF", "EOF", True, False, 3),
        ("<<'EOF'", "EOF", False, False, None),
        ('<<-"EOF"', "EOF", False, True, None),
        ("<<E'O'F", "EOF", False, False, None),
        ("<<eo\\'f", "eo'f", True, False, None),
        ("<<'e'o\\'f", "eo'f", False, False, None),
        ("<<'one two'", "one two", False, False, None),
        ("<<$EOF", "$EOF", True, False, None),
        ("<<  EOF", "EOF", True, False, None),
        ("<<a.txt > x", "a.txt", True, False, None),
    ],
)
def test_heredocs(opening: str, name: str, expand: bool, chomp: bool, fd: int | None) -> None:
    """All ways to open a heredoc; the body is kept as it is."""
    run = parse(f"FROM a\nRUN {opening}\n\tx \\\n# y\n\n{name}\nRUN z\n".encode()).instructions[1]

    assert isinstance(run, Run)
    heredoc = run.heredocs[0]
    assert (heredoc.name, heredoc.expand, heredoc.chomp, heredoc.fd) == (name, expand, chomp, fd)
    assert heredoc.content == "\tx \\\n# y\n\n"
    assert heredoc.body == ("x \\\n# y\n\n" if chomp else heredoc.content)
    assert run.span.lines == (2, 6)


@pytest.mark.parametrize("text", ['RUN "<<EOF"', "RUN <<<EOF", "RUN <<", 'RUN ["<<EOF"]', "USER <<EOF", "RUN <<'EOF"])
def test_no_heredocs(text: str) -> None:
    """Quotes, three angles, JSON and other instructions open none."""
    assert parse_nodes(f"{text}\n".encode())[1][0].heredocs == ()


def test_several_heredocs() -> None:
    """Bodies follow in the order of their openings, whatever they hold."""
    copy = parse(b"FROM a\nCOPY p <<X <<Y /d/\nY\nX\nX\nY\n").instructions[1]

    assert isinstance(copy, Copy)
    assert [(h.name, h.content) for h in copy.heredocs] == [("X", "Y\n"), ("Y", "X\n")]
    assert [word.text for word in copy.sources] == ["p"]
    assert copy.destination.text == "/d/"


def test_trees() -> None:
    """Instructions are typed; a trigger is an instruction and its text."""
    source = b"FROM a\nENV x=1 y='2'\nHEALTHCHECK --interval=1m1.5s --retries=2 CMD x\nONBUILD RUN <<E\nz\nE\nCMD []\n"
    _, env, health, onbuild, cmd = parse(source).instructions

    assert isinstance(env, Env)
    assert [(p.key.text, p.value.text) for p in env.pairs] == [("x", "1"), ("y", "'2'")]
    assert isinstance(health, Healthcheck)
    assert (health.interval, health.timeout, health.retries) == (61_500_000_000, None, 2)
    assert health.test == ShellForm(text="x")
    assert isinstance(onbuild, Onbuild)
    assert onbuild.text == "RUN <<E\nz\nE"
    assert onbuild.trigger == parse_instruction(onbuild.text)
    assert isinstance(cmd, Cmd)
    assert cmd.command == ExecForm(args=())


def test_places() -> None:
    """Words behind a continuation stand in their own line and column."""
    copy = parse(b"FROM a\n  COPY --link \\\n   b.txt\\\n  /c\n").instructions[1]

    assert isinstance(copy, Copy)
    assert copy.flags[0].span == Span(Position(2, 8), Position(2, 14))
    assert copy.sources[0].span == Span(Position(3, 4), Position(3, 9))
    assert copy.destination.span == Span(Position(4, 3), Position(4, 5))
    assert copy.span == Span(Position(2, 3), Position(4, 5))
    assert copy.original == "COPY --link    b.txt  /c"


def test_line_limit() -> None:
    """65535 bytes fit into a line, one more does not."""
    assert len(parse(b"FROM a\nRUN " + b"x" * 65531 + b"\n").instructions) == 2
    with pytest.raises(ParseError, match="greater than max allowed size of 65535") as caught:
        parse(b"FROM a\nRUN " + "é".encode() * 32766 + b"\n")
    assert caught.value.diagnostics[0].span is not None
    assert caught.value.diagnostics[0].span.start.line == 2


def test_triggers_are_single_instructions() -> None:
    """Text from an image config that holds two instructions, or none, is refused."""
    for text in ("RUN a\nRUN b", "", "# x"):
        with pytest.raises(ParseError):
            parse_instruction(text)


def test_every_fault_is_told() -> None:
    """One run names all the lines that are wrong: those without a shape first, each kind in its order."""
    with pytest.raises(ParseError) as caught:
        parse(b"FROM a b\nRUN x\nCOPPY\nENV x\nRUN --x y\nCOPY <<E /x\n")

    codes = [(d.code, d.span.start.line) for d in caught.value.diagnostics if d.span]
    assert codes == [
        ("missing-value", 4),
        ("heredoc-unterminated", 6),
        ("from-arguments", 1),
        ("unknown-instruction", 3),
        ("unknown-flag", 5),
    ]


def test_comparing() -> None:
    """Trees that say the same are equal wherever it stands; values cannot be changed."""
    tree = parse(b"FROM a\nRUN b")

    assert parse(b"\n\nfrom   a\n\nRUN \\\n b\n").instructions[0] == tree.instructions[0]
    assert parse(b"FROM a\nRUN c") != tree
    assert len({tree.instructions[0], parse(b"FROM a").instructions[0]}) == 1
    with pytest.raises(AttributeError):
        tree.instructions[0].image = None  # type: ignore[misc]


PIECES = st.sampled_from(
    [
        *"FROMUN<-=[]\"'\\`#$ \t{}:,",
        "\n",
        "\r\n",
        "FROM a\n",
        "RUN ",
        "COPY ",
        "ENV ",
        "LABEL a=b",
        "CMD ",
        "VOLUME ",
        "HEALTHCHECK CMD ",
        "<<E\n",
        "<<-E ",
        "E\n",
        "ONBUILD ",
        "# c\n",
        "\\\n",
        " \\ ",
        "\v",
        "\f",
        "--a ",
        "\ufeff",
    ]
)


def _shown(error: grammar.LocatedGrammarError) -> None:
    assert error.message in error.render() or not error.message.isprintable()


@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(lambda p: "".join(p).encode())))
@example(b"\\")
@example(b"FROM a\nENV \x1c=\x1d")
@example(b'FROM a\nCMD ["\xff"]\nRUN \xff')
@example(b"\xef\xbb\xbf")
@example(b'FROM a\nCOPY ["a", "b\x0b"]')
@example(b"FROM a\nCOPY <<E ${d/")
@example(b"FROM a\nRUN b \\ \\\n")
@example(b"FROM a\n\\\n# c\nRUN b\n")
@example(b"FROM a\n# c\n\\\n# d\nRUN b\n")
@example(b"FROM a\n# c\n#\nRUN b\n")
@example(b"FROM a\nRUN #b \\\n# c\n d\n")
@example(b"FROM a\nRUN ## #\\\n# c\n")
@example(b"FROM a\nCMD \\ \\ ")
@example(b"FROM a\nONBUILD \\ \\\n")
@example(b"FROM a\nONBUILD ADD \\\n # c")
@example(b"FROM a\nONBUILD RUN b\r\\")
@example(b"FROM a\nLABEL k=v\x0ca=--\\ \\ \\\n")
@example(b'FROM a\nARG b "c=d \\\x0b\nCMD e')
@example(b"FROM a\nVOLUME b \\\x0b\nCMD c")
@example(b"FROM a\nCOPY b \\ \\\n<<E c\n")
@example(b"FROM a\nENV \\  =")
@example(b'# escape=`\nFROM a\nCOPY <<\t<<COPY [\\"=}')
@example(b"FROM a\nCOPY <<b\\ ,<<E<<E")
@example(b"FROM a\nCOPY <<\x0bb \n<<COPY E\nb")
@example(b"FROM a\nADD b ,--x <<\t")
@example(b"FROM a\nADD \xd3\\\n\x8d a")
@example(b"FROM a\nADD \xf0\x9f\\\n\x98\\\n\x80 a")
@example(b"FROM a\nENV \xd3\\\n\x8d# c\n")
@example(b"FROM a\nONBUILD \x1fRUN b")
@example(b"FROM a\nONBUILD \x0bRUN b")
@example(b"# escape=`\nFROM a\nLABEL --b --}\\ $`")
def test_any_bytes(data: bytes) -> None:
    """No input gets anything but a tree or a located error that can be shown; trees survive printing and tidying."""
    try:
        tree = parse(data)
    except ParseError as error:
        _shown(error)
        return
    assert parse(grammar.format_ast(tree).encode("utf-8", "surrogateescape")) == tree
    tidied = grammar.tidy(data)
    assert grammar.tidy(tidied) == tidied
    try:
        resolve(tree)
    except grammar.ResolveError as error:
        _shown(error)


HOSTILE = {
    "unclosed JSON string": b'FROM a\nCMD ["' + b"a" * 60000,
    "nested JSON": b"FROM a\nCMD " + b"[" * 32000 + b"]" * 32000,
    "blanks in a directive": b"# escape=a" + b" " * 60000 + b"b\nFROM a",
    "escapes": b"FROM a\nRUN " + b"\\ " * 30000 + b"x",
    "quotes": b"FROM a\nENV a=" + b"\"'" * 30000,
    "flag": b"FROM a\nRUN --x=" + b"'\\" * 30000,
    "continuations": b"FROM a\nRUN x" + b"\\\n# c\n" * 20000,
    "heredocs": b"FROM a\nRUN " + b"<<E " * 15000,
    "stages": b"".join(b"FROM s%d AS s%d\nCOPY --from=s2999 / /\n" % (i - 1, i) for i in range(3000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_take_linear_time(name: str) -> None:
    """Files made to be slow are read or refused within a second or two, without running out of stack."""
    started = time.process_time()
    try:
        resolve(parse(HOSTILE[name]))
    except grammar.LocatedGrammarError as error:
        assert error.diagnostics  # noqa: PT017 - some of the files are fine

    assert time.process_time() - started < 5
