"""The language server: requests and notifications of the Language Server Protocol 3.17, answered by the other modules.

The only module that imports pygls, an optional dependency. Documents are kept here rather than in pygls' workspace,
which breaks lines at characters where the protocol does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.io_ import StdoutWriter, run_async
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol
from pygls.protocol.language_server import lsp_method
from pygls.uris import to_fs_path

import grammar
from builder.lsp.complete import Item, Kind, complete
from builder.lsp.context import listing
from builder.lsp.diagnose import Problem, Project, diagnose, repaired
from builder.lsp.document import Document, is_dockerfile
from builder.lsp.edits import differences
from builder.lsp.hover import hover
from builder.lsp.outline import Entry, Fold, folds, outline
from builder.lsp.rename import RenameError, renamable, rename
from builder.lsp.text import Place, Text
from builder.version import VERSION
from grammar import GrammarError, Severity, Span
from grammar.lint.fix import Fix
from grammar.record import Record
from layerstore import Store
from layerstore.platforms import Platform

_NAME = "pybuild"
_TRIGGERS = ["$", "{", "=", ",", "-", "/"]
_BLOCK = 65536

_KINDS = {
    Kind.KEYWORD: lsp.CompletionItemKind.Keyword,
    Kind.FLAG: lsp.CompletionItemKind.Property,
    Kind.VALUE: lsp.CompletionItemKind.Value,
    Kind.STAGE: lsp.CompletionItemKind.Module,
    Kind.VARIABLE: lsp.CompletionItemKind.Variable,
    Kind.FILE: lsp.CompletionItemKind.File,
    Kind.DIRECTORY: lsp.CompletionItemKind.Folder,
    Kind.RULE: lsp.CompletionItemKind.Constant,
}
_SYMBOLS = {
    "from": lsp.SymbolKind.Module,
    "arg": lsp.SymbolKind.Variable,
    "env": lsp.SymbolKind.Variable,
    "label": lsp.SymbolKind.Property,
    "copy": lsp.SymbolKind.File,
    "add": lsp.SymbolKind.File,
    "cmd": lsp.SymbolKind.Event,
    "entrypoint": lsp.SymbolKind.Event,
}
_SEVERITIES = {
    Severity.ERROR: lsp.DiagnosticSeverity.Error,
    Severity.WARNING: lsp.DiagnosticSeverity.Warning,
    Severity.INFO: lsp.DiagnosticSeverity.Information,
}


class Config(Record):
    """What the server is told: `open_store` opens the store for the time of a `with` block, None where there is none.

    `cwd` is what a relative context is below if the client names no folder; `delay` is how long, in seconds, a
    document has to rest before it is looked at again.
    """

    platform: Platform
    cwd: Path
    open_store: Callable[[], AbstractContextManager[Store | None]]
    delay: float = 0.2


class Open(NamedTuple):
    """A document that is open in the editor."""

    document: Document
    version: int | None


class _Protocol(LanguageServerProtocol):
    """The protocol without pygls' own copies of the documents."""

    @lsp_method(lsp.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: lsp.DidOpenTextDocumentParams) -> Generator[Any, Any, None]:
        yield self.fm.features[lsp.TEXT_DOCUMENT_DID_OPEN], (params,), None

    @lsp_method(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: lsp.DidChangeTextDocumentParams) -> Generator[Any, Any, None]:
        yield self.fm.features[lsp.TEXT_DOCUMENT_DID_CHANGE], (params,), None

    @lsp_method(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: lsp.DidCloseTextDocumentParams) -> Generator[Any, Any, None]:
        yield self.fm.features[lsp.TEXT_DOCUMENT_DID_CLOSE], (params,), None


