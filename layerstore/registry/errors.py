"""The errors of registries.

StoreError
└── RegistryError           a registry refused, failed or sent something wrong
    ├── AuthError           credentials are missing, wrong or not enough, or cannot be stored
    ├── UnknownImage        the registry has no such image
    ├── Unreachable         nobody answers, or nobody answers any more
    └── RegistryConfigError registries.conf forbids it or is malformed
"""

from __future__ import annotations

from layerstore.errors import StoreError


class RegistryError(StoreError):
    """A registry refused, failed or sent something wrong; `status` is the HTTP status, 0 if there is none."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class AuthError(RegistryError):
    """Credentials are missing, wrong or not enough, or cannot be stored."""


class UnknownImage(RegistryError):
    """The registry has no such image."""


class Unreachable(RegistryError):
    """Nobody answers, or nobody answers any more."""


class RegistryConfigError(RegistryError):
    """The registries.conf forbids it or is malformed."""
