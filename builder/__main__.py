"""`python -m builder`: pybuild where its console script is not installed."""

from __future__ import annotations

from builder.cli import script

script()
