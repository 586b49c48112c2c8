"""`pybuild lsp` as an editor meets it: the real process, spoken to by pygls' client."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from grammar.lint.rules.stages import StageNameCasing
from tests.lsp.editor import SECONDS, Client, apply, leave, play, within
from tests.runcli import ENVIRON, REPOSITORY, Cli

SOURCE = """\
# syntax=docker/dockerfile:1
ARG VERSION=12
FROM debian:${VERSION} AS build
ENV HOME=/root
RUN --mount=type=cache,target=/cache make
FROM scratch
COPY --from=build /root/out /out
CMD ["/out"]
"""


def test_a_session(tmp_path: Path) -> None:
    """All questions about one good file, one after the other; nothing is written to standard error."""

    async def scenario(client: Client) -> None:
        capabilities = await client.initialize()
        assert capabilities.position_encoding == lsp.PositionEncodingKind.Utf16
        assert capabilities.text_document_sync.change == lsp.TextDocumentSyncKind.Incremental
        assert await client.opened(SOURCE) == []

        editor = client.client
        place = lsp.Position(6, 14)
        found = await within(editor.text_document_hover_async(lsp.HoverParams(client.item, place)))
        assert "debian:${VERSION}" in found.contents.value
        where = await within(editor.text_document_definition_async(lsp.DefinitionParams(client.item, place)))
        assert where.range == lsp.Range(lsp.Position(2, 26), lsp.Position(2, 31))
        context = lsp.ReferenceContext(include_declaration=True)
        uses = await within(editor.text_document_references_async(lsp.ReferenceParams(context, client.item, place)))
        assert [use.range.start.line for use in uses] == [2, 6]
        marks = await within(
            editor.text_document_document_highlight_async(lsp.DocumentHighlightParams(client.item, place))
        )
        assert len(marks) == 2
        symbols = await within(editor.text_document_document_symbol_async(lsp.DocumentSymbolParams(client.item)))
        assert [one.name for one in symbols] == ["ARG VERSION", "build", "stage 1"]
        assert [one.name for one in symbols[2].children] == ["COPY --from=build /root/out /out", 'CMD ["/out"]']
        folds = await within(editor.text_document_folding_range_async(lsp.FoldingRangeParams(client.item)))
        assert [(fold.start_line, fold.end_line) for fold in folds] == [(2, 4), (5, 7)]
        assert await client.labels(6, 12) == ["build"]
        editor.text_document_did_close(lsp.DidCloseTextDocumentParams(client.item))
        assert await client.diagnostics() == []

    assert play(tmp_path, scenario) == ""
    assert list(tmp_path.iterdir()) == []


def test_renaming(tmp_path: Path) -> None:
    """A stage is renamed where it is named; what cannot be renamed is refused with the reason, without a traceback."""

    async def scenario(client: Client) -> None:
        await client.initialize()
        await client.opened(SOURCE)
        editor = client.client
        place = lsp.Position(6, 14)
        span = await within(editor.text_document_prepare_rename_async(lsp.PrepareRenameParams(client.item, place)))
        assert span == lsp.Range(lsp.Position(6, 12), lsp.Position(6, 17))
        made = await within(editor.text_document_rename_async(lsp.RenameParams(client.item, place, "made")))
        assert apply(SOURCE, made.changes[client.uri]) == SOURCE.replace("build", "made")
        for name, where, message in (
            ("1st", place, "'1st' is no name for a stage"),
            ("scratch", place, "has a meaning of its own"),
            ("made", lsp.Position(3, 5), "only stages can be renamed"),
        ):
            with pytest.raises(JsonRpcException, match=message) as refused:
                await within(editor.text_document_rename_async(lsp.RenameParams(client.item, where, name)))
            assert refused.value.code == lsp.LSPErrorCodes.RequestFailed

    assert play(tmp_path, scenario) == ""


def test_errors_while_typing(tmp_path: Path) -> None:
    """A line that is wrong is told with its place after a moment of rest, and everything else goes on working."""

    async def scenario(client: Client) -> None:
        await client.initialize()
        assert await client.opened(SOURCE) == []
        client.edit(((7, 0), (7, 3), "CMDD"))
        client.edit(((7, 0), (7, 0), "COPY --from=\n"), ((7, 12), (7, 12), ""))
        found = await client.diagnostics()
        assert [(one.range.start.line, one.code) for one in found] == [(7, "destination"), (8, "unknown-instruction")]
        assert found[1].message.startswith("unknown instruction: CMDD (did you mean CMD?)")
        assert await client.labels(7, 12) == ["build"]
        client.edit(SOURCE)
        assert await client.diagnostics() == []

    play(tmp_path, scenario)


def test_warnings_beside_errors(tmp_path: Path) -> None:
    """What stands above the first error is warned of all the same, unless later lines could change that."""
    source = "FROM scratch as build\nENV A b\nCOPY $NONE /\nCMDD\nENV C d\nFROM scratch\n"

    async def scenario(client: Client) -> None:
        await client.initialize()
        found = await client.opened(source)
        assert [(one.range.start.line, one.code) for one in found] == [
            (0, "FromAsCasing"),
            (1, "LegacyKeyValueFormat"),
            (2, "UndefinedVar"),
            (3, "unknown-instruction"),
        ]
        quick = await actions_at(client, found[1].range)
        assert "ENV A=b" in apply(source, quick[0].edit.changes[client.uri])
        client.edit(
            "FROM scratch as build\nENV A b\nFROM scratch AS other\nCOPY --from=later / /\nFROM build AS later\n"
        )
        codes = [one.code for one in await client.diagnostics()]
        assert codes[:2] == ["FromAsCasing", "LegacyKeyValueFormat"]
        client.edit("CMDD\nFROM scratch as build\n")
        assert ["unknown-instruction"] == [one.code for one in await client.diagnostics()]

    assert play(tmp_path, scenario) == ""


def test_warnings_and_their_repairs(tmp_path: Path) -> None:
    """What `pybuild check` warns of is shown with its rule's page; its fixes are offered, each and all safe ones."""
    source = "FROM scratch as Build\nENV A b\nWORKDIR x\n"

    async def scenario(client: Client) -> None:
        await client.initialize()
        found = await client.opened(source)
        assert [(one.range.start.line, one.code, one.severity) for one in found] == [
            (0, "StageNameCasing", lsp.DiagnosticSeverity.Warning),
            (0, "FromAsCasing", lsp.DiagnosticSeverity.Warning),
            (1, "LegacyKeyValueFormat", lsp.DiagnosticSeverity.Warning),
            (2, "WorkdirRelativePath", lsp.DiagnosticSeverity.Warning),
        ]
        assert found[0].code_description == lsp.CodeDescription(StageNameCasing().url)
        legacy = found[2].range
        actions = await actions_at(client, legacy)
        quick = [one for one in actions if one.kind == lsp.CodeActionKind.QuickFix]
        assert [one.diagnostics[0].code for one in quick] == ["LegacyKeyValueFormat"]
        assert apply(source, quick[0].edit.changes[client.uri]) == source.replace("A b", "A=b")
        everything = await actions_at(client, legacy, lsp.CodeActionKind.Source)
        assert [one.kind for one in everything] == [lsp.CodeActionKind.SourceFixAll]
        repaired = apply(source, everything[0].edit.changes[client.uri])
        assert repaired.startswith("FROM scratch AS build\nENV A=b\n")
        client.edit(repaired)
        assert [one.code for one in await client.diagnostics()] in ([], ["WorkdirRelativePath"])

    play(tmp_path, scenario)


