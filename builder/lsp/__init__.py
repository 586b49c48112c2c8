"""A language server for Dockerfiles. Only `server.py` speaks the protocol; the other modules know text alone."""
