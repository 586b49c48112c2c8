"""A stage while it is planned: the state that its instructions change."""

from __future__ import annotations

import grammar
from builder.graph import Vertex
from builder.image import ImageConfig
from layerstore.platforms import Platform

DEFAULT_SHELL = ("/bin/sh", "-c")


class StageState:
    """A stage while it is planned: the state that instructions change.

    `env` is what variables are replaced from, `args` the ARGs so far with their values. `label` and `index` of `total`
    are the stage's part of its steps' names; `trigger` is set while ONBUILD triggers of the base are planned.
    """

    def __init__(self, config: ImageConfig, tip: Vertex, platform: Platform) -> None:
        self.config = config
        self.tip = tip
        self.platform = platform
        self.env: dict[str, str] = {}
        self.args: list[tuple[str, str | None]] = []
        self.written: grammar.Stage
        self.name = ""
        self.label = ""
        self.total = 0
        self.index = 0
        self.cmd_is_set = False
        self.ignore_cache = False
        self.trigger = False

    def fork(self) -> StageState:
        """Return what a stage that is based on this one starts with."""
        stage = StageState(self.config.fork(), self.tip, self.platform)
        stage.env = dict(self.env)
        stage.args = list(self.args)
        return stage

    @property
    def shell(self) -> tuple[str, ...]:
        """The program and arguments that shell forms are handed to."""
        return tuple(self.config.config.get("Shell") or DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return self.config.config.get("WorkingDir") or "/"
