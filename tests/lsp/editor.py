"""An editor for tests: pygls' client, a real `pybuild lsp`, and a time limit on every answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

from tests.runcli import ENVIRON, REPOSITORY

SECONDS = 30


class Client:
    """An editor with one Dockerfile."""

    def __init__(self, client: LanguageClient, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.uri = (folder / "Dockerfile").as_uri()
        self.told: asyncio.Queue[lsp.PublishDiagnosticsParams] = asyncio.Queue()
        self.messages: list[str] = []
        self.version = 0
        self.item = lsp.TextDocumentIdentifier(self.uri)

        def shown(params: lsp.ShowMessageParams) -> None:
            self.messages.append(params.message)

        def told(params: lsp.PublishDiagnosticsParams) -> None:
            self.told.put_nowait(params)

        client.feature(lsp.WINDOW_SHOW_MESSAGE)(shown)
        client.feature(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(told)

    async def initialize(self, encodings: list[lsp.PositionEncodingKind] | None = None, **options: Any) -> Any:
        general = lsp.GeneralClientCapabilities(position_encodings=encodings)
        result = await within(
            self.client.initialize_async(
                lsp.InitializeParams(
                    capabilities=lsp.ClientCapabilities(general=general),
                    root_uri=self.folder.as_uri(),
                    initialization_options=options or None,
                )
            )
        )
        self.client.initialized(lsp.InitializedParams())
        return result.capabilities

    def open(self, text: str, *, language: str = "dockerfile", uri: str | None = None) -> None:
        item = lsp.TextDocumentItem(uri or self.uri, language, 0, text)
        self.client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))

    async def opened(self, text: str) -> list[lsp.Diagnostic]:
        """Open and return what is said about it."""
        self.open(text)
        return await self.diagnostics()

    def edit(self, *changes: tuple[tuple[int, int], tuple[int, int], str] | str) -> None:
        """Change stretches of the document, one after the other, or all of it."""
        self.version += 1
        listed: list[lsp.TextDocumentContentChangeEvent] = [
            lsp.TextDocumentContentChangeWholeDocument(change)
            if isinstance(change, str)
            else lsp.TextDocumentContentChangePartial(
                lsp.Range(lsp.Position(*change[0]), lsp.Position(*change[1])), change[2]
            )
            for change in changes
        ]
        item = lsp.VersionedTextDocumentIdentifier(self.version, self.uri)
        self.client.text_document_did_change(lsp.DidChangeTextDocumentParams(item, listed))

    async def diagnostics(self) -> list[lsp.Diagnostic]:
        """The next thing that is said about the document as it is now."""
        while True:
            told = await within(self.told.get())
            if told.uri == self.uri and told.version in (None, self.version):
                return list(told.diagnostics)

    async def labels(self, line: int, character: int) -> list[str]:
        """What is suggested at a place."""
        params = lsp.CompletionParams(self.item, lsp.Position(line, character))
        found = await within(self.client.text_document_completion_async(params))
        assert isinstance(found, lsp.CompletionList)
        return [item.label for item in found.items]

    async def formatted(self, text: str) -> str:
        """The document, which is `text`, after formatting it."""
        params = lsp.DocumentFormattingParams(self.item, lsp.FormattingOptions(4, insert_spaces=True))
        return apply(text, await within(self.client.text_document_formatting_async(params)) or [])


async def within(wanted: Awaitable[Any]) -> Any:
    """Wait for an answer, but not for ever."""
    return await asyncio.wait_for(wanted, SECONDS)


def apply(text: str, edits: Any) -> str:
    """Make edits as an editor does that counts in UTF-16 and has no characters beyond it."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for edit in sorted(edits, key=lambda one: (one.range.start.line, one.range.start.character), reverse=True):
        first, last = (starts[one.line] + one.character for one in (edit.range.start, edit.range.end))
        text = text[:first] + edit.new_text + text[last:]
    return text


Scenario = Callable[[Client], Coroutine[Any, Any, None]]


def play(folder: Path, scenario: Scenario, *, root: Path | None = None) -> str:
    """Run a scenario against a server; it has to end well. What it wrote to its standard error is returned."""
    return asyncio.run(_play(folder, scenario, root or folder / "store"))


async def _play(folder: Path, scenario: Scenario, root: Path) -> str:
    editor = LanguageClient("test", "1")
    client = Client(editor, folder)
    words = ["-m", "builder", "--root", str(root), "lsp"]
    await editor.start_io(sys.executable, *words, cwd=REPOSITORY, env=ENVIRON)
    process = editor._server
    assert process is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(process.stderr.read())
    try:
        await scenario(client)
        await leave(editor)
        assert await within(process.wait()) == 0
    finally:
        if process.returncode is None:
            process.kill()
        stop: Callable[[], Awaitable[None]] = editor.stop
        await within(stop())
    return bytes(await within(errors)).decode()


async def leave(editor: LanguageClient) -> None:
    """Go as the protocol wants it."""
    await within(editor.shutdown_async(None))
    editor.exit(None)