async def actions_at(client: Client, where: lsp.Range, *only: lsp.CodeActionKind) -> Any:
    context = lsp.CodeActionContext(diagnostics=[], only=list(only) or None)
    return await within(
        client.client.text_document_code_action_async(lsp.CodeActionParams(client.item, where, context))
    )


def test_formatting(tmp_path: Path) -> None:
    """What `pybuild fmt` would do comes as edits, also of a file with CR LF and a byte order mark."""
    untidy = "\ufefffrom  scratch\r\n\r\n\r\nCOPY  a   b\r\n# é\r\nCMD  x\r\n"

    async def scenario(client: Client) -> None:
        await client.initialize()
        await client.opened(untidy)
        assert await client.formatted(untidy) == "FROM scratch\r\n\r\nCOPY a b\r\n# é\r\nCMD x\r\n"
        client.edit("FROM scratch\nBAD\n")
        assert await client.formatted("FROM scratch\nBAD\n") == "FROM scratch\nBAD\n"

    play(tmp_path, scenario)


@pytest.mark.parametrize("encoding", list(lsp.PositionEncodingKind), ids=lambda encoding: encoding.value)
def test_encodings(tmp_path: Path, encoding: lsp.PositionEncodingKind) -> None:
    """Characters are counted in the unit that the client asks for, in what it says and in what it is told."""
    line = "LABEL 😀é=\u4e00 a=b "
    at = {"utf-8": 21, "utf-16": 16, "utf-32": 15}[encoding.value]

    async def scenario(client: Client) -> None:
        capabilities = await client.initialize([encoding])
        assert capabilities.position_encoding == encoding
        assert await client.opened(f"FROM scratch AS x\n{line}$\n") != []
        client.edit(((1, at), (1, at + 1), "c"))
        found = await client.diagnostics()
        assert [one.code for one in found] == ["missing-equals"]
        assert found[0].range == lsp.Range(lsp.Position(1, at), lsp.Position(1, at + 1))

    play(tmp_path, scenario)


def test_lines_of_the_protocol(tmp_path: Path) -> None:
    """Form feeds and other breaks that only some programs know do not move the lines that a client means."""
    source = "# a\x0cb\u2028c\nFROM scratch\nBAD x\n"

    async def scenario(client: Client) -> None:
        await client.initialize()
        found = await client.opened(source)
        assert [one.range.start.line for one in found] == [2]
        client.edit(((2, 0), (2, 3), "LABEL x=1"), ((2, 9), (2, 11), ""))
        assert await client.diagnostics() == []

    play(tmp_path, scenario)


