"""The state machine: order, one vertex once, parallel branches, the first failure, cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from builder.errors import BuildError, Canceled
from builder.events import Completed, Event, Planned, Started
from builder.graph import Graph, Vertex, vertex_id
from builder.ops import MkdirOp, Op, ScratchOp
from builder.solve import Result, Solver, VertexState
from layerstore.digest import DiffId


@dataclass
class Worker:
    """A worker that makes a layer of a name; `known` are found, `broken` fail, `slow` wait until they are let go."""

    known: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    made: list[str] = field(default_factory=list)
    checked: list[list[str]] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    together: int = 0
    most: int = 0
    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lookup(self, vertex: Vertex, inputs: Sequence[Result]) -> Result | None:
        self.looked.append(vertex.name)
        return self.result(vertex, inputs, cached=True) if vertex.name in self.known else None

    def make(self, vertex: Vertex, inputs: Sequence[Result], emit: Callable[[Event], None]) -> Result:
        with self.lock:
            self.made.append(vertex.name)
            self.together += 1
            self.most = max(self.most, self.together)
            if self.together == 2:
                self.started.set()
        if vertex.name in self.slow:
            self.go.wait(10)
        with self.lock:
            self.together -= 1
        if vertex.name in self.broken:
            raise BuildError(f"{vertex.name} is broken")
        return self.result(vertex, inputs)

    def check(self, vertices: Sequence[Vertex]) -> None:
        self.checked.append([vertex.name for vertex in vertices])

    def cancel(self) -> None:
        self.go.set()

    def result(self, vertex: Vertex, inputs: Sequence[Result], *, cached: bool = False) -> Result:
        below = inputs[0].layers if inputs else ()
        return Result(layers=(*below, DiffId.of(vertex.name.encode())), cached=cached)


@dataclass
class Recording:
    """A progress that remembers events."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Maker:
    """Makes named vertices of one graph."""

    graph: Graph = field(default_factory=Graph)

    def __call__(self, name: str, *inputs: Vertex) -> Vertex:
        op: Op = MkdirOp(path=name, user="") if inputs else ScratchOp()
        return self.graph.add(Vertex(id=vertex_id(op, inputs), op=op, inputs=inputs, name=name))


def solver(worker: Worker, progress: Recording, *, jobs: int = 4) -> Solver:
    ticks = iter(range(1_000_000))
    return Solver(worker, progress, lambda: float(next(ticks)), jobs=jobs)


def test_inputs_come_first_and_each_vertex_once() -> None:
    """A diamond is made from the bottom up, its base a single time."""
    make, worker = Maker(), Worker()
    base = make("base")
    left, right = make("left", base), make("right", base)
    top = make("top", left, right)

    (result,) = solver(worker, Recording()).solve(make.graph, top)

    assert ["base", "top"] == [worker.made[0], worker.made[-1]]
    assert ["base", "left", "right", "top"] == sorted(worker.made)
    assert (DiffId.of(b"base"), DiffId.of(b"left"), DiffId.of(b"top")) == result.layers


def test_equal_operations_are_one_vertex() -> None:
    """Two stages that begin with the same step share its vertex."""
    make = Maker()

    assert make("step", make("base")) is make("step", make("base"))


def test_what_is_found_is_not_made() -> None:
    """A fully cached chain makes nothing and starts no thread."""
    make, worker = Maker(), Worker(known={"base", "a", "b"})
    before = threading.active_count()

    (result,) = solver(worker, Recording()).solve(make.graph, make("b", make("a", make("base"))))

    assert [] == worker.made
    assert result.cached
    assert before == threading.active_count()


def test_a_branch_that_nothing_needs_is_left_alone() -> None:
    """Only what the target needs is looked at."""
    make, worker = Maker(), Worker()
    base = make("base")
    make("unneeded", base)

    solver(worker, Recording()).solve(make.graph, make("wanted", base))

    assert "unneeded" not in worker.looked


def test_branches_run_at_the_same_time() -> None:
    """Two independent branches are both running before either ends."""
    make, worker = Maker(), Worker(slow={"left", "right"})
    base = make("base")
    top = make("top", make("left", base), make("right", base))

    def let_go() -> None:
        worker.started.wait(10)
        worker.go.set()

    threading.Thread(target=let_go).start()

    solver(worker, Recording()).solve(make.graph, top)

    assert 2 == worker.most


def test_jobs_bounds_what_runs_at_once() -> None:
    """With one job, one vertex at a time."""
    make, worker = Maker(), Worker()
    base = make("base")
    top = make("top", *(make(f"branch {number}", base) for number in range(8)))

    solver(worker, Recording(), jobs=1).solve(make.graph, top)

    assert 1 == worker.most


def test_the_first_failure_ends_the_build() -> None:
    """The error of the broken vertex is raised, the branch beside it is canceled, and nothing above is begun."""
    make, worker = Maker(), Worker(broken={"left", "right"}, slow={"right"})
    base = make("base")
    left, right = make("left", base), make("right", base)
    top = make("top", left, right)
    progress = Recording()
    solving = solver(worker, progress)

    with pytest.raises(BuildError, match="left is broken"):
        solving.solve(make.graph, top)

    assert "top" not in worker.made
    assert VertexState.FAILED is solving.state[left.id]
    assert VertexState.CANCELED is solving.state[right.id]
    assert VertexState.PENDING is solving.state[top.id]
    errors = {event.vertex: event.error for event in progress.events if isinstance(event, Completed) and event.error}
    assert {left.id: "left is broken", right.id: "canceled"} == errors


def test_an_interrupt_waits_for_what_runs() -> None:
    """KeyboardInterrupt in the solver's thread cancels the worker and returns only when its threads are done."""
    make, worker = Maker(), Worker(slow={"step"}, broken={"step"})

    class Interrupting(Recording):
        def emit(self, event: Event) -> None:
            super().emit(event)
            if isinstance(event, Started) and event.vertex == step.id:
                raise KeyboardInterrupt

    step = make("step", make("base"))
    with pytest.raises(KeyboardInterrupt):
        solver(worker, Interrupting()).solve(make.graph, step)

    assert 0 == worker.together


def test_every_vertex_is_planned_started_and_completed_once() -> None:
    """Consumers of events can rely on one of each per named vertex, in this order."""
    make, worker, progress = Maker(), Worker(known={"a"}), Recording()
    top = make("b", make("a", make("base")))

    solver(worker, progress).solve(make.graph, top)

    for vertex in make.graph.vertices.values():
        kinds = [type(event) for event in progress.events if getattr(event, "vertex", None) == vertex.id]
        assert [Planned, Started, Completed] == kinds


def test_a_chain_deeper_than_the_interpreters_stack() -> None:
    """Two thousand instructions on top of each other are solved without recursion."""
    make, worker = Maker(), Worker()
    tip = make("base")
    for number in range(2000):
        tip = make(f"step {number}", tip)
    worker.known = {vertex.name for vertex in make.graph.vertices.values()}

    (result,) = solver(worker, Recording()).solve(make.graph, tip)
    assert 2001 == len(result.layers)


def test_canceled_is_a_build_error_of_its_own_status() -> None:
    """What a caller sees after Ctrl-C exits with 130."""
    assert 130 == Canceled("canceled").exit_code
