"""What each instruction does to a stage: edits of the image config and of the scopes; steps are planned beside it.

Scopes, config and history texts follow BuildKit's dockerfile2llb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import grammar
from builder.image import ImageConfig, Json, go_duration, go_list, go_quoted_list
from builder.ports import InvalidPort, expand_ports
from builder.steps import StepPlanner
from grammar import Span

if TYPE_CHECKING:
    from builder.stage import Planning, StageState

NEVER_IN_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


class Instructions:
    """Applies instructions to the stages of a plan."""

    def __init__(self, planner: Planning) -> None:
        self._planner = planner
        self._steps = StepPlanner(planner)

    def apply(self, stage: StageState, instruction: grammar.Instruction) -> None:  # noqa: C901, PLR0912 - one closed sum
        """Do what `instruction` says; LocatedError for what it gets wrong."""
        match instruction:
            case grammar.Arg():
                self._arg(stage, instruction)
            case grammar.Env():
                self._env(stage, instruction)
            case grammar.Label():
                self._label(stage, instruction)
            case grammar.Run():
                self._steps.run(stage, instruction)
            case grammar.Copy() | grammar.Add():
                self._steps.copy(stage, instruction)
            case grammar.Workdir():
                self._steps.workdir(stage, instruction)
            case grammar.User():
                text = self._planner.expand(instruction.name, stage.env)
                stage.config.set_or_drop("User", text)
                stage.config.commit(f"USER {text}")
            case grammar.Cmd():
                args = self._command(stage, instruction.command)
                stage.config.set_or_drop("Cmd", list(args))
                stage.config.config["ArgsEscaped"] = True
                stage.cmd_is_set = True
                stage.config.commit(f"CMD {go_quoted_list(args)}")
            case grammar.Entrypoint():
                args = self._command(stage, instruction.command)
                stage.config.set_or_drop("Entrypoint", list(args))
                if not stage.cmd_is_set:
                    stage.config.config.pop("Cmd", None)
                stage.config.commit(f"ENTRYPOINT {go_quoted_list(args)}")
            case grammar.Shell():
                stage.config.set_or_drop("Shell", list(instruction.args))
                stage.config.commit(f"SHELL {go_list(instruction.args)}")
            case grammar.Volume():
                self._volume(stage, instruction)
            case grammar.Expose():
                self._expose(stage, instruction)
            case grammar.Healthcheck():
                _healthcheck(stage.config, instruction)
            case grammar.Stopsignal():
                text = self._planner.expand(instruction.signal, stage.env)
                self._check_signal(text, instruction.signal.span)
                stage.config.set_or_drop("StopSignal", text)
                stage.config.commit(f"STOPSIGNAL {text}")
            case grammar.Onbuild():
                stage.config.config.setdefault("OnBuild", []).append(instruction.text)
            case grammar.Maintainer():
                stage.config.document["author"] = instruction.name
                stage.config.commit(f"MAINTAINER {instruction.name}")
            case grammar.From():
                raise AssertionError("BUG: FROM inside a stage")
            case _:
                assert_never(instruction)

    def _check_signal(self, text: str, span: Span) -> None:
        from runner.errors import SpecError  # noqa: PLC0415 - few Dockerfiles have a STOPSIGNAL
        from runner.signals import parse_signal  # noqa: PLC0415

        digits = text[1:] if text[:1] in ("+", "-") else text
        if digits.isascii() and digits.isdecimal() and int(digits):
            return  # the reference takes any number; whoever starts a container finds out whether it is a signal
        try:
            parse_signal(text)
        except SpecError as error:
            hint = "use a name such as SIGTERM or a number"
            raise self._planner.error("stopsignal", f"invalid signal: {text}", span, hint=hint) from error

    def _command(self, stage: StageState, command: grammar.ShellForm | grammar.ExecForm) -> tuple[str, ...]:
        if isinstance(command, grammar.ExecForm):
            return command.args
        return (*stage.shell, command.text)

    def _arg(self, stage: StageState, instruction: grammar.Arg) -> None:
        """ARG: a build argument beats the default here, which beats the global scope; pairs apply left to right."""
        texts = []
        for pair in instruction.pairs:
            name = pair.name.text  # as written: a variable in it is none
            if name in self._planner.options.build_args:
                value: str | None = self._planner.options.build_args[name]
            elif pair.value is not None:
                value = self._planner.expand(pair.value, stage.env)
            else:
                value = self._planner.globals.get(name)
            if value is not None and name not in NEVER_IN_ENV:
                stage.assign({name: value})
            stage.args.append((name, value))
            texts.append(name if value is None else f"{name}={value}")
        stage.config.commit("ARG " + " ".join(texts))

    def _pairs(self, stage: StageState, pairs: tuple[grammar.Pair, ...]) -> list[tuple[str, str]]:
        """Expand key-value pairs, all with the values from before the instruction."""
        return [
            (self._planner.expand(pair.key, stage.env), self._planner.expand(pair.value, stage.env)) for pair in pairs
        ]

    def _env(self, stage: StageState, instruction: grammar.Env) -> None:
        pairs = self._pairs(stage, instruction.pairs)
        for key, value in pairs:
            stage.assign({key: value})
            stage.config.set_env(key, value)
        stage.config.commit("ENV " + " ".join(f"{key}={value}" for key, value in pairs))

    def _label(self, stage: StageState, instruction: grammar.Label) -> None:
        pairs = self._pairs(stage, instruction.pairs)
        stage.config.set_labels(pairs)
        stage.config.commit("LABEL " + " ".join(f"{key}={value}" for key, value in pairs))

    def _volume(self, stage: StageState, instruction: grammar.Volume) -> None:
        paths = [self._planner.expand(word, stage.env) for word in instruction.paths]
        for path, word in zip(paths, instruction.paths, strict=True):
            if not path.strip():
                raise self._planner.error(
                    "volume", "VOLUME specified can not be an empty string", word.span, hint="name a directory"
                )
        volumes = stage.config.config.setdefault("Volumes", {})
        volumes.update({path: {} for path in paths})
        stage.config.commit(f"VOLUME {go_list(paths)}")

    def _expose(self, stage: StageState, instruction: grammar.Expose) -> None:
        ports: list[str] = []
        # The reference sorts the words as written, before variables are put in.
        for word in sorted(instruction.ports, key=lambda word: word.text):
            try:
                words = grammar.expand_words(word.text, stage.env, escape=self._planner.escape).words
                ports += [port for one in words for port in expand_ports(one)]
            except grammar.ExpandError as error:
                raise self._planner.expansion_error(word, error) from error
            except InvalidPort as error:
                hint = "write ports as 8080, 8080/udp or 8000-8010"
                raise self._planner.error("expose", str(error), word.span, hint=hint) from error
        exposed = stage.config.config.get("ExposedPorts") or {}
        stage.config.set_or_drop("ExposedPorts", {**exposed, **{port: {} for port in ports}})
        stage.config.commit(f"EXPOSE {go_list(ports)}")


def _healthcheck(config: ImageConfig, instruction: grammar.Healthcheck) -> None:
    match instruction.test:
        case None:
            test = ["NONE"]
        case grammar.ShellForm(text=text):
            test = ["CMD-SHELL", text]
        case grammar.ExecForm(args=args):
            test = ["CMD", *args]
        case _:
            assert_never(instruction.test)
    times = {
        "Interval": instruction.interval or 0,
        "Timeout": instruction.timeout or 0,
        "StartPeriod": instruction.start_period or 0,
        "StartInterval": instruction.start_interval or 0,
    }
    retries = instruction.retries or 0
    health: Json = {"Test": test, **{name: value for name, value in times.items() if value}}
    if retries:
        health["Retries"] = retries
    config.config["Healthcheck"] = health
    shown = " ".join(f"{name}:{go_duration(value)}" for name, value in times.items())
    config.commit(f"HEALTHCHECK {{Test:{go_list(test)} {shown} Retries:{retries}}}")
