"""The syntax tree of a Dockerfile: what was written, with places and comments.

Words are unexpanded and keep their quotes. Two trees are equal when they say the same: places (`span`) and layout
(`original`) are left out of comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from grammar.diagnostics import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One argument as written: unexpanded, quotes and escapes kept (in a flag's value they are already removed)."""

    text: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A `--name[=value]` after a keyword; `value` has quotes and escapes removed, `text` is the flag as written."""

    name: str
    value: str | None
    text: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """The body of a `<<NAME`: `content` with its newlines, tabs already taken away where `chomp`.

    `expand` is False where the name was quoted. `fd` is the number before `<<`, if any; `text` the opening word
    as written.
    """

    name: str
    content: str
    expand: bool
    chomp: bool
    fd: int | None
    text: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellForm:
    """A command as text for the shell; continuation lines are joined."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecForm:
    """A command as a list of arguments, from a JSON list."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A `key=value` of ENV or LABEL; both are expanded later, quotes kept."""

    key: Word
    value: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgPair:
    """A `name` or `name=default` of ARG; `value` is None where there is no `=`."""

    name: Word
    value: Word | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment line outside the directives; `text` is what follows the `#`, trimmed."""

    text: str
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What every instruction has.

    `keyword` is in lower case. `span` reaches from the keyword to the end of the last line, continuations and heredocs
    included; `original` is the source text of these lines. `comments` are the comment lines directly above, without
    their `#`.
    """

    keyword: str
    flags: tuple[Flag, ...] = ()
    span: Span = field(compare=False)
    original: str = field(compare=False)
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Statement):
    """FROM: starts a stage."""

    image: Word
    platform: Word | None
    name: Word | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Statement):
    """ARG: declares build arguments."""

    pairs: tuple[ArgPair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Statement):
    """ENV; `legacy` where it was written `ENV key value`."""

    pairs: tuple[Pair, ...]
    legacy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Statement):
    """LABEL; `legacy` where it was written `LABEL key value`."""

    pairs: tuple[Pair, ...]
    legacy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Statement):
    """RUN; `mounts` are the values of `--mount`, each understood by `parse_mount`."""

    command: ShellForm | ExecForm
    heredocs: tuple[Heredoc, ...]
    mounts: tuple[Word, ...]
    network: str | None
    security: str | None
    devices: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Statement):
    """COPY; a source that is a heredoc stands in `heredocs` and as its opening word in `sources`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Statement):
    """ADD; a source that is a heredoc stands in `heredocs` and as its opening word in `sources`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Statement):
    """CMD."""

    command: ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Statement):
    """ENTRYPOINT."""

    command: ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Statement):
    """SHELL: the program and arguments that shell forms are handed to."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Statement):
    """HEALTHCHECK; `test` is None for NONE. Times are nanoseconds, None where not given."""

    test: ShellForm | ExecForm | None
    interval: int | None
    timeout: int | None
    start_period: int | None
    start_interval: int | None
    retries: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Statement):
    """WORKDIR."""

    path: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Statement):
    """USER: `name[:group]`."""

    name: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Statement):
    """VOLUME."""

    paths: tuple[Word, ...]
    json_form: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Statement):
    """EXPOSE; a word may expand to several ports."""

    ports: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopsignal(Statement):
    """STOPSIGNAL."""

    signal: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Statement):
    """ONBUILD; `text` is the trigger as it is stored in an image config, heredoc bodies included."""

    trigger: Instruction
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ast:
    """A whole file: its directives (lower-case key to value), instructions and comments, in the order of the file."""

    directives: Mapping[str, str]
    instructions: tuple[Instruction, ...]
    comments: tuple[Comment, ...]
    escape: str
    source: str = field(compare=False)
    name: str = field(compare=False)
