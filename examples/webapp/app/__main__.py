"""Serve on port 8000 until the container is stopped."""

import signal
import sys

from bottle import Bottle, run

PORT = 8000
service = Bottle()
visits = 0


@service.get("/")
def hello() -> dict[str, object]:
    """Return a greeting and the number of visits so far."""
    global visits
    visits += 1
    return {"message": "Hello from a pybuild container", "visits": visits}


@service.get("/health")
def health() -> str:
    """Say that the service answers."""
    return "ok\n"


# Process 1 of a container ignores SIGTERM unless it says otherwise.
signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(0))
run(service, host="0.0.0.0", port=PORT, quiet=True)