class Session:
    """One client: its settings and its documents."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server = LanguageServer(_NAME, VERSION, protocol_cls=_Protocol)
        self.ended_well = False
        self._documents: dict[str, Open] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._repairs: dict[str, str] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._context: str | None = None
        self._build_args: Mapping[str, str] = {}
        self._register()

    def _register(self) -> None:
        def add(method: str, answer: Callable[[Any], object], options: object = None) -> None:
            # pygls writes attributes on what it is given, and a method has none of its own.
            self.server.feature(method, options)(partial(answer))

        add(lsp.INITIALIZE, self.initialize)
        add(lsp.SHUTDOWN, self.shutdown)
        add(lsp.TEXT_DOCUMENT_DID_OPEN, self.did_open)
        add(lsp.TEXT_DOCUMENT_DID_CHANGE, self.did_change)
        add(lsp.TEXT_DOCUMENT_DID_SAVE, self.did_save)
        add(lsp.TEXT_DOCUMENT_DID_CLOSE, self.did_close)
        add(lsp.TEXT_DOCUMENT_COMPLETION, self.completion, lsp.CompletionOptions(trigger_characters=_TRIGGERS))
        add(lsp.TEXT_DOCUMENT_HOVER, self.hover)
        add(lsp.TEXT_DOCUMENT_DEFINITION, self.definition)
        add(lsp.TEXT_DOCUMENT_REFERENCES, self.references)
        add(lsp.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT, self.highlights)
        add(lsp.TEXT_DOCUMENT_PREPARE_RENAME, self.prepare_rename)
        add(lsp.TEXT_DOCUMENT_RENAME, self.rename, lsp.RenameOptions(prepare_provider=True))
        add(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL, self.symbols)
        add(lsp.TEXT_DOCUMENT_FOLDING_RANGE, self.folding)
        add(lsp.TEXT_DOCUMENT_FORMATTING, self.formatting)
        kinds = [lsp.CodeActionKind.QuickFix, lsp.CodeActionKind.SourceFixAll]
        add(lsp.TEXT_DOCUMENT_CODE_ACTION, self.code_actions, lsp.CodeActionOptions(code_action_kinds=kinds))

    # -- life ---------------------------------------------------------------------------------------------------------

    def initialize(self, params: lsp.InitializeParams) -> None:
        """Take the settings: `context`, a directory, and `buildArgs`, an object of strings."""
        options = params.initialization_options
        wrong = [] if options is None or isinstance(options, Mapping) else ["initializationOptions"]
        for key, value in options.items() if isinstance(options, Mapping) else ():
            if key == "context" and isinstance(value, str):
                self._context = value
            elif key == "buildArgs" and isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
                self._build_args = dict(value)
            else:
                wrong.append(str(key))
        if wrong:
            text = f"pybuild does not understand the settings {', '.join(wrong)}: there are context and buildArgs"
            message = lsp.ShowMessageParams(type=lsp.MessageType.Warning, message=text)
            self.server.window_show_message(message)

    def shutdown(self, _params: object) -> None:
        """Note that the client says goodbye, as it should before it goes."""
        for timer in self._timers.values():
            timer.cancel()
        self.ended_well = True

    # -- documents ----------------------------------------------------------------------------------------------------

    def did_open(self, params: lsp.DidOpenTextDocumentParams) -> None:
        """Take a document, if it is a Dockerfile."""
        item = params.text_document
        path = _path(item.uri)
        name = path.name if path is not None else item.uri.rpartition("/")[2]
        if not is_dockerfile(name, item.language_id):
            return
        text = Text(item.text, self._encoding())
        self._documents[item.uri] = Open(Document(text, name=name, path=path), item.version)
        self._publish(item.uri)

    def did_change(self, params: lsp.DidChangeTextDocumentParams) -> None:
        """Apply edits; what they break or repair is told once nothing has changed for a moment."""
        uri = params.text_document.uri
        known = self._documents.get(uri)
        if known is None:
            return
        document = known.document
        text = document.text
        for change in params.content_changes:
            if isinstance(change, lsp.TextDocumentContentChangePartial):
                start, end = change.range.start, change.range.end
                first, last = Place(start.line, start.character), Place(end.line, end.character)
                text = text.replaced(first, last, change.text)
            else:
                text = Text(change.text, text.encoding)
        changed = Document(text, name=document.name, path=document.path)
        self._documents[uri] = Open(changed, params.text_document.version)
        self._forget(uri)
        self._cancel(uri)
        self._timers[uri] = asyncio.get_running_loop().call_later(self.config.delay, self._publish, uri)

    def did_save(self, params: lsp.DidSaveTextDocumentParams) -> None:
        """Look again: ignore files and base images may have changed meanwhile."""
        self._forget(params.text_document.uri)
        self._publish(params.text_document.uri)

    def did_close(self, params: lsp.DidCloseTextDocumentParams) -> None:
        """Forget a document and what was said about it."""
        uri = params.text_document.uri
        self._cancel(uri)
        self._forget(uri)
        if self._documents.pop(uri, None) is not None:
            self._say(lsp.PublishDiagnosticsParams(uri=uri, diagnostics=[]))

    def _cancel(self, uri: str) -> None:
        timer = self._timers.pop(uri, None)
        if timer is not None:
            timer.cancel()

    def _publish(self, uri: str) -> None:
        self._cancel(uri)
        known = self._documents.get(uri)
        if known is None:
            return
        diagnostics = [_diagnostic(known.document.text, problem) for problem in self._problems_of(uri)]
        self._say(lsp.PublishDiagnosticsParams(uri=uri, version=known.version, diagnostics=diagnostics))

    def _say(self, params: lsp.PublishDiagnosticsParams) -> None:
        with suppress(BrokenPipeError):  # the end of the input follows
            self.server.text_document_publish_diagnostics(params)

    def _problems_of(self, uri: str) -> tuple[Problem, ...]:
        if uri not in self._problems:
            document = self._documents[uri].document
            with self.config.open_store() as store:
                self._problems[uri] = diagnose(document, self._project(document, store))
        return self._problems[uri]

    def _repaired(self, uri: str) -> str:
        if uri not in self._repairs:
            document = self._documents[uri].document
            with self.config.open_store() as store:
                self._repairs[uri] = repaired(document, self._project(document, store))
        return self._repairs[uri]

    def _forget(self, uri: str) -> None:
        """Drop what was worked out about a document that is another one now."""
        self._problems.pop(uri, None)
        self._repairs.pop(uri, None)

    def _project(self, document: Document, store: Store | None) -> Project:
        return Project(
            store=store,
            platform=self.config.platform,
            context=self._context_of(document),
            build_args=self._build_args,
        )

    def _context_of(self, document: Document) -> Path | None:
        """The context: as set, below the client's folder, else the directory of the Dockerfile."""
        if self._context is not None:
            root = self.server.workspace.root_path
            return self.config.cwd / (root or "") / self._context
        return document.path.parent if document.path is not None else None

    def _encoding(self) -> str:
        return lsp.PositionEncodingKind(self.server.workspace.position_encoding or "utf-16").value

    def _document(self, uri: str) -> Document | None:
        known = self._documents.get(uri)
        return known.document if known is not None else None

    # -- questions ----------------------------------------------------------------------------------------------------

    def completion(self, params: lsp.CompletionParams) -> lsp.CompletionList | None:
        """Say what could be written at a place."""
        document = self._document(params.text_document.uri)
        if document is None:
            return None
        names = listing(self._context_of(document), document.path)
        found = complete(document, _position(document.text, params.position), names)
        where = _range(document.text, found.span)
        items = [_item(item, where, number) for number, item in enumerate(found.items)]
        return lsp.CompletionList(is_incomplete=False, items=items)

    def hover(self, params: lsp.HoverParams) -> lsp.Hover | None:
        """Say what a place is about."""
        document = self._document(params.text_document.uri)
        found = hover(document, _position(document.text, params.position)) if document is not None else None
        if document is None or found is None:
            return None
        return lsp.Hover(_markdown(found.text), _range(document.text, found.span))

    def definition(self, params: lsp.DefinitionParams) -> lsp.Location | None:
        """Say where the stage or variable at a place is declared."""
        uri = params.text_document.uri
        document = self._document(uri)
        use = document.symbols.use_at(_position(document.text, params.position)) if document is not None else None
        if document is None or use is None:
            return None
        target = use.target
        if isinstance(target, int):
            declared = [one.span for one in document.symbols.uses_of(target) if one.declares]
            span = declared[0] if declared else document.symbols.stages[target].head
        elif target.span is not None:
            span = target.span
        else:
            return None
        return lsp.Location(uri, _range(document.text, span))

    def references(self, params: lsp.ReferenceParams) -> list[lsp.Location] | None:
        """Say where the stage or variable at a place is named."""
        uri = params.text_document.uri
        document = self._document(uri)
        if document is None:
            return None
        spans = self._uses(document, params.position, declarations=params.context.include_declaration)
        return [lsp.Location(uri, _range(document.text, span)) for span in spans]

    def highlights(self, params: lsp.DocumentHighlightParams) -> list[lsp.DocumentHighlight] | None:
        """Say where the stage or variable at a place is named, to be marked while the cursor is there."""
        document = self._document(params.text_document.uri)
        if document is None:
            return None
        spans = self._uses(document, params.position, declarations=True)
        return [lsp.DocumentHighlight(_range(document.text, span)) for span in spans]

    def _uses(self, document: Document, position: lsp.Position, *, declarations: bool) -> list[Span]:
        use = document.symbols.use_at(_position(document.text, position))
        if use is None:
            return []
        found = document.symbols.uses_of(use.target)
        declaring = {one.span for one in document.symbols.uses if one.declares}
        return [one.span for one in found if declarations or one.span not in declaring]

    def prepare_rename(self, params: lsp.PrepareRenameParams) -> lsp.Range | None:
        """Say what would be renamed; an error says why nothing can be."""
        document = self._document(params.text_document.uri)
        if document is None:
            return None
        try:
            span = renamable(document, _position(document.text, params.position))
        except RenameError as error:
            raise _refusal(error) from error
        return _range(document.text, span)

    def rename(self, params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        """Rename a stage wherever it is named."""
        uri = params.text_document.uri
        document = self._document(uri)
        if document is None:
            return None
        try:
            spans = rename(document, _position(document.text, params.position), params.new_name)
        except RenameError as error:
            raise _refusal(error) from error
        edits = [lsp.TextEdit(_range(document.text, span), params.new_name) for span in spans]
        return lsp.WorkspaceEdit(changes={uri: edits})

    def symbols(self, params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol] | None:
        """List stages and instructions."""
        document = self._document(params.text_document.uri)
        if document is None:
            return None
        return [_symbol(document.text, entry) for entry in outline(document)]

    def folding(self, params: lsp.FoldingRangeParams) -> list[lsp.FoldingRange] | None:
        """List what can be folded."""
        document = self._document(params.text_document.uri)
        if document is None:
            return None
        return [
            lsp.FoldingRange(
                start_line=document.text.place_of(grammar.Position(first, 1)).line,
                end_line=document.text.place_of(grammar.Position(last, 1)).line,
                kind=lsp.FoldingRangeKind.Comment if why is Fold.COMMENT else None,
            )
            for first, last, why in folds(document)
        ]

    def formatting(self, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
        """Tidy a document as `pybuild fmt` does; one that cannot be parsed stays as it is."""
        document = self._document(params.text_document.uri)
        if document is None:
            return None
        try:
            tidied = grammar.tidy(document.text.data, name=document.name).decode("utf-8", "surrogateescape")
        except GrammarError:
            return None  # the diagnostics say why
        return _edits(document.text, tidied)

    def code_actions(self, params: lsp.CodeActionParams) -> list[lsp.CodeAction] | None:
        """Offer the repairs of what is wrong in a range, and of everything that can be repaired safely."""
        uri = params.text_document.uri
        document = self._document(uri)
        if document is None:
            return None
        actions = []
        fixable = [
            (one, one.violation.fix)
            for one in self._problems_of(uri)
            if one.violation is not None and one.violation.fix is not None and one.violation.file is None
        ]
        if _wanted(params.context.only, lsp.CodeActionKind.QuickFix):
            for problem, fix in fixable:
                diagnostic = _diagnostic(document.text, problem)
                if _touch(diagnostic.range, params.range):
                    actions.append(_quick_fix(document.text, uri, fix, diagnostic))
        kind = lsp.CodeActionKind.SourceFixAll
        if _wanted(params.context.only, kind) and any(fix.safe for _, fix in fixable):
            with suppress(GrammarError):  # a file with errors is repaired bit by bit
                edit = lsp.WorkspaceEdit(changes={uri: _edits(document.text, self._repaired(uri))})
                actions.append(lsp.CodeAction("Repair what can be repaired safely", kind=kind, edit=edit))
        return actions


# -- serving ----------------------------------------------------------------------------------------------------------


def serve_stdio(config: Config, stdin: int, stdout: BinaryIO) -> bool:
    """Serve the client that `stdin`, a descriptor, is read from; say whether it left as the protocol wants it."""

    async def serve() -> bool:
        reader = asyncio.StreamReader()
        read = partial(_read, stdin, reader, asyncio.get_running_loop())
        # A thread that nobody has to wait for: a signal ends the process while it still waits for input.
        threading.Thread(target=read, daemon=True).start()
        return await _converse(Session(config), reader, StdoutWriter(stdout))

    return asyncio.run(serve())


def serve_tcp(config: Config, host: str, port: int, *, listening: Callable[[str, int], None]) -> bool:
    """Serve one client on a socket; `listening` is told its address. OSError if that cannot be had."""

    async def serve() -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            server.close()  # whoever comes second finds nobody
            try:
                done.set_result(await _converse(Session(config), reader, writer))
            finally:
                writer.close()

        server = await asyncio.start_server(connected, host, port)
        listening(*server.sockets[0].getsockname()[:2])
        return await done

    return asyncio.run(serve())


async def _converse(session: Session, reader: asyncio.StreamReader, writer: Any) -> bool:
    """Answer until the client goes."""
    logging.getLogger("pygls.protocol.json_rpc").addFilter(_is_no_refusal)
    session.server.protocol.set_writer(writer)
    with suppress(SystemExit, asyncio.IncompleteReadError, ConnectionError):
        await run_async(
            stop_event=threading.Event(),
            reader=reader,
            protocol=session.server.protocol,
            error_handler=session.server.report_server_error,
        )
    return session.ended_well


def _read(descriptor: int, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    """Hand on what comes from a descriptor; runs in a thread of its own."""
    with suppress(RuntimeError):  # the loop is closed: nobody reads any more
        while block := os.read(descriptor, _BLOCK):
            loop.call_soon_threadsafe(reader.feed_data, block)
        loop.call_soon_threadsafe(reader.feed_eof)


class Refusal(JsonRpcException):
    """An answer that says why something cannot be done; no defect of the server."""

    CODE = lsp.LSPErrorCodes.RequestFailed.value


def _refusal(error: RenameError) -> Refusal:
    return Refusal(f"{error.message}: {error.hint}" if error.hint else error.message)


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], Refusal))


