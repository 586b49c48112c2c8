"""The files a COPY or ADD selects, and the digest of exactly those: the content half of a copy's cache key."""

from __future__ import annotations
