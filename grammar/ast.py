"""The syntax tree of a Dockerfile: what was written, with places and comments.

Words are unexpanded and keep their quotes. Two trees are equal when they say the same: places (`span`) and layout
(`original`) are left out of comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from grammar.diagnostics import Span
from grammar.record import Record, field


class Word(Record):
    """One argument as written: unexpanded, quotes and escapes kept (in a flag's value they are already removed)."""

    text: str
    span: Span = field(compare=False)


class Flag(Record):
    """A `--name[=value]` after a keyword; `value` has quotes and escapes removed, `text` is the flag as written."""

    name: str
    value: str | None
    text: str
    span: Span = field(compare=False)


class Heredoc(Record):
    """A `<<NAME` and its body; `content` is the body as written, newlines and leading tabs kept.

    `expand` is False where the name was quoted, `chomp` True after `<<-` (see `body`). `fd` is the number before `<<`,
    if any; `text` is the opening word as written.
    """

    name: str
    content: str
    expand: bool
    chomp: bool
    fd: int | None
    text: str
    span: Span = field(compare=False)

    @property
    def body(self) -> str:
        """The content without the leading tabs that `<<-` takes away."""
        return re.sub(r"^\t+", "", self.content, flags=re.MULTILINE) if self.chomp else self.content


class ShellForm(Record):
    """A command as text for the shell; continuation lines are joined."""

    text: str


class ExecForm(Record):
    """A command as a list of arguments, from a JSON list."""

    args: tuple[str, ...]


class Pair(Record):
    """A `key=value` of ENV or LABEL; both are expanded later, quotes kept."""

    key: Word
    value: Word


class ArgPair(Record):
    """A `name` or `name=default` of ARG; `value` is None where there is no `=`."""

    name: Word
    value: Word | None


class Comment(Record):
    """A comment line outside the directives; `text` is what follows the `#`, trimmed."""

    text: str
    span: Span = field(compare=False)


class Statement(Record):
    """What every instruction has.

    `keyword` is in lower case. `span` reaches from the keyword to the end of the last line, continuations and heredocs
    included; `original` is the logical line: continuations joined, comments and heredoc bodies left out. `comments` are
    the comment lines above, without their `#`.
    """

    keyword: str
    flags: tuple[Flag, ...] = ()
    span: Span = field(compare=False)
    original: str = field(compare=False)
    comments: tuple[str, ...] = ()


class From(Statement):
    """FROM: starts a stage."""

    image: Word
    platform: Word | None
    name: Word | None


class Arg(Statement):
    """ARG: declares build arguments."""

    pairs: tuple[ArgPair, ...]


class Env(Statement):
    """ENV; `legacy` where it was written `ENV key value`."""

    pairs: tuple[Pair, ...]
    legacy: bool


class Label(Statement):
    """LABEL; `legacy` where it was written `LABEL key value`."""

    pairs: tuple[Pair, ...]
    legacy: bool


class Run(Statement):
    """RUN; `mounts` and `devices` are the values of these flags, understood by `parse_mount` and `parse_device`."""

    command: ShellForm | ExecForm
    heredocs: tuple[Heredoc, ...]
    mounts: tuple[Word, ...]
    network: str | None
    security: str | None
    devices: tuple[Word, ...]


class Copy(Statement):
    """COPY; `sources` are paths only, sources written as heredocs stand in `heredocs`."""

    sources: tuple[Word, ...]
    destination: Word
    heredocs: tuple[Heredoc, ...]
    json_form: bool
    from_: Word | None
    chown: Word | None
    chmod: Word | None
    link: bool | None
    parents: bool | None
    excludes: tuple[Word, ...]


class Add(Statement):
    """ADD; `sources` are paths only, sources written as heredocs stand in `heredocs`."""

    sources: tuple[Word, ...]
    destination: Word
    heredocs: tuple[Heredoc, ...]
    json_form: bool
    chown: Word | None
    chmod: Word | None
    link: bool | None
    checksum: Word | None
    keep_git_dir: bool | None
    unpack: bool | None
    excludes: tuple[Word, ...]


class Cmd(Statement):
    """CMD."""

    command: ShellForm | ExecForm


class Entrypoint(Statement):
    """ENTRYPOINT."""

    command: ShellForm | ExecForm


class Shell(Statement):
    """SHELL: the program and arguments that shell forms are handed to."""

    args: tuple[str, ...]


class Healthcheck(Statement):
    """HEALTHCHECK; `test` is None for NONE. Times are nanoseconds, None where not given."""

    test: ShellForm | ExecForm | None
    interval: int | None
    timeout: int | None
    start_period: int | None
    start_interval: int | None
    retries: int | None


class Workdir(Statement):
    """WORKDIR."""

    path: Word


class User(Statement):
    """USER: `name[:group]`."""

    name: Word


class Volume(Statement):
    """VOLUME."""

    paths: tuple[Word, ...]
    json_form: bool


class Expose(Statement):
    """EXPOSE; a word may expand to several ports."""

    ports: tuple[Word, ...]


class Stopsignal(Statement):
    """STOPSIGNAL."""

    signal: Word


class Onbuild(Statement):
    """ONBUILD; `text` is the trigger as it is stored in an image config, heredoc bodies included.

    `trigger` is None where the text is no instruction: only the build that it is run in fails.
    """

    trigger: Instruction | None
    text: str


class Maintainer(Statement):
    """MAINTAINER."""

    name: str


Instruction = (
    From
    | Arg
    | Env
    | Label
    | Run
    | Copy
    | Add
    | Cmd
    | Entrypoint
    | Shell
    | Healthcheck
    | Workdir
    | User
    | Volume
    | Expose
    | Stopsignal
    | Onbuild
    | Maintainer
)


class Ast(Record):
    """A whole file: its directives (lower-case key to value), instructions and comments, in the order of the file."""

    directives: Mapping[str, str]
    instructions: tuple[Instruction, ...]
    comments: tuple[Comment, ...]
    escape: str
    source: str = field(compare=False)
    name: str = field(compare=False)