# -- values of the protocol -------------------------------------------------------------------------------------------


def _path(uri: str) -> Path | None:
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return Path(path) if path else None


def _position(text: Text, position: lsp.Position) -> grammar.Position:
    return text.position(text.offset(Place(position.line, position.character)))


def _range(text: Text, span: Span) -> lsp.Range:
    return lsp.Range(lsp.Position(*text.place_of(span.start)), lsp.Position(*text.place_of(span.end)))


def _touch(one: lsp.Range, other: lsp.Range) -> bool:
    return (one.start.line, one.start.character) <= (other.end.line, other.end.character) and (
        other.start.line,
        other.start.character,
    ) <= (one.end.line, one.end.character)


def _markdown(text: str) -> lsp.MarkupContent:
    return lsp.MarkupContent(lsp.MarkupKind.Markdown, text)


def _diagnostic(text: Text, problem: Problem) -> lsp.Diagnostic:
    found = problem.diagnostic
    rule = problem.violation.rule if problem.violation is not None else None
    url = rule.url if rule is not None else ""
    top = grammar.Position(1, 1)
    span = found.span or Span(top, top._replace(column=len(text.source.partition("\n")[0].rstrip("\r")) + 1))
    message = found.message if rule is not None or not found.hint else f"{found.message}\n{found.hint}"
    return lsp.Diagnostic(
        range=_range(text, span),
        message=message,
        severity=_SEVERITIES[found.severity],
        code=rule.name if rule is not None else found.code,
        code_description=lsp.CodeDescription(url) if url else None,
        source=_NAME,
    )


