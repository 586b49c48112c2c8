"""Projects to hurt."""

from tests.building import base_store, project, registry

__all__ = ["base_store", "project", "registry"]
