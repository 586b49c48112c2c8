"""Dockerfiles made from a seed: every instruction, form and oddity of layout. Plain Python, no clock."""

from __future__ import annotations

from random import Random

WORDS = ("a", "b.txt", "/etc/x", "$HOME", "${V:-x}", '"q"', "é", "a=b", "--x", "#no", "x\\y", "'s'", "😀", "[", "\xa0")
PAIRS = ("a=b", 'k="x y"', "e=", "p=$a", "w='a b'", "u=é", "q=a\\ b", '"k k"=v', "d=e=f")
TEXTS = ("echo a  && b", "[ -f x ] || y", "x # no comment", "printf '%s\\\\n' é", "-- --version", "a\tb", "ls\xa0-l")
MOUNTS = ("type=cache,target=/c", "type=tmpfs,target=/t,size=64m", "target=/b,rw", "type=secret,id=s,required")
BODIES = ("", "line\n", "\ttabbed $V\n\n", "# kept\nx \\\n", "\"quoted\" 'too'\n", "é\r\n")


class Generator:
    """Makes one Dockerfile for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._escape = self._random.choice("\\\\`")

    def dockerfile(self) -> str:
        """Return the source."""
        random = self._random
        lines = []
        if self._escape == "`" or random.random() < 0.3:
            lines.append(random.choice([f"# escape={self._escape}", f"#ESCAPE = {self._escape} "]))
        if random.random() < 0.3:
            lines.append("# syntax=docker/dockerfile:1")
        if random.random() < 0.5:
            lines.append("ARG BASE=busybox")
        for stage in range(random.randint(1, 3)):
            lines += self._layout(f"FROM {self._flag('--platform=linux/amd64')}busybox AS s{stage}")
            for _ in range(random.randint(0, 8)):
                lines += self._layout(self._instruction())
        ending = random.choice(["\n", "\n", "\r\n"])
        bom = "\ufeff" if random.random() < 0.1 else ""
        return bom + ending.join(lines) + (ending if random.random() < 0.8 else "")

    def _flag(self, text: str) -> str:
        return f"{text} " if self._random.random() < 0.3 else ""

    def _some(self, known: tuple[str, ...], least: int = 1) -> list[str]:
        return [self._random.choice(known) for _ in range(self._random.randint(least, 4))]

    def _instruction(self) -> str:
        random = self._random
        plain = self._plain()
        if random.random() < 0.1 and not plain.startswith("MAINTAINER"):
            return f"ONBUILD {plain}"
        return plain

    def _plain(self) -> str:
        random = self._random
        word = random.choice(WORDS[:8])
        makers = (
            lambda: f"RUN {self._flag('--mount=' + random.choice(MOUNTS))}{random.choice(TEXTS)}",
            lambda: 'RUN ["sh", "-c", "a b", "\\u00e9\\n"]',
            lambda: f"COPY {self._flag('--chown=1:$G')}{self._words()} {word}",
            lambda: f'ADD {self._flag("--link")}["a b", "{random.choice("xyz")}"]',
            lambda: f"ENV {self._pairs()}",
            lambda: f"LABEL {self._pairs()}",
            lambda: "ENV old  style value",
            lambda: f"ARG {random.choice(['a', 'a=1', 'a b=2', 'a=$b c'])}",
            lambda: f"CMD {random.choice(['[]', 'run x', '[' + chr(34) + 'x' + chr(34) + ']'])}",
            lambda: f"ENTRYPOINT {random.choice(TEXTS[:4])}",
            lambda: 'SHELL ["/bin/sh", "-c"]',
            lambda: f"HEALTHCHECK {self._flag('--interval=1m30s')}CMD {random.choice(TEXTS[:3])}",
            lambda: "HEALTHCHECK NONE",
            lambda: f"WORKDIR {word}",
            lambda: "USER app:$G",
            lambda: f"VOLUME {random.choice(['/a /b', '[' + chr(34) + '/a' + chr(34) + ']'])}",
            lambda: "EXPOSE 80 $P 90-92/udp",
            lambda: "STOPSIGNAL SIGTERM",
            lambda: "MAINTAINER Some One <a@b.c>",
            self._with_heredoc,
        )
        return random.choice(makers)()

    def _pairs(self) -> str:
        return " ".join(self._some(PAIRS)).replace("\\", self._escape)

    def _words(self) -> str:
        words = " ".join(self._some(WORDS[:11]))
        return f"-- {words}" if words.startswith("--") else words

    def _with_heredoc(self) -> str:
        random = self._random
        dash = random.choice(["", "-"])
        opening = random.choice(["EOF", "'EOF'", '"EOF"', "E'O'F"])
        body = random.choice(BODIES)
        head = random.choice(
            [f"RUN <<{dash}{opening}", f"RUN cat <<{dash}{opening} > /x", f"COPY <<{dash}{opening} a /d/"]
        )
        if random.random() < 0.3:
            return f"{head.replace(opening, opening + ' <<TWO', 1)}\n{body}EOF\n{random.choice(BODIES)}TWO"
        return f"{head}\n{body}EOF"

    def _layout(self, text: str) -> list[str]:
        """Lines for an instruction, with comments, blank lines and continuations thrown in."""
        random = self._random
        lines = []
        if random.random() < 0.2:
            lines.append(random.choice(["", "# comment", "#", "  # indented", "# s0 a description"]))
        head, newline, bodies = text.partition("\n")
        keyword, _, rest = head.partition(" ")
        if random.random() < 0.2:
            inner = random.choice([[], [""], ["# inside"], ["# one", "", "  # two"]])
            lines += [f"{random.choice([keyword, keyword.lower()])} {self._escape}{random.choice(['', '  '])}", *inner]
            head = f"{random.choice(['', '  '])}{rest}"
        elif random.random() < 0.1:
            head = f"\t{head}"
        lines.append(head)
        return lines + (bodies.split("\n") if newline else [])
