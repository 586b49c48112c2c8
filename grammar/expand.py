"""Variable expansion of words: quotes, escapes and `${name:-default}` forms. Knows nothing of where words come from.

The forms are those of POSIX.1-2017, Shell Command Language, 2.6.2, and bash's `${name/pattern/replacement}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from grammar.errors import ExpandError
from grammar.record import Record
from grammar.text import WIDE_BLANKS, quote

_SPECIAL = "@*#?-$!"
_END = "\ufffd"
_PLAIN = re.compile(r"""[^$'"<\\`]+""")
_PLAIN_IN_BRACES = re.compile(r"""[^$'"<\\`}/]+""")


class Expansion(Record):
    """A word after expansion, and the variables it named: those that were set (`used`) and those that were not."""

    text: str
    used: frozenset[str]
    unset: frozenset[str]
    words: tuple[str, ...]


def expand(word: str, env: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """Return the word with variables replaced, quotes and escapes removed; ExpandError says what is wrong with it."""
    if "$" not in word and '"' not in word and "'" not in word and escape not in word:
        return Expansion(text=word, used=frozenset(), unset=frozenset(), words=(word,))
    lexer = Lexer(word, env, escape=escape)
    text = lexer.run()
    return Expansion(text=text, used=frozenset(lexer.used), unset=frozenset(lexer.unset), words=(text,))


def expand_shown(text: str, env: Mapping[str, str], *, escape: str = "\\") -> str:
    """Return a command for people to read, with the values of variables that are set; quotes stay. ExpandError."""
    if "$" not in text and escape not in text:
        return text
    return Lexer(text, env, escape=escape, raw_quotes=True, keep_unset=True).run()


def expand_words(word: str, env: Mapping[str, str], *, escape: str = "\\") -> Expansion:
    """Like `expand`, and split at the blanks outside quotes, also at those that come from variables, into `words`."""
    lexer = Lexer(word, env, escape=escape)
    text, words = lexer.split()
    return Expansion(text=text, used=frozenset(lexer.used), unset=frozenset(lexer.unset), words=tuple(words))


def expand_heredoc(body: str, env: Mapping[str, str]) -> Expansion:
    """Return a heredoc's body with variables replaced: quotes are plain text and backslash is the escape character."""
    lexer = Lexer(body, env, quotes=False)
    text = lexer.run()
    return Expansion(text=text, used=frozenset(lexer.used), unset=frozenset(lexer.unset), words=(text,))


class _Words:
    """Collects the words of an expansion while its characters go by."""

    __slots__ = ("_inside", "_word", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self._word = ""
        self._inside = False

    def add(self, text: str) -> None:
        """Take text that blanks split."""
        for char in text:
            if char not in WIDE_BLANKS:
                self.add_whole(char)
            elif self._inside and self._word:
                self.finish()

    def add_whole(self, text: str) -> None:
        """Take text that blanks do not split."""
        self._word += text
        self._inside = True

    def finish(self) -> list[str]:
        """End the current word and return all of them."""
        if self._word:
            self.words.append(self._word)
            self._word = ""
            self._inside = False
        return self.words


class Lexer:
    """Reads one word; `used` and `unset` fill up while it does.

    `raw` keeps quotes and escapes in the result and leaves unset variables as they are written, so that words can be
    told apart without changing them. `quotes=False` makes quotes plain text.
    """

    def __init__(
        self,
        word: str,
        env: Mapping[str, str],
        *,
        escape: str = "\\",
        quotes: bool = True,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self._source = word
        self._env = env
        self._escape = escape
        self._quotes = quotes
        self._raw_quotes = raw_quotes
        self._raw_escapes = raw_escapes
        self._keep_unset = keep_unset
        self._at = 0
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def run(self) -> str:
        """Return the expanded text; ExpandError."""
        return self._all(None)

    def split(self) -> tuple[str, list[str]]:
        """Return the expanded text and its words; ExpandError."""
        words = _Words()
        text = self._all(words)
        return text, words.finish()

    def _all(self, words: _Words | None) -> str:
        try:
            return self._until("", raw_escapes=self._raw_escapes, words=words)
        except _SyntaxFault as fault:
            message = f"failed to process {quote(self._source)}: {fault}"
            raise ExpandError(message, hint=fault.hint, unset=frozenset(self.unset)) from None
        except RecursionError:
            raise ExpandError(
                f"failed to process {quote(self._source)[:80]}: substitutions are nested too deeply"
            ) from None

    def words(self) -> list[str]:
        """Return the words up to the first fault, if there is one."""
        collected = _Words()
        try:
            self._until("", raw_escapes=self._raw_escapes, words=collected)
        except (_SyntaxFault, RecursionError):
            return []
        return collected.finish()

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._source[self._at : self._at + 1]
        self._at += 1
        return char

    def _until(self, stop: str, *, raw_escapes: bool, words: _Words | None = None) -> str:
        """Read to the end, or just past the first `stop` that is neither quoted nor escaped; `words` fills up."""
        outer, self._raw_escapes = self._raw_escapes, raw_escapes
        try:
            return self._read(stop, words)
        finally:
            self._raw_escapes = outer

    def _read(self, stop: str, words: _Words | None) -> str:
        result: list[str] = []
        plain = _PLAIN_IN_BRACES if stop else _PLAIN
        while char := self._peek():
            if char == stop:
                self._at += 1
                return "".join(result)
            whole = True
            if char == "$":
                text = self._dollar()
                whole = False
            elif char in "'\"" and self._quotes:
                text = self._single_quoted() if char == "'" else self._double_quoted()
            elif char == "<":
                text = self._angle()
            elif char == self._escape:
                text = self._escaped()
            else:
                run = plain.match(self._source, self._at)
                text = char if run is None else run[0]
                self._at += len(text)
                whole = False
            if words is not None:
                (words.add_whole if whole else words.add)(text)
            result.append(text)
        if stop:
            raise _SyntaxFault(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result)

    def _angle(self) -> str:
        """`<`, or `<<` with the blanks behind it: they belong to the word of a heredoc."""
        start = self._at
        self._at += 1
        if self._peek() == "<":
            self._at += 1
            while self._peek() and self._peek() in "\t\v\f\r ":
                self._at += 1
        return self._source[start : self._at]

    def _escaped(self) -> str:
        self._at += 1
        kept = self._escape if self._raw_escapes else ""
        return kept + self._next()

    def _single_quoted(self) -> str:
        end = self._source.find("'", self._at + 1)
        if end < 0:
            self._at = len(self._source)
            raise _SyntaxFault(
                "unexpected end of statement while looking for matching single-quote",
                hint="close the quote, or put an escape character before it",
            )
        text = self._source[self._at + 1 : end]
        self._at = end + 1
        return f"'{text}'" if self._raw_quotes else text

    def _double_quoted(self) -> str:
        self._at += 1
        mark = '"' if self._raw_quotes else ""
        result = [mark]
        while char := self._peek():
            if char == '"':
                self._at += 1
                return "".join(result) + mark
            if char == "$":
                result.append(self._dollar())
                continue
            self._at += 1
            if char == self._escape:
                if self._raw_escapes:
                    result.append(char)
                follower = self._peek()
                if not follower:
                    continue
                if follower in ('"', "$", self._escape):
                    char = self._next()
            result.append(char)
        raise _SyntaxFault(
            "unexpected end of statement while looking for matching double-quote",
            hint="close the quote, or put an escape character before it",
        )

    def _look_up(self, name: str) -> str | None:
        value = self._env.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() == "{":
            self._at += 1
            return self._braced()
        name = self._name()
        if not name:
            return "$"
        value = self._look_up(name)
        if value is None:
            return f"${name}" if self._keep_unset else ""
        return value

    def _name(self) -> str:
        """Read a name: letters, digits and underscores, a run of digits, or one special character."""
        start = self._at
        first = self._peek()
        if first and first in _SPECIAL:
            self._at += 1
        elif first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        else:
            while (char := self._peek()) and (char == "_" or char.isalpha() or char.isdecimal()):
                self._at += 1
        return self._source[start : self._at]

    def _braced(self) -> str:
        """What stands for `${…}`; its opening is read already."""
        first = self._peek()
        if not first:
            raise _SyntaxFault("syntax error: missing '}'", hint=_CLOSE)
        if first in "{}:":
            raise _SyntaxFault("syntax error: bad substitution", hint="write ${name}, or \\$ for a plain dollar sign")
        name = self._name()
        modifier = operator = self._next()
        if operator == "}":
            value = self._look_up(name)
            if value is None:
                return f"${{{name}}}" if self._keep_unset else ""
            return value
        if operator == "/":
            return self._replaced(name)
        if operator == "" or operator not in ":-+?#%":
            # The reference shows the end of the text as a character.
            hint = _FORMS if operator else _CLOSE
            raise _SyntaxFault(f"unsupported modifier ({operator or _END}) in substitution", hint=hint)
        if operator == ":":
            operator = self._next()
            modifier += operator
            if operator in ("#", "%"):
                raise _SyntaxFault(f"unsupported modifier ({modifier}) in substitution", hint=_FORMS)
        word = self._operand("}", raw_escapes=operator in ("#", "%"))
        value = self._look_up(name)
        if modifier[0] == ":" and operator not in ("-", "+", "?"):
            raise _SyntaxFault(f"unsupported modifier ({modifier}) in substitution", hint=_FORMS)
        if value is None and self._keep_unset:
            return f"${{{name}{modifier}{word}}}"
        if operator in "#%":
            return _trimmed(operator, word, value or "")
        return _chosen(name, modifier, word, value)

    def _operand(self, stop: str, *, raw_escapes: bool) -> str:
        """Read the part of a substitution before `stop`."""
        try:
            return self._until(stop, raw_escapes=raw_escapes)
        except _SyntaxFault:
            if self._peek():
                raise
            missing = "syntax error: missing '}'" if stop == "}" else "syntax error: missing '/' in ${}"
            raise _SyntaxFault(missing, hint=_CLOSE if stop == "}" else _FORMS) from None

    def _replaced(self, name: str) -> str:
        """What stands for `${name/pattern/replacement}`, read up to the first slash."""
        everywhere = self._peek() == "/"
        if everywhere:
            self._at += 1
        pattern = self._operand("/", raw_escapes=True)
        replacement = self._operand("}", raw_escapes=True)
        value = self._look_up(name)
        if value is None and self._keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        from grammar.pattern import replace  # noqa: PLC0415 - few files use patterns

        try:
            return replace(value or "", pattern, replacement, everywhere=everywhere)
        except ValueError as error:
            raise _SyntaxFault(f"invalid pattern ({pattern}) in substitution: {error}", hint=_PATTERNS) from None


_CLOSE = "close the substitution with }"
_FORMS = "the forms are ${n:-w} ${n-w} ${n:+w} ${n+w} ${n:?w} ${n?w} ${n#p} ${n##p} ${n%p} ${n%%p} ${n/p/r} ${n//p/r}"
_PATTERNS = "a backslash in a pattern escapes * ? \\ } and / only"


class _SyntaxFault(Exception):  # becomes an ExpandError that names the word
    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _chosen(name: str, modifier: str, word: str, value: str | None) -> str:
    """The value or the word, by `-`, `+` or `?`; with a colon before them an empty value counts as unset."""
    missing = value is None or (modifier[0] == ":" and value == "")
    if modifier[-1] == "-":
        return word if missing else value or ""
    if modifier[-1] == "+":
        return "" if missing else word
    if missing:
        state = "unset" if value is None else "empty"
        raise _SyntaxFault(
            f"{name}: {word or f'is not allowed to be {state}'}",
            hint=f"give {name} a value, for example with --build-arg",
        )
    return value or ""


def _trimmed(operator: str, pattern: str, value: str) -> str:
    """The value without the shortest match of the pattern at its start or end; a doubled operator takes the longest."""
    longest = pattern.startswith(operator)
    if longest:
        pattern = pattern[1:]
    from grammar.pattern import trim_prefix, trim_suffix  # noqa: PLC0415 - few files use patterns

    try:
        return (trim_prefix if operator == "#" else trim_suffix)(value, pattern, longest=longest)
    except ValueError as error:
        raise _SyntaxFault(f"invalid pattern ({pattern}) in substitution: {error}", hint=_PATTERNS) from None
