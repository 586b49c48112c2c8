"""Serve on port 8000 until the container is stopped."""

import itertools
import signal
import sys

from bottle import Bottle, run

PORT = 8000
service = Bottle()
visits = itertools.count(1)


@service.get("/")
def hello() -> dict[str, object]:
    """Return a greeting and the number of visits so far."""
    return {"message": "Hello from a pybuild container", "visits": next(visits)}


@service.get("/health")
def health() -> str:
    """Say that the service answers."""
    return "ok\n"


# Process 1 of a container ignores SIGTERM unless it says otherwise.
signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(0))
# Every address of the container: which of them the host forwards to is decided by whoever publishes the port.
run(service, host="0.0.0.0", port=PORT, quiet=True)  # noqa: S104 - see above