def test_the_project_and_the_store(tmp_path: Path) -> None:
    """Settings of the client, of the project and images of the store count; paths come from the context."""
    Cli(tmp_path / "store").add_image("here", Env=["KNOWN=1"])
    (tmp_path / ".pybuild.toml").write_text('[check]\nseverity = { WorkdirRelativePath = "info" }\n')
    context = tmp_path / "ctx"
    context.mkdir()
    (context / "app.py").touch()
    (context / "secret.txt").touch()
    (context / "src").mkdir()
    (context / ".dockerignore").write_text("secret.txt\n")
    source = "ARG BASE\nFROM $BASE\nWORKDIR $KNOWN\nENV X=$UNKNOWN\nCOPY ./s /\nCOPY secret.txt /\n"

    async def scenario(client: Client) -> None:
        await client.initialize(context="ctx", buildArgs={"BASE": "here"}, color="red")
        found = await client.opened(source)
        assert [(one.code, one.severity) for one in found if one.range.start.line != 1] == [
            ("WorkdirRelativePath", lsp.DiagnosticSeverity.Information),
            ("UndefinedVar", lsp.DiagnosticSeverity.Warning),
            ("CopyIgnoredFile", lsp.DiagnosticSeverity.Warning),
        ]
        assert await client.labels(4, 8) == [".dockerignore", "app.py", "src/"]
        assert len(client.messages) == 1
        assert "settings color" in client.messages[0]

    assert play(tmp_path, scenario) == ""


def test_other_files(tmp_path: Path) -> None:
    """An editor that shows everything to the server hears nothing about what is no Dockerfile."""

    async def scenario(client: Client) -> None:
        await client.initialize()
        other = (tmp_path / "Dockerfile.dockerignore").as_uri()
        client.open("BAD\n", uri=other)
        found = await within(
            client.client.text_document_hover_async(
                lsp.HoverParams(lsp.TextDocumentIdentifier(other), lsp.Position(0, 0))
            )
        )
        assert found is None
        assert [one.code for one in await client.opened("BAD\n")] == ["unknown-instruction"]
        assert client.told.empty()

    assert play(tmp_path, scenario) == ""


def test_tcp(tmp_path: Path) -> None:
    """With --tcp one client is served on a socket, and the server ends when it leaves."""

    async def talk(process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        line = (await within(process.stderr.readline())).decode()
        host, _, port = line.removeprefix("listening on ").strip().rpartition(":")
        editor = LanguageClient("test", "1")
        client = Client(editor, tmp_path)
        await editor.start_tcp(host, int(port))
        await client.initialize()
        assert [one.code for one in await client.opened("FRMO x\n")] == ["unknown-instruction"]
        await leave(editor)
        assert await within(process.wait()) == 0

    async def run() -> None:
        words = ["-m", "builder", "--root", str(tmp_path / "store"), "lsp", "--tcp", "127.0.0.1:0"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=REPOSITORY, env=ENVIRON, stderr=asyncio.subprocess.PIPE
        )
        try:
            await talk(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    asyncio.run(run())


def start(root: Path) -> subprocess.Popen[bytes]:
    """A server whose input stays open."""
    return Cli(root).start("lsp")


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "nonsense"])
def test_ends_without_goodbye(tmp_path: Path, how: str) -> None:
    """A client that goes without a word ends the server, with a status that says so; a signal does at once."""
    process = start(tmp_path / "store")
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{},"processId":null}}'
        process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"Content-Length: ")
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        elif how == "nonsense":
            process.stdin.write(b"Content-Length: 9\r\n\r\n{")
        if how != "SIGTERM":
            process.stdin.close()
        assert process.wait(SECONDS) == (143 if how == "SIGTERM" else 1)
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def test_without_pygls(tmp_path: Path) -> None:
    """Where the optional package is missing, the command says so and how to get it."""
    (tmp_path / "pygls.py").write_text("raise ModuleNotFoundError(\"No module named 'pygls'\", name='pygls')\n")
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    ended = Cli(tmp_path / "store")("lsp", environ={"PYTHONPATH": path})

    assert ended.status == 1
    assert ended.err.splitlines() == [
        "error: the language server needs the Python package pygls, which is not installed",
        "hint: install it with `pip install 'pybuild[lsp]'`",
    ]


@pytest.mark.parametrize("address", ["2087", "localhost:", ":2087", "localhost:99999", "localhost:x"])
def test_addresses(tmp_path: Path, address: str) -> None:
    """An address that is none is refused with an example."""
    ended = Cli(tmp_path / "store")("lsp", "--tcp", address)

    assert ended.status == 2
    assert "write HOST:PORT" in ended.err


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_had(tmp_path: Path, host: str) -> None:
    """A port that another program has, or a host that is none, is an error with the next action, and no bug."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = Cli(tmp_path / "store")("lsp", "--tcp", f"{host}:{taken.getsockname()[1]}")

    assert ended.status == 1
    assert ended.err.startswith(f"error: cannot listen on {host}:")
    assert ended.err.splitlines()[-1] == "hint: choose another address, or port 0 for a free one"
