"""The state machine of a build: which vertex may start, what each one became, and when to stop.

It knows vertices and their states, and asks a `Worker` to look results up and to make them. It knows no files, layers
or processes. States are drawn in docs/design.md, "Builder".
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from builder.errors import BuildError, Canceled
from builder.events import Completed, Event, Planned, Progress, Started, VertexId
from builder.graph import Graph, Vertex
from grammar.record import Record
from layerstore.digest import DiffId


class VertexState(Enum):
    """Where a vertex is. Only PENDING, READY and RUNNING are ever left; the others are final."""

    PENDING = "waits for inputs"
    READY = "all inputs have results"
    RUNNING = "is being made"
    CACHED = "was found"
    DONE = "was made"
    FAILED = "could not be made"
    CANCELED = "was given up"


_FINAL = frozenset({VertexState.CACHED, VertexState.DONE, VertexState.FAILED, VertexState.CANCELED})


class Result(Record):
    """What a vertex yields: the whole chain of layers, lowest first. A context yields none: it is read as a tree.

    `created` is when each layer was made (nanoseconds since the epoch, 0 for those of a base image). `cached` says that
    nothing was done, `note` what there is to say about how it was made.
    """

    layers: tuple[DiffId, ...] = ()
    created: tuple[int, ...] = ()
    cached: bool = False
    note: str = ""


class Worker(Protocol):
    """Finds and makes results. Everything but `cancel` is given vertices whose inputs have results."""

    def lookup(self, vertex: Vertex, inputs: Sequence[Result]) -> Result | None:
        """Return the result if it takes no more than a look, None if it may have to be made. Never blocks for long."""

    def check(self, vertices: Sequence[Vertex]) -> None:
        """Raise BuildError if this machine cannot make one of `vertices`: all that is left when something has to be."""

    def make(self, vertex: Vertex, inputs: Sequence[Result], emit: Callable[[Event], None]) -> Result:
        """Return the result, made if it cannot be found. Called from several threads. Raises BuildError and others."""

    def cancel(self) -> None:
        """End what is being made: every running `make` returns soon, with an error."""


class Solver:
    """Solves one graph. `state` is the truth; the queue and the counters are views of it kept by `_set`."""

    def __init__(self, worker: Worker, progress: Progress, clock: Callable[[], float], *, jobs: int = 4) -> None:
        """`jobs` is how many vertices are made at once; `clock` gives seconds since the epoch."""
        self.worker = worker
        self.progress = progress
        self.clock = clock
        self.jobs = jobs
        self.state: dict[VertexId, VertexState] = {}
        self.results: dict[VertexId, Result] = {}
        self._ready: deque[Vertex] = deque()
        self._waits: dict[VertexId, int] = {}
        self._users: dict[VertexId, list[Vertex]] = {}
        self._running = 0
        self._threads: list[threading.Thread] = []
        self._given: deque[tuple[Vertex, Sequence[Result]]] = deque()
        self._idle = 0
        self._ended = False
        self._failure: BaseException | None = None
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._handed_out = threading.Condition(lock)
        self._emitting = threading.Lock()

    def solve(self, graph: Graph, *targets: Vertex) -> tuple[Result, ...]:
        """Return the results of `targets`; the first failure ends the build and is raised.

        KeyboardInterrupt cancels it.
        """
        order = list(graph.needed(*targets))
        for vertex in order:
            self.state[vertex.id] = VertexState.PENDING
            inputs = {one.id for one in vertex.inputs}
            self._waits[vertex.id] = len(inputs)
            for one in inputs:
                self._users.setdefault(one, []).append(vertex)
            if vertex.name:
                named = tuple(one.id for one in vertex.inputs if one.name)
                self.emit(Planned(vertex=vertex.id, name=vertex.name, inputs=named))
        try:
            with self._changed:
                for vertex in order:
                    if not vertex.inputs:
                        self._set(vertex, VertexState.READY)
                self._work(order)
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self._dismiss()
        if self._failure is not None:
            raise self._failure
        return tuple(self.results[target.id] for target in targets)

    def emit(self, event: Event) -> None:
        """Hand an event to the progress, one at a time."""
        with self._emitting:
            self.progress.emit(event)

    def _work(self, order: Sequence[Vertex]) -> None:
        """Until nothing is ready and nothing runs: look up what is ready, start what has to be made. Holds the lock."""
        waiting: deque[Vertex] = deque()
        checked = False
        while True:
            while self._ready and self._failure is None:
                vertex = self._ready.popleft()
                if not self._found(vertex):
                    waiting.append(vertex)
            if waiting and not checked and self._failure is None:
                self.worker.check([vertex for vertex in order if self.state[vertex.id] not in _FINAL])
                checked = True
            while waiting and self._running < self.jobs and self._failure is None:
                self._start(waiting.popleft())
            if not self._running and (self._failure is not None or not waiting):
                return
            self._changed.wait()

    def _found(self, vertex: Vertex) -> bool:
        """Look a ready vertex up; a failure of the lookup is the vertex's own."""
        try:
            result = self.worker.lookup(vertex, self._inputs(vertex))
        except BuildError as error:
            self._fail(vertex, error)
            return True
        if result is None:
            return False
        self._finish(vertex, result)
        return True

    def _start(self, vertex: Vertex) -> None:
        self._set(vertex, VertexState.RUNNING)
        self._given.append((vertex, self._inputs(vertex)))
        if self._idle >= len(self._given):
            self._handed_out.notify()
            return
        thread = threading.Thread(target=self._serve, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        """The life of a worker thread: make what is given, until nothing more will be.

        One thread makes one vertex after the other: each has a connection to the store's database.
        """
        while True:
            with self._changed:
                self._idle += 1
                while not self._given and not self._ended:
                    self._handed_out.wait()
                self._idle -= 1
                if not self._given:
                    return
                vertex, inputs = self._given.popleft()
            self._make(vertex, inputs)

    def _dismiss(self) -> None:
        """Let the worker threads end."""
        with self._changed:
            self._ended = True
            self._handed_out.notify_all()

    def _make(self, vertex: Vertex, inputs: Sequence[Result]) -> None:
        """Make one vertex and say what became of it."""
        try:
            result = self.worker.make(vertex, inputs, self.emit)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the solver's thread raises it
            with self._changed:
                self._fail(vertex, error)
                self._changed.notify()
            return
        with self._changed:
            self._finish(vertex, result)
            self._changed.notify()

    def _inputs(self, vertex: Vertex) -> list[Result]:
        return [self.results[one.id] for one in vertex.inputs]

    def _finish(self, vertex: Vertex, result: Result) -> None:
        self.results[vertex.id] = result
        self._set(vertex, VertexState.CACHED if result.cached else VertexState.DONE, note=result.note)
        for user in self._users.get(vertex.id, ()):
            self._waits[user.id] -= 1
            if not self._waits[user.id]:
                self._set(user, VertexState.READY)

    def _fail(self, vertex: Vertex, error: BaseException) -> None:
        """Note the first failure and stop the others; what they raise after that is only that they were stopped."""
        if self._failure is None:
            self._failure = error
            self._set(vertex, VertexState.FAILED, error=str(error) or type(error).__name__)
            self.worker.cancel()
        else:
            self._set(vertex, VertexState.CANCELED, error="canceled")

    def _abandon(self, error: BaseException) -> None:
        """Interrupted in the solver's own thread: stop everything and wait until it has stopped."""
        with self._changed:
            if self._failure is None:
                self._failure = error if isinstance(error, BuildError) else Canceled("canceled")
            self.worker.cancel()
        self._dismiss()
        # Threads are waited for, not states: an interrupt may come between a state and its thread.
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _set(self, vertex: Vertex, state: VertexState, *, note: str = "", error: str | None = None) -> None:
        """The one place where a state changes; queue, counter and events follow from it."""
        before = self.state[vertex.id]
        assert before not in _FINAL, f"BUG: {vertex.name} is {before}, cannot become {state}"
        self.state[vertex.id] = state
        if state is VertexState.READY:
            self._ready.append(vertex)
            return
        self._running += (state is VertexState.RUNNING) - (before is VertexState.RUNNING)
        if not vertex.name:
            return
        now = self.clock()
        if before is not VertexState.RUNNING:
            self.emit(Started(vertex=vertex.id, time=now))
        if state in _FINAL:
            cached = state is VertexState.CACHED
            self.emit(Completed(vertex=vertex.id, time=now, cached=cached, note=note, error=error))
