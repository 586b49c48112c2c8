"""A build context on this machine as a file tree: a host directory minus what its ignore file leaves out."""

from __future__ import annotations