def _item(item: Item, where: lsp.Range, number: int) -> lsp.CompletionItem:
    return lsp.CompletionItem(
        label=item.label,
        kind=_KINDS[item.kind],
        detail=item.detail or None,
        documentation=_markdown(item.help) if item.help else None,
        sort_text=f"{number:05}",
        filter_text=item.label,
        text_edit=lsp.TextEdit(where, item.text),
    )


def _symbol(text: Text, entry: Entry) -> lsp.DocumentSymbol:
    return lsp.DocumentSymbol(
        name=entry.name,
        detail=entry.detail or None,
        kind=_SYMBOLS.get(entry.keyword, lsp.SymbolKind.Function),
        range=_range(text, entry.whole),
        selection_range=_range(text, entry.head),
        children=[_symbol(text, child) for child in entry.children],
    )


def _edits(text: Text, wanted: str) -> list[lsp.TextEdit]:
    return [
        lsp.TextEdit(lsp.Range(lsp.Position(*text.place(start)), lsp.Position(*text.place(end))), new)
        for start, end, new in differences(text.source, wanted)
    ]


def _quick_fix(text: Text, uri: str, fix: Fix, diagnostic: lsp.Diagnostic) -> lsp.CodeAction:
    edits = [lsp.TextEdit(_range(text, edit.span), edit.text) for edit in fix.edits]
    return lsp.CodeAction(
        title=fix.title,
        kind=lsp.CodeActionKind.QuickFix,
        diagnostics=[diagnostic],
        is_preferred=fix.safe,
        edit=lsp.WorkspaceEdit(changes={uri: edits}),
    )


def _wanted(only: Sequence[lsp.CodeActionKind | str] | None, kind: lsp.CodeActionKind) -> bool:
    """Whether a client that asks for some kinds of actions wants this one: `source` stands for `source.fixAll` too."""
    if only is None:
        return True
    return any(f"{kind.value}.".startswith(f"{getattr(one, 'value', one)}.") for one in only)
